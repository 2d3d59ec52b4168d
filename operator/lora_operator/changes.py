"""What a person looks for in the events of a training, derived from two statuses; pure. Used by `reconcile`.

Every event is a write, so only what a person must act on or asked for is told, and pause, resumption and end.
"""

from dataclasses import dataclass
from typing import Literal

from lora_api import LoraTrainingStatus, names
from lora_api.status import Condition, ConditionType
from lora_operator.diagnosis import CANCELLED

_NOT_ACCEPTED = {"InvalidSpec", "ProfileNotFound", "SpecTooLarge"}
_NOT_PLACED = {
    "Unschedulable",
    "QuotaExceeded",
    "PodRefused",
    "ImagePullFailed",
    "SecretMissing",
    "ConfigMapMissing",
    "PodConfigFailed",
    "ContainerFailed",
    "JobRefused",
    "Retrying",
    "Preempted",
    "Evicted",
    "NodeLost",
    "KueueNotFound",
}
_NOT_RUNNING = {"Stalled"}
WARNED_ABOUT = {
    ConditionType.ACCEPTED: _NOT_ACCEPTED,
    ConditionType.SCHEDULED: _NOT_PLACED,
    ConditionType.RUNNING: _NOT_RUNNING,
    # The Job that evaluates a finished training has no other place to tell of its troubles.
    ConditionType.EVALUATED: _NOT_ACCEPTED | _NOT_PLACED | _NOT_RUNNING,
}
EVALUATION_FAILED = "EvaluationFailed"
"""Reason of the event, and of the trainer's own notice."""
_NOT_EVALUATED = {"NotRequested", "TrainingFailed", CANCELLED}


@dataclass(frozen=True)
class Event:
    """One event of the training, before it is sent."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


def derive_events(before: LoraTrainingStatus, after: LoraTrainingStatus) -> tuple[Event, ...]:
    """The events that lead from one status to the next."""
    old = {condition.type: condition for condition in before.conditions}
    ended = after.completion_time is not None
    notices = _notices(before, after)
    told = (_event_of(condition, old.get(condition.type), ended) for condition in after.conditions)
    known = {EVALUATION_FAILED} & {notice.reason for notice in notices}
    notices += _answers(before, after)
    return (*notices, *(event for event in told if event is not None and event.reason not in known))


def _notices(before: LoraTrainingStatus, after: LoraTrainingStatus) -> list[Event]:
    new = [notice for notice in after.notices if notice not in before.notices]
    return [Event("Warning", notice.reason, notice.message) for notice in new]


def _answers(before: LoraTrainingStatus, after: LoraTrainingStatus) -> list[Event]:
    if after.checkpoint_request == before.checkpoint_request or after.saved_state is None:
        return []
    message = f"the state of step {after.saved_state.step} is stored, as {names.ANNOTATION_CHECKPOINT} asked for"
    return [Event("Normal", "CheckpointSaved", message)]


def _event_of(condition: Condition, old: Condition | None, ended: bool) -> Event | None:
    if old is not None and (old.status, old.reason) == (condition.status, condition.reason):
        return None
    if condition.reason in WARNED_ABOUT.get(ConditionType(condition.type), ()):
        return Event("Warning", condition.reason, condition.message)
    was_true = old is not None and old.status == "True"
    match condition.type, condition.status:
        case ConditionType.SUSPENDED, "True":
            return Event("Normal", "Suspended", condition.message)
        case ConditionType.SUSPENDED, "False" if was_true and not ended and condition.reason != "Suspending":
            return Event("Normal", "Resumed", "the training goes on from its newest state")
        case ConditionType.SUCCEEDED, "True":
            return Event("Normal", condition.reason, condition.message)
        case ConditionType.SUCCEEDED, "False" if condition.reason == CANCELLED:
            return Event("Normal", CANCELLED, condition.message)
        case ConditionType.SUCCEEDED, "False":
            return Event("Warning", condition.reason, condition.message)
        case ConditionType.EVALUATED, "True":
            return Event("Normal", "Evaluated", condition.message)
        case ConditionType.EVALUATED, "False" if condition.reason not in _NOT_EVALUATED:
            return Event("Warning", EVALUATION_FAILED, condition.message)
    return None
