"""Learning-rate schedules as functions of the number of steps made, so nothing of them is saved. Used by `loop`.

The curves are those of transformers' and diffusers' `get_scheduler`, which sd-scripts uses.
"""

import math
from collections.abc import Callable

from lora_api.optimizer_spec import Schedule

_POLYNOMIAL_END = 1e-7
"""Learning rate at which `polynomial` ends in transformers."""
_TIMESCALE = 10_000
"""Timescale of `inverse_sqrt` without warm-up."""

Factor = Callable[[int], float]


def rate_factor(schedule: Schedule, total_steps: int, *, warmup: int, decay: int = 0, peak: float = 0.0) -> Factor:
    """Factor on the peak learning rate as a function of the number of steps made.

    Linear from 0 over `warmup` steps, then the curve of the schedule.

    Args:
        schedule: the spec; its step counts and fractions are not read, they come resolved as:
        total_steps: length of the run.
        warmup: steps of the warm-up.
        decay: last steps, over which `warmup_stable_decay` falls.
        peak: the learning rate, which `polynomial` needs to end at 1e-7 as sd-scripts does; 0: it ends at 0.
    """
    start = (schedule.min_rate_fraction or 0.0) if schedule.name == "warmup_stable_decay" else 0.0
    curve = _curve(schedule, total_steps, warmup, decay, peak=peak)

    def factor(step: int) -> float:
        return start + (1 - start) * step / warmup if step < warmup else curve(step)

    return factor


def _curve(schedule: Schedule, total: int, warmup: int, decay: int, *, peak: float) -> Factor:
    """The curve after the warm-up, as a function of the step."""
    match schedule.name:
        case "constant":
            return lambda step: 1.0
        case "inverse_sqrt":
            timescale = schedule.timescale or warmup or _TIMESCALE
            return lambda step: math.sqrt(timescale / (step - warmup + timescale))
        case "warmup_stable_decay":
            floor = schedule.min_rate_fraction or 0.0
            return lambda step: floor + (1 - floor) * _half_wave(_clamped((step - total + decay) / max(1, decay)))
        case "piecewise_constant":
            return lambda step: next((p.factor for p in reversed(schedule.pieces) if p.from_step <= step), 1.0)
    falling = _falling(schedule, peak)
    return lambda step: falling(_clamped((step - warmup) / max(1, total - warmup)))


def _falling(schedule: Schedule, peak: float) -> Callable[[float], float]:
    """A curve that spans the run, as a function of the progress from 0 to 1 after the warm-up."""
    match schedule.name:
        case "linear":
            return lambda progress: 1 - progress
        case "cosine_with_restarts":
            return lambda progress: _restarted(progress, schedule.cycles or 1)
        case "polynomial":
            end = _POLYNOMIAL_END / peak if peak > _POLYNOMIAL_END else 0.0
            return lambda progress: end + (1 - end) * (1 - progress) ** (schedule.power or 1.0)
        case _:  # cosine and cosine_with_min_lr
            floor = schedule.min_rate_fraction or 0.0
            return lambda progress: floor + (1 - floor) * _half_wave(progress)


def _half_wave(progress: float) -> float:
    """From 1 to 0 (Loshchilov and Hutter 2016, https://arxiv.org/abs/1608.03983, equation 5)."""
    return 0.5 * (1 + math.cos(math.pi * progress))


def _restarted(progress: float, cycles: int) -> float:
    return 0.0 if progress >= 1 else _half_wave(cycles * progress % 1.0)


def _clamped(value: float) -> float:
    return min(1.0, max(0.0, value))
