"""Learning-rate schedules: the curves of transformers and diffusers, and values worked out by hand."""

import math
from typing import Any

import diffusers.optimization
import pytest
import torch
import transformers

from lora_api.optimizer_spec import Piece, Schedule
from lora_trainer.optim import rate_factor

STEPS, WARMUP, DECAY, PEAK = 40, 8, 10, 1e-4


def expected_factors(get_scheduler: Any, name: str, **arguments: Any) -> list[float]:
    """The rates of the library's own scheduler, stepped as a training loop steps it."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=PEAK)
    scheduler = get_scheduler(name, optimizer, **arguments)
    factors = []
    for _ in range(STEPS + 1):
        factors.append(scheduler.get_last_lr()[0] / PEAK)
        optimizer.step()
        scheduler.step()
    return factors


def factors_of(schedule: Schedule, *, warmup: int = WARMUP) -> list[float]:
    factor = rate_factor(schedule, STEPS, warmup=warmup, decay=DECAY, peak=PEAK)
    return [factor(step) for step in range(STEPS + 1)]


@pytest.mark.parametrize(
    ("schedule", "name", "specific"),
    [
        (Schedule(), "constant_with_warmup", None),
        (Schedule(name="linear"), "linear", None),
        (Schedule(name="cosine"), "cosine", None),
        (Schedule(name="cosine_with_restarts"), "cosine_with_restarts", None),
        (Schedule(name="cosine_with_restarts", cycles=3), "cosine_with_restarts", {"num_cycles": 3}),
        (Schedule(name="cosine_with_min_lr", min_rate_fraction=0.1), "cosine_with_min_lr", {"min_lr_rate": 0.1}),
        (Schedule(name="polynomial"), "polynomial", None),
        (Schedule(name="polynomial", power=2.5), "polynomial", {"power": 2.5}),
        (Schedule(name="inverse_sqrt"), "inverse_sqrt", None),
        (Schedule(name="inverse_sqrt", timescale=20), "inverse_sqrt", {"timescale": 20}),
        (
            Schedule(name="warmup_stable_decay", decay_steps=DECAY, min_rate_fraction=0.2),
            "warmup_stable_decay",
            {"num_decay_steps": DECAY, "min_lr_ratio": 0.2},
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_step_has_the_rate_of_transformers(schedule: Schedule, name: str, specific: dict[str, Any]) -> None:
    expected = expected_factors(
        transformers.get_scheduler,
        name,
        num_warmup_steps=WARMUP,
        num_training_steps=STEPS,
        scheduler_specific_kwargs=specific,
    )

    assert factors_of(schedule) == pytest.approx(expected, abs=1e-12)


def test_pieces_have_the_rate_of_diffusers() -> None:
    schedule = Schedule(
        name="piecewise_constant",
        pieces=(Piece(from_step=5, factor=0.5), Piece(from_step=20, factor=0.25)),
    )

    expected = expected_factors(
        diffusers.optimization.get_scheduler, "piecewise_constant", step_rules="1:5,0.5:20,0.25"
    )

    assert factors_of(schedule, warmup=0) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("schedule", "step", "expected"),
    [
        (Schedule(name="linear"), 4, 4 / 8),
        (Schedule(name="linear"), 24, (40 - 24) / (40 - 8)),
        (Schedule(name="cosine"), 16, 0.5 * (1 + math.cos(math.pi / 4))),
        (Schedule(name="cosine_with_restarts", cycles=4), 18, 0.5 * (1 + math.cos(math.pi / 4))),
        (Schedule(name="cosine_with_restarts", cycles=4), 40, 0.0),
        (Schedule(name="polynomial", power=2), 24, ((1e-4 - 1e-7) * 0.5**2 + 1e-7) / 1e-4),
        (Schedule(name="warmup_stable_decay", decay_steps=DECAY), 29, 1.0),
        (Schedule(name="warmup_stable_decay", decay_steps=DECAY), 35, 0.5),
    ],
)
def test_curves_have_the_values_of_their_formulas(schedule: Schedule, step: int, expected: float) -> None:
    assert factors_of(schedule)[step] == pytest.approx(expected)


@pytest.mark.parametrize("name", ["linear", "cosine", "cosine_with_restarts", "polynomial"])
def test_falling_schedules_stay_down_after_the_end(name: Any) -> None:
    factor = rate_factor(Schedule(name=name), STEPS, warmup=0)

    assert factor(STEPS + 5) == pytest.approx(0.0)


def test_without_warm_up_the_first_step_has_the_full_rate() -> None:
    assert rate_factor(Schedule(), 10, warmup=0)(0) == 1.0


def test_pieces_hold_after_the_warm_up_only() -> None:
    schedule = Schedule(name="piecewise_constant", pieces=(Piece(from_step=2, factor=0.5),))

    assert factors_of(schedule, warmup=4)[:6] == [0, 0.25, 0.5, 0.75, 0.5, 0.5]


def test_a_rate_below_the_polynomials_end_falls_to_zero() -> None:
    assert rate_factor(Schedule(name="polynomial"), 10, warmup=0, peak=1e-8)(10) == 0.0
