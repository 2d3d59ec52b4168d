"""Steps and epochs on the tiny pipeline, with latents that need no pictures."""

import copy
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from lora_api.spec import LoraTrainingSpec
from lora_trainer.conditioning import TextStates, size_conditions
from lora_trainer.data.loader import TrainingBatch
from lora_trainer.diffusion.noise import make_schedule
from lora_trainer.diffusion.objective import Draw, Objective
from lora_trainer.errors import Diverged
from lora_trainer.families import catalogue
from lora_trainer.families.base import BaseModel
from lora_trainer.loop import Inputs, Learner, Trainer, train
from lora_trainer.lora.inject import Adapters, add_adapters
from lora_trainer.memory import StepTooLarge
from lora_trainer.plan import PlannedPicture, TrainingPlan, derive_plan
from lora_trainer.stopping import StopRequested
from lora_trainer.world import World
from tests.support.company import together
from tests.support.tiny_run import FEW_BLOCKS, make_training

SCHEDULE = make_schedule(0.00085, 0.012)
CAPTIONS = ["red", "a blue cat", "green"]
LATENTS = torch.randn((3, 4, 8, 8), generator=torch.Generator().manual_seed(1))
SIZES = size_conditions((64, 64), (0, 0), (64, 64))


@dataclass(frozen=True)
class Bench:
    """A trainer with everything around it."""

    trainer: Trainer
    model: BaseModel
    adapters: Adapters
    inputs: Inputs
    spec: LoraTrainingSpec

    def step(self, *batches: TrainingBatch, inputs: Inputs | None = None) -> None:
        self.trainer.train_step(batches, inputs or self.inputs, should_stop=lambda: False)

    def weights(self) -> dict[str, Tensor]:
        return {name: p.detach().clone() for name, p in self.adapters.named_parameters().items()}

    def train(self, *, stop_at: int | None = None) -> list[tuple[str, int]]:
        """Trains; gives what was called back, in order."""
        calls: list[tuple[str, int]] = []
        train(
            self.trainer,
            self.inputs,
            should_stop=lambda: self.trainer.step == stop_at,
            after_step=lambda epoch: calls.append(("step", epoch)),
            after_epoch=lambda epoch: (calls.append(("epoch", epoch)), setattr(self.trainer, "epoch", epoch))[0],
        )
        return calls


@pytest.fixture
def bench(tiny_pipeline: Path, tmp_path: Path) -> Callable[..., Bench]:
    """Builds a bench, with adapters in few blocks; changes are sections of the spec."""

    def build(
        *,
        clip_skip: int = 1,
        scaler: torch.amp.GradScaler | None = None,
        examples_at_once: int | None = None,
        world: World | None = None,
        **changes: Any,
    ) -> Bench:
        changes["training"] = {"batchSize": 1} | changes.get("training", {})
        changes["network"] = {"blocks": FEW_BLOCKS} | changes.get("network", {})
        spec = make_training(tiny_pipeline, tmp_path / "data", tmp_path / "out", **changes).spec
        model = load(tiny_pipeline, clip_skip=clip_skip)
        adapters = add_adapters(model.parts, spec.network, family="sd15", seed=spec.training.seed)
        learner = Learner(model, adapters, Objective(SCHEDULE, "epsilon", spec.training.loss))
        plan = make_plan(spec)
        accelerator = Accelerator(cpu=True)
        accelerator.scaler = scaler
        trainer = Trainer(
            learner, plan=plan, spec=spec, accelerator=accelerator, examples_at_once=examples_at_once, world=world
        )
        return Bench(trainer, model, adapters, make_inputs(model, plan), spec)

    return build


def load(folder: Path, *, clip_skip: int = 1) -> BaseModel:
    return catalogue.load(folder, torch.device("cpu"), precision=torch.float32, clip_skip=clip_skip)


def make_plan(spec: LoraTrainingSpec) -> TrainingPlan:
    return derive_plan([PlannedPicture(index, (64, 64), repeats=1) for index in range(3)], spec)


