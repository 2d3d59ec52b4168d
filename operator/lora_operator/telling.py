"""Whether and when a status is written: every write is one for the API server; pure. Used by `reconcile`."""

from datetime import datetime

from lora_api import LoraTrainingStatus
from lora_operator.changes import derive_events
from lora_operator.decision import Action, Decision
from lora_operator.observed import Observed
from lora_operator.status import is_urgent, is_worth_writing
from lora_operator.subject import Subject


def tell(
    subject: Subject,
    status: LoraTrainingStatus,
    *,
    actions: tuple[Action, ...],
    wait_seconds: float | None,
) -> Decision:
    """These actions, and then the status, if it says something new."""
    if not is_worth_writing(subject.status, status):
        return Decision(actions, requeue_after_seconds=wait_seconds)
    return Decision(actions, status, derive_events(subject.status, status), wait_seconds)


def seconds_too_early(
    subject: Subject, observed: Observed, status: LoraTrainingStatus, now: datetime, interval_seconds: float
) -> float | None:
    """How long a status that only tells of progress must wait; None: it may be written, or need not."""
    if observed.written is None or not is_worth_writing(subject.status, status) or is_urgent(subject.status, status):
        return None
    early = interval_seconds - (now - observed.written).total_seconds()
    return early if early > 0 else None
