"""Which epoch is best, and how sure that is, from what was measured. Pure; used by `run` and by every re-evaluation.

The one-standard-error rule: the earliest epoch whose held-out loss is above the lowest one by less than the standard
error of that difference, taken over pictures, each compared with itself; where any epoch is better than the base model,
the chosen one is as well (Breiman et al. 1984, Classification and
Regression Trees, section 3.4.3). Where nothing is held out: the knee of the training loss against drift, the point
furthest above the chord (Satopää et al. 2011, https://doi.org/10.1109/ICDCSW.2011.20).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from lora_api.status import EvaluationStatus
from lora_trainer.evaluation.measures import Measure, rounded

Confidence = Literal["High", "Medium", "Low"]

_OVERFIT_ERRORS = 2.0
"""Standard errors by which the held-out loss has to rise."""
_OVERFIT_IN_A_ROW = 2
_SURE_PICTURES = 4
"""From so many held-out pictures on their spread says how sure the choice is."""


@dataclass(frozen=True)
class Difference:
    """How much larger one epoch's loss is than another's, picture by picture."""

    mean: float
    error: float
    """Standard error of the mean; infinite for a single picture."""

    @property
    def is_rise(self) -> bool:
        """Whether it is more than chance."""
        return self.mean > _OVERFIT_ERRORS * self.error


def paired_difference(first: Mapping[str, float], second: Mapping[str, float]) -> Difference:
    """`first` minus `second` over the pictures of both."""
    differences = [first[name] - second[name] for name in first if name in second]
    count = len(differences)
    center = math.fsum(differences) / count
    if count < 2:
        return Difference(center, math.inf)
    variance = math.fsum((value - center) ** 2 for value in differences) / (count - 1)
    return Difference(center, math.sqrt(variance / count))


def choose(measures: Sequence[Measure]) -> EvaluationStatus:
    """What `measures`, by epoch and with that of the base model (epoch 0), say; no reason and no digest are set.

    Without any epoch after 0, or with nothing to go by, no epoch is named.
    """
    trained = [measure for measure in measures if measure.epoch > 0]
    if not trained:
        return EvaluationStatus(message="No epoch is chosen: no epoch is measured yet.")
    newest = {"training_loss": trained[-1].training_loss, "drift": trained[-1].drift}
    told = {name: None if value is None else rounded(value) for name, value in newest.items()}
    return _chosen(trained).model_copy(update=told)


def _chosen(trained: Sequence[Measure]) -> EvaluationStatus:
    if all(measure.held_out for measure in trained):
        return _by_held_out_loss(trained)
    if all(measure.training and measure.drift is not None for measure in trained):
        return _by_knee(trained)
    return EvaluationStatus(message="No epoch is chosen: nothing is held out and drift is not measured.")


def overtrained_in_a_row(measures: Sequence[Measure]) -> int:
    """How many of the last measured epochs, without a gap, were over-trained: what early stop has patience with."""
    trained = [measure for measure in measures if measure.epoch > 0]
    flags = _overtrained(trained)
    return next((back for back, flag in enumerate(reversed(flags)) if not flag), len(flags))


def _by_held_out_loss(trained: Sequence[Measure]) -> EvaluationStatus:
    lowest = min(trained, key=_held_out_loss)
    best = next(m for m in trained if _is_as_good(m, lowest) and (_is_useful(m) or not _is_useful(lowest)))
    below_base = [measure.epoch for measure in trained if measure.epoch >= best.epoch and _is_useful(measure)]
    overfit_from = _overfit_from(trained, after=lowest.epoch)
    confidence, why = _confidence(trained, lowest, is_useful=bool(below_base))
    gain = 1 - _held_out_loss(best)
    change = f"{gain:.1%} less loss" if gain > 0 else f"{abs(gain):.1%} more loss, no gain at all,"
    message = f"Epoch {best.epoch} is best: {change} on held-out pictures than the base model."
    if overfit_from is not None:
        message += f" Over-trained from epoch {overfit_from} on: held-out pictures got worse."
    return EvaluationStatus(
        message=f"{message} Confidence {confidence.lower()}: {why}.",
        best_epoch=best.epoch,
        usable_from=best.epoch if below_base else None,
        usable_to=max(below_base) if below_base else None,
        overfit_from=overfit_from,
        confidence=confidence,
        held_out_images=len(best.held_out),
    )


def _by_knee(trained: Sequence[Measure]) -> EvaluationStatus:
    best = knee(trained)
    return EvaluationStatus(
        message=(
            f"Epoch {best.epoch} is best by its gain on training pictures against drift. Confidence low: no picture is "
            "held out, so that over-fitting cannot be seen."
        ),
        best_epoch=best.epoch,
        confidence="Low",
    )


def knee(trained: Sequence[Measure]) -> Measure:
    """The epoch furthest above the chord of gain over drift, both as shares of their largest; the earliest of equals.

    The base model is the origin. Without any gain it is the epoch that drifted least.
    """
    gains = [1 - (measure.training_loss or 0.0) for measure in trained]
    drifts = [measure.drift or 0.0 for measure in trained]
    most_gain, most_drift = max(gains), max(drifts)
    if most_gain <= 0 or most_drift <= 0:
        return trained[drifts.index(min(drifts))]
    heights = [gain / most_gain - drift / most_drift for gain, drift in zip(gains, drifts, strict=True)]
    return trained[heights.index(max(heights))]


def _held_out_loss(measure: Measure) -> float:
    loss = measure.held_out_loss
    assert loss is not None, "measured without held-out pictures"
    return loss


def _is_useful(measure: Measure) -> bool:
    """Whether it is better than the base model."""
    return _held_out_loss(measure) < 1


def _is_as_good(measure: Measure, lowest: Measure) -> bool:
    if measure is lowest:
        return True
    difference = paired_difference(measure.held_out, lowest.held_out)
    return math.isfinite(difference.error) and difference.mean < difference.error


def _overtrained(trained: Sequence[Measure]) -> list[bool]:
    """Of each epoch whether held-out pictures are worse than at the best epoch before it by more than chance, while
    training pictures, where they are measured, are better."""
    flags = []
    for place, measure in enumerate(trained):
        before = trained[:place]
        if not before or not measure.held_out:
            flags.append(False)
            continue
        best = min(before, key=_held_out_loss)
        learns = (measure.training_loss or 0.0) < (best.training_loss or math.inf)
        flags.append(learns and paired_difference(measure.held_out, best.held_out).is_rise)
    return flags


def _overfit_from(trained: Sequence[Measure], *, after: int) -> int | None:
    """The first of enough over-trained epochs in a row; not before the lowest epoch `after`: there it passed again."""
    flags = _overtrained(trained)
    for place in range(len(flags) - _OVERFIT_IN_A_ROW + 1):
        if trained[place].epoch > after and all(flags[place : place + _OVERFIT_IN_A_ROW]):
            return trained[place].epoch
    return None


def _confidence(trained: Sequence[Measure], lowest: Measure, *, is_useful: bool) -> tuple[Confidence, str]:
    if not is_useful:
        return "Low", "held-out pictures are no better than with the base model"
    if lowest is trained[-1]:
        return "Medium", "the last epoch measured lowest, so a longer training may be better"
    count = len(lowest.held_out)
    if count < _SURE_PICTURES:
        return "Medium", f"only {count} pictures are held out"
    return "High", f"{count} pictures are held out, and later epochs are no better"
