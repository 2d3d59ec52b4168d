"""The objective against float64 formulas, and training with it against a loop that was written from the papers."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lora_api.model_spec import Prediction
from lora_api.training_spec import Loss
from lora_trainer.diffusion.noise import NoiseSchedule, make_schedule
from lora_trainer.diffusion.objective import Draw, Objective, check
from lora_trainer.errors import InvalidConfiguration
from lora_trainer.generators import generator
from lora_trainer.rng import Purpose
from tests.support import reference_loop
from tests.support.reference_loop import Recipe

SCHEDULE = make_schedule(0.00085, 0.012)
LATENTS = torch.randn((3, 4, 8, 6), generator=torch.Generator().manual_seed(3)) + 0.5


def make_objective(prediction: Prediction = "epsilon", **fields: Any) -> Objective:
    return Objective(SCHEDULE, prediction, Loss.model_validate(fields))


def draw_of(objective: Objective, latents: Tensor = LATENTS) -> Draw:
    return objective.draw(latents, seed=7, step=4, micro=1)


def given_normal(purpose: Purpose, *shape: int) -> Tensor:
    """The first normal numbers of a purpose at the place of `draw_of`."""
    return torch.randn(shape, generator=generator(7, purpose, 4, 1))


def draws_equal(a: Draw, b: Draw) -> bool:
    return a.noise.equal(b.noise) and a.timesteps.equal(b.timesteps)


def test_draws_are_a_function_of_the_place() -> None:
    objective = make_objective()

    assert draws_equal(draw_of(objective), draw_of(objective))


@pytest.mark.parametrize("place", [{"seed": 8}, {"step": 5}, {"micro": 0}])
def test_draws_differ_between_seeds_steps_and_batches(place: dict[str, int]) -> None:
    objective = make_objective()

    other = objective.draw(LATENTS, **({"seed": 7, "step": 4, "micro": 1} | place))

    assert not draw_of(objective).noise.equal(other.noise)


def test_plain_noise_is_standard_normal_and_is_what_is_predicted() -> None:
    objective = make_objective()
    drawn = draw_of(objective)

    assert drawn.noise.equal(given_normal(Purpose.NOISE, 3, 4, 8, 6))
    assert drawn.perturbed is None
    assert objective.target(LATENTS, drawn).equal(drawn.noise)


def test_draws_use_no_global_random_number() -> None:
    before = torch.get_rng_state()

    draw_of(make_objective(noiseOffset=0.1, multiresNoiseIterations=6, ipNoiseGamma=0.1))

    assert torch.get_rng_state().equal(before)


def test_the_range_of_timesteps_is_half_open() -> None:
    objective = make_objective(minTimestep=10, maxTimestep=13)

    timesteps = draw_of(objective, torch.zeros(300, 1, 1, 1)).timesteps

    assert set(timesteps.tolist()) == {10, 11, 12}


def test_timesteps_cover_the_whole_range() -> None:
    timesteps = draw_of(make_objective(), torch.zeros(5000, 1, 1, 1)).timesteps

    assert timesteps.min() < 5 and timesteps.max() > 994
    assert timesteps.double().mean().item() == pytest.approx(499.5, abs=15)


def test_a_range_beyond_the_models_timesteps_is_refused() -> None:
    short = NoiseSchedule(SCHEDULE.alphas_cumprod[:100])

    with pytest.raises(InvalidConfiguration, match=r"spec.training.loss.minTimestep is 200, .* only 100 timesteps"):
        Objective(short, "epsilon", Loss.model_validate({"minTimestep": 200}))


def test_an_offset_is_added_to_the_noise_and_is_predicted_too() -> None:
    objective = make_objective(noiseOffset=0.2)
    noise = given_normal(Purpose.NOISE, 3, 4, 8, 6) + 0.2 * given_normal(Purpose.NOISE_OFFSET, 3, 4, 1, 1)

    drawn = draw_of(objective)

    torch.testing.assert_close(drawn.noise, noise)
    assert objective.target(LATENTS, drawn).equal(drawn.noise)


def test_an_offset_of_drawn_strength_has_one_strength_a_batch() -> None:
    drawn = draw_of(make_objective(noiseOffset=0.2, noiseOffsetRandomStrength=True))

    random = generator(7, Purpose.NOISE_OFFSET, 4, 1)
    strength = 0.2 * torch.rand((), generator=random)
    offset = strength * torch.randn((3, 4, 1, 1), generator=random)
    torch.testing.assert_close(drawn.noise, given_normal(Purpose.NOISE, 3, 4, 8, 6) + offset)


def test_an_adaptive_offset_grows_with_the_channels_means() -> None:
    drawn = draw_of(make_objective(noiseOffset=0.2, adaptiveNoiseScale=0.3))

    strength = 0.2 + 0.3 * LATENTS.mean(dim=(2, 3), keepdim=True).abs()
    offset = strength * given_normal(Purpose.NOISE_OFFSET, 3, 4, 1, 1)
    torch.testing.assert_close(drawn.noise, given_normal(Purpose.NOISE, 3, 4, 8, 6) + offset)


def test_multires_noise_follows_the_offset_and_has_a_variance_of_one() -> None:
    offset_only = draw_of(make_objective(noiseOffset=0.2)).noise
    both = draw_of(make_objective(noiseOffset=0.2, multiresNoiseIterations=1, multiresNoiseDiscount=0.5)).noise

    random = generator(7, Purpose.MULTIRES_NOISE, 4, 1)
    torch.rand(1, generator=random)
    expected = offset_only + torch.randn((3, 4, 8, 6), generator=random)
    torch.testing.assert_close(both, expected / expected.std())


def test_the_usual_discount_of_multires_noise_is_three_tenths() -> None:
    usual = draw_of(make_objective(multiresNoiseIterations=6))
    spelled_out = draw_of(make_objective(multiresNoiseIterations=6, multiresNoiseDiscount=0.3))

    assert usual.noise.equal(spelled_out.noise)


@pytest.mark.parametrize("random_strength", [False, True])
def test_input_perturbation_is_seen_but_not_predicted(random_strength: bool) -> None:
    objective = make_objective(ipNoiseGamma=0.4, ipNoiseGammaRandomStrength=random_strength)
    random = generator(7, Purpose.PERTURBATION, 4, 1)
    strength = 0.4 * float(torch.rand((), generator=random)) if random_strength else 0.4
    noise = given_normal(Purpose.NOISE, 3, 4, 8, 6)
    seen = noise + strength * torch.randn((3, 4, 8, 6), generator=random)

    drawn = draw_of(objective)

    share = SCHEDULE.alphas_cumprod[drawn.timesteps].view(-1, 1, 1, 1)
    torch.testing.assert_close(objective.noisy(LATENTS, drawn), share.sqrt() * LATENTS + (1 - share).sqrt() * seen)
    assert objective.target(LATENTS, drawn).equal(noise)


def test_the_variants_of_noise_leave_the_timesteps_as_they_are() -> None:
    plain = draw_of(make_objective())
    varied = draw_of(make_objective(noiseOffset=0.1, multiresNoiseIterations=6, ipNoiseGamma=0.1))

    assert plain.timesteps.equal(varied.timesteps)


def test_the_velocity_of_pure_noise_is_the_latent_with_its_sign_turned() -> None:
    objective = make_objective("v_prediction", zeroTerminalSnr=True)
    last = Draw(torch.randn_like(LATENTS), None, torch.full((3,), 999))

    assert objective.noisy(LATENTS, last).equal(last.noise)
    assert objective.target(LATENTS, last).equal(-LATENTS)


def test_pictures_are_drawn_with_the_rescaled_schedule_only_if_it_is_asked_for() -> None:
    assert make_objective("v_prediction", zeroTerminalSnr=True).schedule.alphas_cumprod[-1] == 0
    assert make_objective("v_prediction").schedule is SCHEDULE


def test_the_loss_is_the_mean_over_samples_of_weighted_means_of_masked_distances() -> None:
    random = np.random.default_rng(0)
    prediction, target = random.normal(size=(2, 3, 4, 5, 6))
    masks, weights = random.random((3, 1, 5, 6)), np.array([1.0, 0.5, 2.0])
    shares = np.array(reference_loop.signal_shares())[[10, 200, 800]]
    snr_weights = np.minimum(1, 5 * (1 - shares) / shares)
    expected = np.mean(weights * snr_weights * (np.abs(prediction - target) * masks).mean(axis=(1, 2, 3)))

    objective = make_objective(type="l1", minSnrGamma=5.0)
    tensors = [torch.from_numpy(array).float() for array in (prediction, target, weights, masks)]
    drawn = Draw(tensors[1], None, torch.tensor([10, 200, 800]))
    found = objective.loss(tensors[0], tensors[1], drawn, weights=tensors[2], masks=tensors[3])

    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_the_loss_of_a_half_precision_prediction_is_fp32() -> None:
    objective = make_objective()
    drawn = draw_of(objective)

    loss = objective.loss(LATENTS.bfloat16(), drawn.noise.bfloat16(), drawn, weights=torch.ones(3))

    assert loss.dtype == torch.float32


def test_min_snr_weighs_by_the_models_own_schedule_also_at_zero_terminal_snr() -> None:
    drawn = Draw(torch.zeros_like(LATENTS), None, torch.full((3,), 999))
    own, rescaled = (
        make_objective("v_prediction", minSnrGamma=5.0, zeroTerminalSnr=zero).loss(
            LATENTS, drawn.noise, drawn, weights=torch.ones(3)
        )
        for zero in (False, True)
    )

    assert rescaled.item() == own.item() > 0


@pytest.mark.parametrize(
    ("prediction", "fields", "message"),
    [
        ("epsilon", {"zeroTerminalSnr": True}, "spec.training.loss.zeroTerminalSnr is true, but .* noise"),
        ("epsilon", {"scaleVPredictionLikeNoise": True}, "spec.training.loss.scaleVPredictionLikeNoise is true"),
        ("v_prediction", {"vPredictionLikeLoss": 0.5}, "spec.training.loss.vPredictionLikeLoss is 0.5, .* remove it"),
    ],
)
def test_what_the_models_prediction_gives_no_meaning_is_refused(
    prediction: Prediction, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidConfiguration, match=message):
        make_objective(prediction, **fields)


@pytest.mark.parametrize(
    ("prediction", "fields"),
    [
        ("v_prediction", {"zeroTerminalSnr": True, "scaleVPredictionLikeNoise": True}),
        ("epsilon", {"vPredictionLikeLoss": 0.5}),
        ("epsilon", {}),
    ],
)
def test_what_fits_the_models_prediction_is_taken(prediction: Prediction, fields: dict[str, Any]) -> None:
    check(prediction, Loss.model_validate(fields))


@pytest.mark.parametrize(
    ("prediction", "fields"),
    [
        ("epsilon", {}),
        (
            "epsilon",
            {
                "type": "huber",
                "minSnrGamma": 5.0,
                "noiseOffset": 0.1,
                "noiseOffsetRandomStrength": True,
                "adaptiveNoiseScale": 0.1,
                "multiresNoiseIterations": 6,
                "ipNoiseGamma": 0.1,
                "ipNoiseGammaRandomStrength": True,
            },
        ),
        ("v_prediction", {"zeroTerminalSnr": True, "debiasedEstimation": True}),
    ],
)
def test_nothing_waits_for_the_device(prediction: Prediction, fields: dict[str, Any]) -> None:
    """A meta tensor has no numbers: whatever wants to read one on the host fails."""
    objective = make_objective(prediction, **fields)
    latents = torch.empty((3, 4, 8, 6), device="meta")

    drawn = draw_of(objective, latents)
    noisy, target = objective.noisy(latents, drawn), objective.target(latents, drawn)
    weights, masks = torch.empty(3, device="meta"), torch.empty((3, 1, 8, 6), device="meta")
    loss = objective.loss(noisy, target, drawn, weights=weights, masks=masks)

    assert (loss.device.type, loss.shape, loss.dtype) == ("meta", (), torch.float32)


class TinyUnet(nn.Module):
    """Two convolutions with the timestep between them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(4, 8, 3, padding=1), nn.Conv2d(8, 4, 3, padding=1)
        self.time = nn.Linear(2, 8)

    def forward(self, latents: Tensor, timesteps: Tensor) -> Any:
        phase = timesteps.float()[:, None] / 1000 * torch.tensor([1.0, 3.0])
        return self.last(torch.tanh(self.first(latents) + self.time(phase.sin())[:, :, None, None]))


