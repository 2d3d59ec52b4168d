"""The noise levels of the samplers against tables of the schedule and the papers' formulas."""

import pytest
import torch

from lora_trainer.diffusion.levels import karras, leading, uniform, uniform_to_first
from lora_trainer.diffusion.noise import rescale_zero_terminal
from tests.support.formula_model import SCHEDULE, stepped

SIGMAS = [float(sigma) for sigma in SCHEDULE.sigmas.double()]


def test_uniform_levels_are_those_of_evenly_spaced_timesteps_and_then_none() -> None:
    levels = uniform(SCHEDULE, 28)

    assert levels.timesteps == pytest.approx([999 - 37 * place for place in range(28)])
    assert levels.sigmas == pytest.approx([*(SIGMAS[999 - 37 * place] for place in range(28)), 0.0])
    assert levels.start == pytest.approx(SIGMAS[-1])


def test_sigmas_between_two_timesteps_are_geometric() -> None:
    levels = uniform(SCHEDULE, 3)

    assert levels.timesteps[1] == 499.5
    assert levels.sigmas[1] == pytest.approx((SIGMAS[499] * SIGMAS[500]) ** 0.5)


def test_karras_levels_are_even_in_the_seventh_root() -> None:
    levels = karras(SCHEDULE, 10)

    roots = [sigma ** (1 / 7) for sigma in levels.sigmas[:-1]]
    assert stepped(roots) == pytest.approx([stepped(roots)[0]] * 9)
    assert (levels.sigmas[0], levels.sigmas[-2], levels.sigmas[-1]) == pytest.approx((SIGMAS[-1], SIGMAS[0], 0.0))
    assert (levels.timesteps[0], levels.timesteps[-1]) == pytest.approx((999, 0))


def test_a_karras_level_between_two_timesteps_asks_the_model_between_them() -> None:
    levels = karras(SCHEDULE, 10)

    below = int(levels.timesteps[4])
    assert SIGMAS[below] < levels.sigmas[4] < SIGMAS[below + 1]
    share = levels.timesteps[4] - below
    assert levels.sigmas[4] == pytest.approx(SIGMAS[below] ** (1 - share) * SIGMAS[below + 1] ** share)


@pytest.mark.parametrize(
    ("steps", "timesteps"),
    [
        (20, [1 + 50 * place for place in range(19, 0, -1)]),
        (28, [1 + 35 * place for place in range(28, 0, -1)]),
        (3, [999, 667, 334]),
        (1, [999]),
    ],
)
def test_leading_levels_are_every_kth_timestep_down_to_the_second(steps: int, timesteps: list[float]) -> None:
    levels = leading(SCHEDULE, steps)

    assert levels.timesteps == pytest.approx(timesteps)
    assert levels.sigmas == pytest.approx([SIGMAS[int(timestep)] for timestep in [*timesteps, 1]])
    assert levels.start == pytest.approx((levels.sigmas[0] ** 2 + 1) ** 0.5)


@pytest.mark.parametrize(("steps", "made"), [(20, 20), (28, 29), (1, 1)])
def test_levels_to_the_first_timestep_are_even(steps: int, made: int) -> None:
    levels = uniform_to_first(SCHEDULE, steps)

    assert len(levels.timesteps) == made
    assert stepped(levels.timesteps) == pytest.approx([-999 / made] * (made - 1))
    assert (levels.timesteps[0], levels.sigmas[-1]) == pytest.approx((999, SIGMAS[0]))


@pytest.mark.parametrize("spacing", [uniform, karras, leading, uniform_to_first])
def test_pure_noise_has_a_finite_level(spacing: object) -> None:
    assert callable(spacing)

    levels = spacing(rescale_zero_terminal(SCHEDULE), 9)

    assert torch.tensor(levels.sigmas).isfinite().all()
    assert list(levels.sigmas) == sorted(levels.sigmas, reverse=True)
