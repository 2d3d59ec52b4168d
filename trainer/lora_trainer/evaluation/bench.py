"""Runs the fixed draws through the model and compares: with the target, and with the base model.

Made by `assembly`, asked by the recorder after every saved epoch. Draws no random number of its own from torch's
global generators and changes nothing in the model, so a training gives the same bytes with it and without.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

from lora_trainer.errors import Diverged
from lora_trainer.evaluation.draws import FixedDraw, MeasuredPicture, Passes, batched, fixed_draws, stacked
from lora_trainer.evaluation.measures import BaseLosses, Measure, mean, rounded

Reduce = Callable[[Tensor, Tensor, Passes], Tensor]
"""Prediction, target and draws -> a row for each draw."""

_SMALLEST_LOSS = 1e-12
"""Instead of a loss or size of 0, which nothing can be divided by."""


@dataclass(frozen=True)
class Model:
    """What is measured, as it is at the moment."""

    predict: Callable[[Passes], tuple[Tensor, Tensor]]
    """-> prediction and target (B, C, h, w), in the precision of the training."""
    base: Callable[[], AbstractContextManager[object]]
    """The base model without its adapters, while it is open."""
    device: torch.device
    at_once: int
    """Draws that go through it together; fewer where its memory is too small."""
    on_batch: Callable[[], None] = lambda: None
    """Called before each batch; what it raises ends the measuring."""


@dataclass(frozen=True)
class Subjects:
    """What is measured on: about so many passes for each kind of picture."""

    held_out: Sequence[MeasuredPicture]
    held_out_passes: int
    training: Sequence[MeasuredPicture]
    training_passes: int
    unrelated: Sequence[MeasuredPicture]
    """Captions on empty pictures; of them only the noise is seen."""
    drift_passes: int


class Bench:
    """Measures epochs, each in the same way."""

    def __init__(self, model: Model, subjects: Subjects, *, timesteps: tuple[int, int], seed: int) -> None:
        """`timesteps`: the first that is trained, and the one after the last. Measures nothing yet."""
        self._model = model
        low, high = timesteps
        self._held_out = fixed_draws(subjects.held_out, subjects.held_out_passes, timesteps=timesteps, seed=seed)
        self._training = fixed_draws(subjects.training, subjects.training_passes, timesteps=timesteps, seed=seed)
        # A picture's subject is decided while there is more noise than picture; an empty one shows nothing below.
        much_noise = ((low + high) // 2, high)
        self._drift = fixed_draws(subjects.unrelated, subjects.drift_passes, timesteps=much_noise, seed=seed)
        self._base: BaseLosses | None = None
        self._base_predictions: Tensor | None = None

    @property
    def held_out_images(self) -> int:
        """Pictures that are measured and never trained on."""
        return len({draw.picture.content for draw in self._held_out})

    def measure_base(self) -> tuple[Measure, BaseLosses]:
        """The base model, by which all else is divided from now on. Raises Diverged: a loss is no number."""
        with self._model.base():
            base = BaseLosses(self._losses(self._held_out), self._losses(self._training))
        self._base = base
        ones = Measure(
            epoch=0,
            step=0,
            held_out=dict.fromkeys(base.held_out, 1.0),
            training=dict.fromkeys(base.training, 1.0),
            drift=0.0 if self._drift else None,
        )
        return ones, base

    def take_over(self, base: BaseLosses) -> None:
        """Goes on with the base model's losses that an earlier process measured."""
        self._base = base

    def measure(self, epoch: int, step: int) -> Measure:
        """The adapters as they are now; needs `measure_base` or `take_over`. Raises Diverged as `measure_base`."""
        base = self._base
        assert base is not None, "the base model was not measured"
        return Measure(
            epoch=epoch,
            step=step,
            held_out=_relative(self._losses(self._held_out), base.held_out),
            training=_relative(self._losses(self._training), base.training),
            drift=self._measure_drift(),
        )

    def _losses(self, draws: Sequence[FixedDraw]) -> dict[str, list[float]]:
        """Name of each picture -> the mean squared error of each of its draws, masked places left out."""

        def loss(prediction: Tensor, target: Tensor, passes: Passes) -> Tensor:
            squares = (prediction.float() - target.float()).square()
            return (squares if passes.masks is None else squares * passes.masks).mean(dim=(1, 2, 3))

        found: dict[str, list[float]] = {}
        for draw, value in zip(draws, self._through_model(draws, loss), strict=True):
            checked = _finite(float(value), f"the loss on {draw.picture.name} at timestep {draw.timestep}")
            found.setdefault(draw.picture.name, []).append(rounded(max(checked, _SMALLEST_LOSS)))
        return found

    def _measure_drift(self) -> float | None:
        if not self._drift:
            return None
        if self._base_predictions is None:
            with self._model.base():
                self._base_predictions = self._predictions()
        difference = self._predictions() - self._base_predictions
        size = max(float(self._base_predictions.square().mean()), _SMALLEST_LOSS)
        return rounded(_finite(float(difference.square().mean()) / size, "the drift"))

    def _predictions(self) -> Tensor:
        return torch.stack(self._through_model(self._drift, lambda prediction, target, passes: prediction.float()))

    def _through_model(self, draws: Sequence[FixedDraw], reduce: Reduce) -> list[Tensor]:
        """What `reduce` makes of each draw, on the CPU; where memory is too small, of fewer draws at once."""
        at_once = self._model.at_once
        while True:
            try:
                return self._pass(draws, reduce, at_once)
            except torch.OutOfMemoryError:
                if at_once == 1:
                    raise
            at_once //= 2
            torch.cuda.empty_cache()

    @torch.no_grad()
    def _pass(self, draws: Sequence[FixedDraw], reduce: Reduce, at_once: int) -> list[Tensor]:
        rows: dict[int, Tensor] = {}
        for places in batched(draws, at_once):
            self._model.on_batch()
            passes = stacked([draws[place] for place in places], self._model.device)
            rows.update(zip(places, reduce(*self._model.predict(passes), passes).cpu(), strict=True))
        return [rows[place] for place in sorted(rows)]


def _finite(value: float, what: str) -> float:
    if not math.isfinite(value):
        raise Diverged(f"{what} was measured as {value}, which is no number")
    return value


def _relative(losses: Mapping[str, Sequence[float]], base: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Mean over each picture's draws of its loss divided by the base model's."""
    ratios = {name: [a / b for a, b in zip(found, base[name], strict=True)] for name, found in losses.items()}
    return {name: rounded(mean(values) or 0.0) for name, values in ratios.items()}