def make_unet() -> TinyUnet:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return TinyUnet()


STEPS = 50
MASKS = torch.rand((3, 1, 8, 6), generator=torch.Generator().manual_seed(5))
WEIGHTS = torch.tensor([1.0, 0.25, 2.0])


def latents_of(step: int) -> Tensor:
    return torch.randn((3, 4, 8, 6), generator=torch.Generator().manual_seed(step))


def losses_with(objective: Objective, unet: nn.Module, *, masks: Tensor | None, weights: Tensor) -> list[float]:
    """The loss of each step with our objective and torch's AdamW."""
    optimizer = torch.optim.AdamW(unet.parameters(), lr=2e-3)
    losses = []
    for step in range(STEPS):
        latents = latents_of(step)
        drawn = objective.draw(latents, seed=1, step=step, micro=0)
        prediction = unet(objective.noisy(latents, drawn), drawn.timesteps)
        target = objective.target(latents, drawn)
        loss = objective.loss(prediction, target, drawn, weights=weights, masks=masks)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def reference_steps(
    *, masks: Tensor | None, weights: Tensor, offset: float, perturbation: float
) -> list[list[reference_loop.Batch]]:
    """The same random numbers, taken from where they are defined."""
    steps = []
    for step in range(STEPS):
        noise, channel, extra = (
            torch.randn(shape, generator=generator(1, purpose, step, 0))
            for purpose, shape in (
                (Purpose.NOISE, (3, 4, 8, 6)),
                (Purpose.NOISE_OFFSET, (3, 4, 1, 1)),
                (Purpose.PERTURBATION, (3, 4, 8, 6)),
            )
        )
        batch = reference_loop.Batch(
            latents_of(step),
            noise + offset * channel,
            torch.randint(0, 1000, (3,), generator=generator(1, Purpose.TIMESTEP, step, 0)),
            weights=weights,
            mask=masks,
            perturbation=perturbation * extra if perturbation else None,
        )
        steps.append([batch])
    return steps


