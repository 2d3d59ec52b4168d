"""What a person looks for in the events of a training, derived from two statuses; pure. Used by `reconcile`."""

from dataclasses import dataclass
from typing import Literal

from lora_api import LoraTrainingStatus
from lora_api.status import Condition, ConditionType

WARNED_ABOUT = {
    ConditionType.ACCEPTED: {"InvalidSpec", "ProfileNotFound"},
    ConditionType.SCHEDULED: {
        "Unschedulable",
        "ImagePullFailed",
        "SecretMissing",
        "PodConfigFailed",
        "ContainerFailed",
        "JobRefused",
        "Retrying",
    },
    ConditionType.RUNNING: {"Stalled"},
}


@dataclass(frozen=True)
class Event:
    """One event of the training, before it is sent."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


def derive_events(before: LoraTrainingStatus, after: LoraTrainingStatus) -> tuple[Event, ...]:
    """The events that lead from one status to the next."""
    old = {condition.type: condition for condition in before.conditions}
    found = _job_event(before, after)
    for condition in after.conditions:
        event = _event_of(condition)
        if event is not None and not _same(old.get(condition.type), condition):
            found.append(event)
    return tuple(found)


def _same(old: Condition | None, new: Condition) -> bool:
    return old is not None and (old.status, old.reason) == (new.status, new.reason)


def _job_event(before: LoraTrainingStatus, after: LoraTrainingStatus) -> list[Event]:
    old = before.attempts.number if before.attempts else 0
    new = after.attempts.number if after.attempts else 0
    return [Event("Normal", "JobCreated", f"attempt {new} was started")] if new > old else []


def _event_of(condition: Condition) -> Event | None:
    if condition.reason in WARNED_ABOUT.get(ConditionType(condition.type), ()):
        return Event("Warning", condition.reason, condition.message)
    match condition.type, condition.status:
        case ConditionType.RUNNING, "True":
            return Event("Normal", "Training", condition.message)
        case ConditionType.SUSPENDED, "True":
            return Event("Normal", "Suspended", condition.message)
        case ConditionType.SUCCEEDED, "True":
            return Event("Normal", condition.reason, condition.message)
        case ConditionType.SUCCEEDED, "False":
            return Event("Warning", condition.reason, condition.message)
    return None
