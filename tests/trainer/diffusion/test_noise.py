"""The forward process against sd-scripts' numbers and its own definition."""

import pytest
import torch

from lora_trainer.diffusion.noise import add_noise, draw, make_schedule
from lora_trainer.errors import BaseModelUnavailable

SCHEDULE = make_schedule(0.00085, 0.012)


def test_the_signal_share_is_that_of_stable_diffusion() -> None:
    shares = SCHEDULE.alphas_cumprod[[0, 100, 500, 900, 999]].tolist()

    assert shares == pytest.approx([0.99915, 0.894223, 0.276332, 0.014151, 0.00466], abs=5e-6)


def test_sigma_is_the_root_of_noise_over_signal() -> None:
    assert float(SCHEDULE.sigmas[500]) == pytest.approx((1 / 0.38185) ** 0.5, rel=1e-4)


def test_the_linear_schedule_multiplies_what_is_left() -> None:
    schedule = make_schedule(0.1, 0.3, steps=3, name="linear")

    assert schedule.alphas_cumprod.tolist() == pytest.approx([0.9, 0.9 * 0.8, 0.9 * 0.8 * 0.7])


def test_an_unknown_schedule_is_refused_by_name() -> None:
    with pytest.raises(BaseModelUnavailable, match="beta_schedule squaredcos_cap_v2 is unknown"):
        make_schedule(0.1, 0.2, name="squaredcos_cap_v2")


def test_noisy_latents_keep_the_variance() -> None:
    random = torch.Generator().manual_seed(0)
    latents, noise = torch.randn((2, 2, 4, 64, 64), generator=random)

    noisy = add_noise(latents, noise, torch.tensor([0.9, 0.1]))

    assert noisy.var(dim=(1, 2, 3)).tolist() == pytest.approx([1.0, 1.0], abs=0.05)
    assert noisy[0, 0, 0, 0].item() == pytest.approx(
        0.9**0.5 * latents[0, 0, 0, 0].item() + 0.1**0.5 * noise[0, 0, 0, 0].item()
    )


def test_draws_depend_on_seed_step_and_batch_only() -> None:
    shape = torch.Size((2, 4, 8, 8))

    first = draw(shape, SCHEDULE, seed=1, step=5, micro=0)
    same = draw(shape, SCHEDULE, seed=1, step=5, micro=0)
    places = [(2, 5, 0), (1, 6, 0), (1, 5, 1)]
    others = [draw(shape, SCHEDULE, seed=seed, step=step, micro=micro) for seed, step, micro in places]

    assert first.noise.equal(same.noise) and first.timesteps.equal(same.timesteps)
    assert not any(first.noise.equal(other.noise) for other in others)


def test_timesteps_cover_the_whole_range() -> None:
    timesteps = draw(torch.Size((5000, 1, 1, 1)), SCHEDULE, seed=0, step=0, micro=0).timesteps

    assert timesteps.min() < 5 and timesteps.max() > 994
    assert timesteps.double().mean().item() == pytest.approx(499.5, abs=15)