def make_inputs(model: BaseModel, plan: TrainingPlan) -> Inputs:
    """A picture a batch, in the order of their numbers."""

    def steps(epoch: int, made: int) -> Iterator[tuple[TrainingBatch, ...]]:
        already = made - (epoch - 1) * plan.steps_per_epoch
        yield from [(batch(index),) for index in range(3)][already : plan.steps_in_epoch(epoch)]

    return Inputs(steps, lambda captions: model.encode_texts(model.tokenize(captions)))


def batch(*indices: int, **changes: Any) -> TrainingBatch:
    count = len(indices)
    fields: dict[str, Any] = {
        "latents": LATENTS[list(indices)],
        "captions": tuple(CAPTIONS[index] for index in indices),
        "weights": torch.ones(count),
        "masks": None,
        "from_base": torch.zeros(count, dtype=torch.bool),
        "sizes": SIZES.expand(count, 6),
    }
    return TrainingBatch(**(fields | changes))


def loss_of(bench: Bench, step: int, micro: int, one: TrainingBatch) -> Tensor:
    """The loss of a batch, written down once more: Ho et al. 2020, equation 14."""
    random = Objective(SCHEDULE, "epsilon", bench.spec.training.loss).draw(
        one.latents, seed=bench.spec.training.seed, step=step, micro=micro
    )
    signal = SCHEDULE.alphas_cumprod[random.timesteps].view(-1, 1, 1, 1)
    noisy = signal.sqrt() * one.latents + (1 - signal).sqrt() * random.noise
    prediction = bench.model.predict(noisy, random.timesteps, bench.inputs.text(one.captions), one.sizes)
    return (prediction - random.noise).square().mean()


def test_the_loss_of_a_step_is_that_of_its_batch(bench: Callable[..., Bench]) -> None:
    one = bench()
    expected = loss_of(one, 0, 0, batch(0, 2)).item()

    one.step(batch(0, 2))

    assert one.trainer.mean_loss() == pytest.approx(expected, rel=1e-6)


def test_a_step_is_adam_on_the_mean_gradient_of_its_batches(bench: Callable[..., Bench]) -> None:
    """Two batches where the plan asks for four: a short last step is averaged over what it has."""
    one = bench(training={"gradientAccumulationSteps": 4}, optimizer={"maxGradNorm": 0.0, "learningRate": 1e-3})
    before = one.weights()
    ((loss_of(one, 0, 0, batch(0)) + loss_of(one, 0, 1, batch(1))) / 2).backward()
    gradients = {name: p.grad.clone() for name, p in one.adapters.named_parameters().items() if p.grad is not None}
    for parameter in one.adapters.named_parameters().values():
        parameter.grad = None

    one.step(batch(0), batch(1))

    name = max(
        (name for name in gradients if name.endswith("lora_up.weight")), key=lambda name: float(gradients[name].norm())
    )
    expected = before[name] - 1e-3 * gradients[name] / (gradients[name].abs() + 1e-8)
    torch.testing.assert_close(one.weights()[name], expected, rtol=1e-3, atol=1e-7)


def test_regularisation_pictures_weigh_what_the_spec_says(bench: Callable[..., Bench]) -> None:
    one = bench()
    whole = loss_of(one, 0, 0, batch(0)).item()

    one.step(batch(0, weights=torch.tensor([0.25])))

    assert one.trainer.mean_loss() == pytest.approx(0.25 * whole, rel=1e-6)


def test_gradients_are_clipped_to_the_norm(bench: Callable[..., Bench]) -> None:
    """AdamW hides the size of a gradient, so its first moment is looked at: 0.1 times what it was given."""
    one = bench(optimizer={"name": "adamw", "maxGradNorm": 1e-4})

    one.step(batch(0))

    moments = [entry["exp_avg"] for entry in one.trainer.state().optimizer["state"].values()]
    norm = torch.stack([moment.norm() for moment in moments]).norm()
    assert float(norm) == pytest.approx(0.1 * 1e-4, rel=1e-2)


def test_a_loss_that_is_no_number_stops_before_the_update(bench: Callable[..., Bench]) -> None:
    one = bench()
    before = one.weights()

    with pytest.raises(Diverged, match="the loss became nan at step 0 of 6"):
        one.step(batch(0, latents=torch.full((1, 4, 8, 8), torch.nan)))

    assert all(weight.equal(before[name]) for name, weight in one.weights().items())


