"""What was measured of an epoch, and its line in `metrics.jsonl`. Pure; read by the choice, the report and `run`.

All losses are relative to the base model's on the very same draw: below 1 is better than the base, and every range
of timesteps counts alike, although losses at much noise are a hundred times smaller.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_DIGITS = 7
"""Of a number in a line: more than a float of 32 bits has."""


@dataclass(frozen=True)
class Measure:
    """What was measured after an epoch."""

    epoch: int
    """0: the base model."""
    step: int
    held_out: Mapping[str, float]
    """Name of each held-out picture -> its mean relative loss."""
    training: Mapping[str, float]
    """The same of as many pictures that are trained on."""
    drift: float | None
    """How far predictions for unrelated captions are from the base model's: mean squared difference, relative to the
    mean square of the base model's prediction. None: not measured."""

    @property
    def held_out_loss(self) -> float | None:
        """Mean over the held-out pictures; None without any."""
        return mean(self.held_out.values())

    @property
    def training_loss(self) -> float | None:
        """Mean over the compared training pictures; None without any."""
        return mean(self.training.values())


@dataclass(frozen=True)
class BaseLosses:
    """Losses of the base model on every draw, by which all later ones are divided: kept, so that a training that is
    taken up again is measured with the same numbers."""

    held_out: Mapping[str, Sequence[float]]
    """Name of each picture -> the losses of its draws."""
    training: Mapping[str, Sequence[float]]


def mean(values: Iterable[float]) -> float | None:
    """The mean; None of nothing."""
    found = list(values)
    return sum(found) / len(found) if found else None


def rounded(value: float) -> float:
    """The number as a line holds it."""
    return float(f"{value:.{_DIGITS}g}")


def to_line(measure: Measure, base: BaseLosses | None = None) -> str:
    """The line of an epoch; that of the base model holds `base`."""
    content: dict[str, Any] = {
        "heldOutLoss": measure.held_out_loss,
        "trainingLoss": measure.training_loss,
        "drift": measure.drift,
        "heldOut": dict(measure.held_out),
        "training": dict(measure.training),
    }
    if base is not None:
        content["baseLosses"] = {
            "heldOut": {name: list(losses) for name, losses in base.held_out.items()},
            "training": {name: list(losses) for name, losses in base.training.items()},
        }
    line = {"epoch": measure.epoch, "step": measure.step, "evaluation": content}
    return json.dumps(line, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def from_lines(lines: Iterable[str]) -> tuple[tuple[Measure, ...], BaseLosses | None]:
    """The measures among the lines of a `metrics.jsonl`, by epoch, and the base model's losses if they are there.

    Raises:
        ValueError: a line is none of a `metrics.jsonl`; the message says which.
    """
    measures, base = {}, None
    for number, line in enumerate(lines, start=1):
        try:
            document = json.loads(line)
            content = document.get("evaluation")
            if content is None:
                continue
            if "baseLosses" in content:
                base = BaseLosses(content["baseLosses"]["heldOut"], content["baseLosses"]["training"])
            measures[document["epoch"]] = _measure(document, content)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"line {number} cannot be read ({type(error).__name__}: {error})") from error
    return tuple(measures[epoch] for epoch in sorted(measures)), base


def _measure(document: Mapping[str, Any], content: Mapping[str, Any]) -> Measure:
    return Measure(
        epoch=document["epoch"],
        step=document["step"],
        held_out=content["heldOut"],
        training=content["training"],
        drift=content["drift"],
    )
