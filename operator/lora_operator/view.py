"""Everything that conditions are derived from, and what is found. Shared by `conditions`, `scheduled` and `status`."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from lora_api import LoraTraining, ProgressReport
from lora_api.status import Artifacts, Checkpoint, EvaluationStatus, Plan, Progress, SavedState
from lora_operator.observed import Job, Observed, Pod
from lora_operator.outcome import Ending

Truth = Literal["True", "False", "Unknown"]


@dataclass(frozen=True)
class Acceptance:
    """Whether the spec can be carried out."""

    accepted: bool
    reason: str
    message: str


ACCEPTED = Acceptance(True, "Valid", "the spec can be carried out")


@dataclass(frozen=True)
class Finding:
    """What a condition says, before it is dated."""

    status: Truth
    reason: str
    message: str


@dataclass(frozen=True)
class View:
    """Everything that conditions are derived from."""

    acceptance: Acceptance
    training: LoraTraining | None
    observed: Observed
    report: ProgressReport | None
    """What the trainer said last, dead or alive."""
    ending: Ending | None
    plan: Plan | None
    progress: Progress | None
    checkpoints: tuple[Checkpoint, ...]
    artifacts: Artifacts | None
    evaluation: EvaluationStatus | None
    saved_state: SavedState | None
    """The newest that was told of."""
    now: datetime
    is_cancelled: bool = False
    """Somebody wants the training to end for good."""

    @property
    def job(self) -> Job | None:
        """The Job that the training is at: the one that trains, or the one that checks the data before it."""
        return self.observed.current_job

    @property
    def pod(self) -> Pod | None:
        """The newest pod of that Job."""
        return self.observed.pod

    @property
    def is_checking(self) -> bool:
        """Whether the data are still being checked before a GPU is asked for, or in the training's own pod."""
        check = self.observed.preflight
        by_job = self.observed.job is None and check is not None and not (check.end and check.end.succeeded)
        return by_job or (self.pod is not None and self.pod.is_checking)