def test_a_trained_tensor_without_gradient_is_our_bug_and_stops(bench: Callable[..., Bench]) -> None:
    one = bench()
    blind = Inputs(one.inputs.steps, lambda captions: TextStates(torch.zeros(len(captions), 77, 16)))

    with pytest.raises(AssertionError, match="24 trained tensors get no gradient, such as text_encoder"):
        one.step(batch(0), inputs=blind)


def test_layers_that_clip_skip_leaves_out_may_have_no_gradient(bench: Callable[..., Bench]) -> None:
    one = bench(clip_skip=2)

    one.step(batch(0))

    assert one.trainer.step == 1


def test_a_text_encoder_with_rate_0_stays_as_it_is(bench: Callable[..., Bench]) -> None:
    one = bench(optimizer={"textEncoderLearningRate": 0.0})
    before = one.weights()

    one.step(batch(0))

    changed = {name.split(".")[0] for name, weight in one.weights().items() if not weight.equal(before[name])}
    assert changed == {"unet"}
    assert one.trainer.learning_rates() == {"unet": 1e-2}


def test_the_rate_follows_the_schedule(bench: Callable[..., Bench]) -> None:
    one = bench(optimizer={"schedule": {"name": "constant", "warmupSteps": 2}})
    rates = []

    for index in range(3):
        one.step(batch(index))
        rates.append(one.trainer.learning_rates()["unet"])

    assert rates == [0.0, 0.5e-2, 1e-2]


def test_epochs_run_in_order_and_end_with_their_call(bench: Callable[..., Bench]) -> None:
    calls = bench().train()

    assert calls == [("step", 1)] * 3 + [("epoch", 1)] + [("step", 2)] * 3 + [("epoch", 2)]


def test_max_steps_cuts_the_last_epoch(bench: Callable[..., Bench]) -> None:
    calls = bench(training={"maxSteps": 4}).train()

    assert calls == [("step", 1)] * 3 + [("epoch", 1)] + [("step", 2)] + [("epoch", 2)]


def test_a_stop_makes_no_half_step(bench: Callable[..., Bench]) -> None:
    one = bench(training={"gradientAccumulationSteps": 2})
    before = one.weights()
    answers = iter([False, True])

    with pytest.raises(StopRequested):
        one.trainer.train_step((batch(0), batch(1)), one.inputs, should_stop=lambda: next(answers))

    assert one.trainer.step == 0
    assert all(weight.equal(before[name]) for name, weight in one.weights().items())
    assert all(parameter.grad is None for parameter in one.adapters.named_parameters().values())


@pytest.mark.parametrize("stop_at", [1, 3, 5], ids=["inside an epoch", "between epochs", "inside the second"])
def test_a_restored_trainer_ends_with_the_same_weights(bench: Callable[..., Bench], stop_at: int) -> None:
    whole, first, second = bench(), bench(), bench()
    whole.train()
    with pytest.raises(StopRequested):
        first.train(stop_at=stop_at)

    second.trainer.restore(first.trainer.state())
    second.train()

    ours, theirs = second.weights(), whole.weights()
    assert all(ours[name].equal(theirs[name]) for name in theirs)
    assert second.trainer.epoch_loss() == whole.trainer.epoch_loss()


def test_an_epoch_whose_steps_are_made_but_not_its_files_is_finished_first(bench: Callable[..., Bench]) -> None:
    first, second = bench(), bench()
    with pytest.raises(StopRequested):
        train(
            first.trainer,
            first.inputs,
            should_stop=lambda: False,
            after_step=lambda _: None,
            after_epoch=lambda _: (_ for _ in ()).throw(StopRequested),
        )

    second.trainer.restore(first.trainer.state())

    assert second.train()[0] == ("epoch", 1)


def test_a_teacher_s_target_is_what_the_model_without_adapter_says(bench: Callable[..., Bench]) -> None:
    """At the start the adapter changes nothing, so nothing is to be learnt from the base model."""
    one = bench()

    one.step(batch(0, from_base=torch.tensor([True])))

    assert one.trainer.mean_loss() == 0.0


