"""What the bench makes of a model whose every answer is known."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from lora_trainer.errors import Diverged
from lora_trainer.evaluation.bench import Bench, Model, Subjects
from lora_trainer.evaluation.draws import MeasuredPicture, Passes

TIMESTEPS = (0, 1000)


@dataclass
class Learner:
    """Misses the target by `miss` in every number, as the base model by 1; its target is the noise."""

    miss: float = 1.0
    is_base: bool = False
    most_at_once: int = 100
    sizes: list[int] = field(default_factory=list)

    def predict(self, passes: Passes) -> tuple[Tensor, Tensor]:
        self.sizes.append(len(passes.noise))
        if len(passes.noise) > self.most_at_once:
            raise torch.OutOfMemoryError
        return passes.noise + (1.0 if self.is_base else self.miss), passes.noise

    @contextmanager
    def base(self) -> Iterator[None]:
        self.is_base = True
        yield
        self.is_base = False


def make_picture(name: str, *, mask: Tensor | None = None) -> MeasuredPicture:
    return MeasuredPicture(name, name, name, torch.zeros(2, 4, 4), torch.zeros(6), mask)


def make_bench(learner: Learner, *, at_once: int = 8, mask: Tensor | None = None) -> Bench:
    model = Model(learner.predict, learner.base, torch.device("cpu"), at_once)
    subjects = Subjects(
        held_out=[make_picture("a", mask=mask), make_picture("b", mask=mask)],
        held_out_passes=8,
        training=[make_picture("c")],
        training_passes=4,
        unrelated=[make_picture("a lake")],
        drift_passes=2,
    )
    return Bench(model, subjects, timesteps=TIMESTEPS, seed=1)


def test_losses_are_relative_to_those_of_the_base_model() -> None:
    learner = Learner()
    bench = make_bench(learner)
    bench.measure_base()
    learner.miss = 0.5

    measure = bench.measure(3, 30)

    assert measure.held_out == pytest.approx({"a": 0.25, "b": 0.25}, rel=1e-5)
    assert measure.training == pytest.approx({"c": 0.25}, rel=1e-5)
    assert (measure.epoch, measure.step) == (3, 30)


def test_the_base_model_is_1_and_does_not_drift() -> None:
    base, losses = make_bench(Learner(miss=7.0)).measure_base()

    assert (base.held_out_loss, base.training_loss, base.drift) == (1.0, 1.0, 0.0)
    assert losses.held_out["a"] == pytest.approx([1.0] * 4, rel=1e-5)


def test_drift_is_the_mean_squared_difference_relative_to_the_base_models_predictions() -> None:
    learner = Learner()
    bench = make_bench(learner)
    bench.measure_base()
    learner.miss = 1.5

    drift = bench.measure(1, 1).drift

    # The base predicts noise + 1, whose mean square is about 2; the difference is 0.5 everywhere.
    assert drift == pytest.approx(0.25 / 2, rel=0.3)


def test_an_adapter_that_changes_nothing_does_not_drift() -> None:
    bench = make_bench(Learner())
    bench.measure_base()

    assert bench.measure(1, 1).drift == 0.0


def test_a_loss_that_is_no_number_ends_the_training_as_diverged() -> None:
    learner = Learner()
    bench = make_bench(learner)
    bench.measure_base()
    learner.miss = math.nan

    with pytest.raises(Diverged, match=r"the loss on a at timestep .* was measured as nan"):
        bench.measure(1, 10)


def test_a_drift_that_is_no_number_ends_the_training_as_diverged() -> None:
    learner = Learner()
    model = Model(learner.predict, learner.base, torch.device("cpu"), 8)
    nothing_but_drift = Subjects([], 0, [], 0, unrelated=[make_picture("a lake")], drift_passes=2)
    bench = Bench(model, nothing_but_drift, timesteps=TIMESTEPS, seed=1)
    bench.measure_base()
    learner.miss = math.nan

    with pytest.raises(Diverged, match="the drift was measured as nan"):
        bench.measure(1, 10)


def test_masked_places_do_not_count() -> None:
    half = torch.cat([torch.ones(1, 2, 4), torch.zeros(1, 2, 4)], dim=1)

    _, losses = make_bench(Learner(), mask=half).measure_base()

    assert losses.held_out["a"] == pytest.approx([0.5] * 4, rel=1e-5)


def test_losses_taken_over_give_the_same_measure() -> None:
    learner = Learner()
    first, second = make_bench(learner), make_bench(learner)
    _, base = first.measure_base()
    second.take_over(base)
    learner.miss = 0.7

    assert first.measure(1, 1) == second.measure(1, 1)


def test_batches_are_bounded() -> None:
    learner = Learner()

    make_bench(learner, at_once=3).measure_base()

    assert learner.sizes == [3, 3, 2, 3, 1]


def test_too_little_memory_halves_the_batches() -> None:
    learner = Learner(most_at_once=2)

    base, _ = make_bench(learner, at_once=8).measure_base()

    assert base.held_out_loss == 1.0
    assert learner.sizes[:6] == [8, 4, 2, 2, 2, 2]


def test_torchs_own_generator_is_left_alone() -> None:
    bench = make_bench(Learner())
    before = torch.get_rng_state()

    bench.measure_base()
    bench.measure(1, 1)

    assert torch.equal(torch.get_rng_state(), before)
