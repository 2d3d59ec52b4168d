"""The curves of a run as points: thinned out, smoothed, with their errors. Pure; used by `charts` and `writing`."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lora_trainer.evaluation.choice import paired_difference
from lora_trainer.evaluation.measures import Measure
from lora_trainer.report.record import Step

Point = tuple[float, float]
MOST_POINTS = 300
"""Of a curve: more than a screen shows, and few enough for a small file."""
_SMOOTHING = 20
"""A smoothed curve is a mean over about a twentieth of the run."""


@dataclass(frozen=True)
class Series:
    """One curve."""

    name: str
    """Key of its name among the words, or a text."""
    points: tuple[Point, ...]
    errors: tuple[float, ...] = ()
    """Half the height of the band around each point; empty: no band."""
    is_faint: bool = False
    """Drawn behind the others."""
    is_dashed: bool = False


def loss_series(steps: Sequence[Step]) -> tuple[Series, ...]:
    """Training loss over steps, as noted and smoothed."""
    points = [(float(one.step), one.loss) for one in steps if math.isfinite(one.loss)]
    if not points:
        return ()
    smooth = smoothed([loss for _, loss in points])
    smooth_points = [(x, y) for (x, _), y in zip(points, smooth, strict=True)]
    return (
        Series("line_raw", thinned(points), is_faint=True),
        Series("line_smooth", thinned(smooth_points)),
    )


def rate_series(steps: Sequence[Step]) -> tuple[Series, ...]:
    """Learning rate over steps, one curve a part of the network; equal curves once."""
    parts: dict[str, list[Point]] = {}
    for one in steps:
        for part, rate in one.rates.items():
            parts.setdefault(part, []).append((float(one.step), rate))
    together: dict[tuple[Point, ...], list[str]] = {}
    for part, points in parts.items():
        together.setdefault(thinned(points), []).append(part)
    return tuple(Series(", ".join(names), points) for points, names in together.items())


def measure_series(measures: Sequence[Measure]) -> tuple[Series, ...]:
    """Held-out loss with its standard error, and training loss on fixed noise, over epochs."""
    series = []
    held_out = [one for one in measures if one.held_out]
    if held_out:
        errors = tuple(standard_error(list(one.held_out.values())) for one in held_out)
        series.append(Series("line_held_out", _over_epochs(held_out, lambda one: one.held_out_loss), errors))
    training = [one for one in measures if one.training]
    if training:
        points = _over_epochs(training, lambda one: one.training_loss)
        series.append(Series("line_training", points, is_dashed=True))
    return tuple(series)


def excess_series(measures: Sequence[Measure], best_epoch: int) -> tuple[Series, ...]:
    """By how many percent held-out loss lies above that of the best epoch, with the standard error of that difference.

    Each picture is compared with itself, as in the choice. Fewer than two epochs have no curve, nor has a single
    picture, whose difference has no error.
    """
    trained = {one.epoch: one for one in measures if one.epoch > 0 and len(one.held_out) > 1}
    best = trained.get(best_epoch)
    if best is None or len(trained) < 2 or not best.held_out_loss:
        return ()
    differences = [paired_difference(one.held_out, best.held_out) for one in trained.values()]
    percent = 100 / best.held_out_loss
    points = tuple((float(epoch), one.mean * percent) for epoch, one in zip(trained, differences, strict=True))
    return (Series("line_excess", points, tuple(one.error * percent for one in differences)),)


def drift_series(measures: Sequence[Measure]) -> tuple[Series, ...]:
    """Drift over epochs."""
    measured = [one for one in measures if one.drift is not None]
    return (Series("line_drift", _over_epochs(measured, lambda one: one.drift)),) if measured else ()


def standard_error(values: Sequence[float]) -> float:
    """Standard error of the mean, with n - 1; 0 for a single value, of which none can be told."""
    if len(values) < 2:
        return 0.0
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values))


def smoothed(values: Sequence[float]) -> list[float]:
    """Exponential mean over about a twentieth of the curve, without the pull to the first value (as Adam's)."""
    keep = 1 - 1 / max(1.0, len(values) / _SMOOTHING)
    mean, weight, result = 0.0, 0.0, []
    for value in values:
        mean, weight = keep * mean + (1 - keep) * value, keep * weight + (1 - keep)
        result.append(mean / weight)
    return result


def thinned(points: Sequence[Point]) -> tuple[Point, ...]:
    """At most 300 points that keep every peak: of each stretch the lowest and the highest one."""
    if len(points) <= MOST_POINTS:
        return tuple(points)
    stretches = MOST_POINTS // 2 - 1
    kept = [points[0]]
    for index in range(stretches):
        inner = points[1:-1]
        part = inner[index * len(inner) // stretches : (index + 1) * len(inner) // stretches]
        extremes = {min(part, key=_height), max(part, key=_height)}
        kept += sorted(extremes)
    return (*kept, points[-1])


def _height(point: Point) -> float:
    return point[1]


def _over_epochs(measures: Sequence[Measure], value: Callable[[Measure], float | None]) -> tuple[Point, ...]:
    return tuple((float(one.epoch), found) for one in measures if (found := value(one)) is not None)