def test_teacher_and_noise_share_a_batch(bench: Callable[..., Bench]) -> None:
    one = bench()
    alone = loss_of(one, 0, 0, batch(0, 2))
    random = Objective(SCHEDULE, "epsilon", one.spec.training.loss).draw(
        batch(0, 2).latents, seed=one.spec.training.seed, step=0, micro=0
    )
    signal = SCHEDULE.alphas_cumprod[random.timesteps].view(-1, 1, 1, 1)
    noisy = signal.sqrt() * batch(0, 2).latents + (1 - signal).sqrt() * random.noise
    prediction = one.model.predict(noisy, random.timesteps, one.inputs.text(["red", "green"]), batch(0, 2).sizes)
    first = float((prediction - random.noise).square().mean(dim=(1, 2, 3))[0].detach())

    one.step(batch(0, 2, from_base=torch.tensor([False, True])))

    assert one.trainer.mean_loss() == pytest.approx(first / 2, rel=1e-5)
    assert one.trainer.mean_loss() < float(alone.detach())


def test_the_result_is_the_average_and_the_training_goes_on_from_its_own_weights(bench: Callable[..., Bench]) -> None:
    one = bench(training={"ema": {"decay": 0.9}})
    one.train()
    trained = one.weights()

    with one.trainer.result():
        averaged = one.weights()

    assert any(not averaged[name].equal(trained[name]) for name in trained)
    assert all(weight.equal(trained[name]) for name, weight in one.weights().items())


def test_a_restored_average_is_the_same(bench: Callable[..., Bench]) -> None:
    whole, first, second = (bench(training={"ema": {"decay": 0.9}}) for _ in range(3))
    whole.train()
    with pytest.raises(StopRequested):
        first.train(stop_at=4)

    second.trainer.restore(first.trainer.state())
    second.train()

    with whole.trainer.result(), second.trainer.result():
        ours, theirs = second.weights(), whole.weights()
    assert all(ours[name].equal(theirs[name]) for name in theirs)


def test_a_step_whose_scaled_gradients_overflow_is_left_out_and_the_lower_scale_kept(
    bench: Callable[..., Bench],
) -> None:
    one = bench(scaler=torch.amp.GradScaler("cpu", init_scale=2.0**127))
    before = one.weights()

    one.step(batch(0, weights=torch.tensor([1e6])))

    assert all(weight.equal(before[name]) for name, weight in one.weights().items())
    assert one.trainer.step == 1
    again = bench(scaler=torch.amp.GradScaler("cpu"))
    again.trainer.restore(one.trainer.state())
    assert again.trainer.state().scaler["scale"] == 2.0**126


def test_parts_learn_at_rates_of_their_own(bench: Callable[..., Bench]) -> None:
    one = bench(
        optimizer={"textEncoderLearningRate": 1e-3, "loraPlus": {"ratio": 4}},
        network={"blocks": [{"name": "M00", "learningRateFactor": 0.5}]},
    )

    one.step(batch(0))

    rates = one.trainer.learning_rates()
    assert rates["unet"] == pytest.approx(1e-2)
    assert rates["unet plus"] == pytest.approx(4e-2)
    assert rates["unet M00"] == pytest.approx(0.5e-2)
    assert rates["text_encoder plus"] == pytest.approx(4e-3)


def test_weight_changes_are_kept_below_their_limit(bench: Callable[..., Bench]) -> None:
    one = bench(network={"weightNormLimit": 0.01}, optimizer={"learningRate": 1.0})

    one.step(batch(0))

    norms = [
        float(
            (
                layer.scale
                * layer.tensors()["lora_up.weight"].flatten(1)
                @ layer.tensors()["lora_down.weight"].flatten(1)
            ).norm()
        )
        for layer in one.adapters.layers
    ]
    assert max(norms) <= 0.01 * 1.001