def snr_threshold(t: int, share: float) -> float:
    return 0.9 / (1 + ((1 - share) / share) ** 0.5) ** 2 + 0.1


DEBIASED_L1 = Recipe(distance="l1", weight=lambda s: min(s, 1000) ** -0.5)
V_LIKE_NOISE = Recipe(v_prediction=True, weight=lambda s: min(s, 1000) / (min(s, 1000) + 1))


@pytest.mark.parametrize(
    ("prediction", "fields", "recipe"),
    [
        ("epsilon", {}, Recipe()),
        ("epsilon", {"minSnrGamma": 5.0}, Recipe(weight=lambda s: min(s, 5) / s)),
        ("epsilon", {"noiseOffset": 0.1, "ipNoiseGamma": 0.2}, Recipe()),
        ("epsilon", {"type": "huber"}, Recipe(distance="huber", huber_c=snr_threshold)),
        (
            "epsilon",
            {"type": "smooth_l1", "huberSchedule": "exponential", "huberC": 0.2},
            Recipe(distance="smooth_l1", huber_c=lambda t, share: 0.2 ** (t / 1000)),
        ),
        (
            "epsilon",
            {"type": "l1", "debiasedEstimation": True},
            Recipe(distance="l1", weight=lambda s: min(s, 1e3) ** -0.5),
        ),
        (
            "v_prediction",
            {"zeroTerminalSnr": True, "minSnrGamma": 5.0},
            Recipe(v_prediction=True, zero_terminal=True, weight=lambda s: min(s, 5) / (s + 1)),
        ),
        ("v_prediction", {"scaleVPredictionLikeNoise": True}, V_LIKE_NOISE),
    ],
    ids=[
        "plain",
        "min-snr",
        "offset+perturbation",
        "huber",
        "smooth_l1",
        "debiased",
        "v+ztsnr+min-snr",
        "v like noise",
    ],
)
@pytest.mark.parametrize("masked", [False, True], ids=["whole", "masked+weighted"])
def test_fifty_losses_equal_those_of_an_independent_loop(
    prediction: Prediction, fields: dict[str, Any], recipe: Recipe, masked: bool
) -> None:
    masks, weights = (MASKS, WEIGHTS) if masked else (None, torch.ones(3))
    offset, perturbation = fields.get("noiseOffset", 0.0), fields.get("ipNoiseGamma", 0.0)
    unet = make_unet()
    reference_unet = copy.deepcopy(unet)

    ours = losses_with(make_objective(prediction, **fields), unet, masks=masks, weights=weights)
    expected = reference_loop.train(
        lambda noisy, timesteps, _: reference_unet(noisy, timesteps),
        reference_unet.parameters(),
        reference_steps(masks=masks, weights=weights, offset=offset, perturbation=perturbation),
        recipe,
        update=reference_loop.AdamW(lambda step: 2e-3),
    )

    assert len(ours) == STEPS
    assert ours == pytest.approx(expected, rel=1e-5, abs=1e-5)
