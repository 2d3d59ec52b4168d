"""What is known of the epochs while they are trained: measured one by one, told at once, and when to stop early.

Made by the recorder, which calls it after saved epochs; what measures is handed in once inputs are there.
"""

import logging
import time
from collections.abc import Iterable

from lora_api.evaluation_spec import Evaluation
from lora_api.status import Checkpoint, EvaluationStatus
from lora_trainer.audience import Audience
from lora_trainer.evaluation.bench import Bench
from lora_trainer.evaluation.choice import choose, overtrained_in_a_row
from lora_trainer.evaluation.measures import BaseLosses, Measure, from_lines, to_line

logger = logging.getLogger(__name__)


class Validation:
    """Holds the measures of one run."""

    def __init__(self, evaluation: Evaluation, audience: Audience) -> None:
        self._audience = audience
        stop = evaluation.early_stop
        self._patience = None if stop is None else stop.patience
        self._bench: Bench | None = None
        self._measures: dict[int, Measure] = {}
        self._base: BaseLosses | None = None
        self._checkpoints: dict[int, Checkpoint] = {}

    def take_over(self, lines: Iterable[str]) -> None:
        """Goes on from the lines of an earlier attempt."""
        measures, self._base = from_lines(lines)
        self._measures = {measure.epoch: measure for measure in measures}

    def begin(self, bench: Bench) -> str | None:
        """Measures by `bench` from now on; gives the base model's line, unless an earlier attempt measured it."""
        self._bench = bench
        line = None
        if self._base is None:
            base, losses = bench.measure_base()
            self._measures[0], line = base, to_line(base, losses)
        else:
            bench.take_over(self._base)
        self._tell()
        return line

    def measure(self, epoch: int, step: int) -> str:
        """Measures the adapters as they are; gives the line."""
        assert self._bench is not None, "measured before it began"
        begun = time.monotonic()
        measure = self._measures[epoch] = self._bench.measure(epoch, step)
        seconds = time.monotonic() - begun
        logger.info(
            "epoch %s measured in %.1f s: held-out loss %s, training loss %s, drift %s",
            epoch,
            seconds,
            _shown(measure.held_out_loss),
            _shown(measure.training_loss),
            _shown(measure.drift),
        )
        self._audience.metrics.observe_measure(measure.held_out_loss, measure.training_loss, measure.drift)
        self._tell()
        return to_line(measure)

    def is_measured(self, epoch: int) -> bool:
        """Whether an earlier attempt measured the epoch, and was then stopped before it was done."""
        return epoch in self._measures

    def loss_of(self, epoch: int) -> float | None:
        """Held-out loss of an epoch, if it was measured."""
        measure = self._measures.get(epoch)
        return None if measure is None else measure.held_out_loss

    def stored(self, checkpoint: Checkpoint) -> None:
        """Notes that an epoch's adapter lies in the store; may be called from any thread."""
        self._checkpoints[checkpoint.epoch] = checkpoint
        self._tell()

    @property
    def status(self) -> EvaluationStatus:
        """What is known by now."""
        measures = [self._measures[epoch] for epoch in sorted(self._measures)]
        return choose(measures).model_copy(update={"reason": "Measuring"})

    @property
    def is_over(self) -> bool:
        """Whether early stop has lost its patience: a function of the measures, so also after a restart."""
        if self._patience is None:
            return False
        measures = [self._measures[epoch] for epoch in sorted(self._measures)]
        return overtrained_in_a_row(measures) >= self._patience

    def _tell(self) -> None:
        status, tracker = self.status, self._audience.tracker
        tracker.set_evaluation(status)
        self._audience.metrics.observe_choice(status)
        best = self._checkpoints.get(status.best_epoch or 0)
        if best is not None:
            tracker.set_best_checkpoint(best)


def _shown(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.4f}"