MASKS = torch.rand((3, 1, 8, 8), generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("at_once", [1, 2])
@pytest.mark.parametrize(
    ("fields", "changes"),
    [
        pytest.param({"weights": torch.tensor([1.0, 0.5, 0.2]), "masks": MASKS}, {}, id="weights and masks"),
        pytest.param({"from_base": torch.tensor([True, False, False])}, {}, id="teacher"),
        pytest.param(
            {},
            {
                "training": {"batchSize": 1, "loss": {"minSnrGamma": 5, "noiseOffset": 0.1, "ipNoiseGamma": 0.1}},
                "network": {"dropout": 0.2, "rankDropout": 0.2, "moduleDropout": 0.2},
            },
            id="SNR weights, further noise, dropout",
        ),
        pytest.param({}, {"network": {"type": "loha", "rankDropout": 0.3}}, id="dropped rows"),
    ],
)
def test_a_batch_in_pieces_has_the_gradient_of_the_whole(
    bench: Callable[..., Bench], fields: dict[str, Tensor], changes: dict[str, Any], at_once: int
) -> None:
    """Plain SGD makes the step the gradient; the second step is made from weights that are not zero any more."""
    plain = {"optimizer": {"name": "sgdnesterov", "learningRate": 0.05, "maxGradNorm": 0.0}} | changes
    whole, pieces = bench(**plain), bench(**plain, examples_at_once=at_once)

    for one in (whole, pieces):
        for _ in range(2):
            one.step(batch(0, 1, 2, **fields), batch(2, 1))

    assert pieces.trainer.mean_loss() == pytest.approx(whole.trainer.mean_loss(), rel=1e-5)
    expected = whole.weights()
    for name, weight in pieces.weights().items():
        torch.testing.assert_close(weight, expected[name], rtol=1e-4, atol=1e-6)


def test_no_more_examples_than_allowed_go_through_the_model_at_once(bench: Callable[..., Bench]) -> None:
    one, seen = bench(examples_at_once=2), []
    one.model.unet.register_forward_pre_hook(lambda _, arguments: seen.append(len(arguments[0])))

    one.step(batch(0, 1, 2), batch(1))

    assert seen == [2, 1, 1]


def test_a_step_without_enough_memory_is_told_as_such_and_not_made(bench: Callable[..., Bench]) -> None:
    one = bench()

    def refuse(*_: object) -> None:
        raise torch.OutOfMemoryError("tried to allocate 2.00 GiB\nand more")

    one.model.unet.register_forward_pre_hook(refuse)

    with pytest.raises(StepTooLarge, match=r"^tried to allocate 2.00 GiB$"):
        one.step(batch(0))

    assert one.trainer.step == 0


def test_averages_of_another_optimizer_are_not_taken_over(bench: Callable[..., Bench]) -> None:
    whole, eight_bit = bench(), bench(optimizer={"name": "adamw8bit"})
    whole.step(batch(0))
    state = copy.deepcopy(whole.trainer.state())

    eight_bit.trainer.restore(state)
    eight_bit.step(batch(1))

    updates = {entry["step"] for entry in eight_bit.trainer.state().optimizer["state"].values()}
    assert (eight_bit.trainer.step, updates) == (2, {1})


def test_two_processes_with_a_picture_each_make_the_step_of_one_with_both(
    bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    inner = Objective.draw

    def draw_one_by_one(objective: Objective, latents: Tensor, *, seed: int, step: int, micro: int) -> Draw:
        """The noise of a batch of two as that of two batches of one, which is another one otherwise."""
        draws = [inner(objective, one[None], seed=seed, step=step, micro=micro + i) for i, one in enumerate(latents)]
        return Draw(torch.cat([d.noise for d in draws]), None, torch.cat([d.timesteps for d in draws]))

    monkeypatch.setattr(Objective, "draw", draw_one_by_one)
    # Of these the update is in proportion to the gradient, so that its rounding stays small.
    changes: dict[str, Any] = {"optimizer": {"name": "sgdnesterov", "learningRate": 1e-2}}
    lock = threading.Lock()

    def train_one_picture(world: World) -> tuple[float, dict[str, Tensor]]:
        with lock:
            one = bench(world=world, parallelism={"nodes": 2}, **changes)
        one.step(batch(world.rank))
        return one.trainer.mean_loss(), one.weights()

    pair = bench(training={"batchSize": 2}, **changes)
    pair.step(batch(0, 1))

    for loss, weights in together(2, train_one_picture):
        assert loss == pytest.approx(pair.trainer.mean_loss(), rel=1e-6)
        for name, expected in pair.weights().items():
            torch.testing.assert_close(weights[name], expected, rtol=1e-4, atol=1e-7)
