"""Who is told how a training goes. Put together by the commands; told by `prepare`, `recorder` and `run`."""

from collections.abc import Callable
from dataclasses import dataclass

from lora_api.status import Progress
from lora_trainer.metrics import TrainingMetrics
from lora_trainer.progress import ProgressTracker


@dataclass(frozen=True)
class Audience:
    """Who is told how the training goes."""

    tracker: ProgressTracker
    metrics: TrainingMetrics
    on_progress: Callable[[Progress], None]
    """Called after every report, such as by a progress bar."""

    def stored(self, count_bytes: int) -> None:
        """Bytes went to a store."""
        self.metrics.add_stored(count_bytes)
        self.tracker.alive()
