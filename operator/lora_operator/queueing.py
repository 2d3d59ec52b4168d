"""What conditions say while a queue holds a training's Job; pure. Used by `scheduled` and `conditions`.

Waiting in a queue is progress, not a pause: Suspended stays False, so that tools that map Suspended=True to a paused
object show only those as paused that a person paused.
"""

from lora_operator.kueue import QueueState
from lora_operator.view import Finding, View

QUEUED = "Queued"
KUEUE_NOT_FOUND = "KueueNotFound"
WAITS = frozenset({QUEUED, KUEUE_NOT_FOUND})
"""Reasons of Scheduled that mean the phase Queued."""


def holding_queue(view: View) -> QueueState | None:
    """What the queue says that keeps the current Job suspended; None: no queue does."""
    return view.observed.queue if view.job is not None and view.job.suspend else None


def explain_wait(state: QueueState) -> Finding:
    """Why no pod has a place: the queue's own reason and words."""
    if state.is_absent:
        return Finding("False", KUEUE_NOT_FOUND, f"scheduling.queueName is {state.queue}, but {state.message}")
    # Admitted, and not started yet: the queue does that in a moment.
    words = ": ".join(filter(None, (state.reason, state.message)))
    return Finding("False", QUEUED, f"{_name(state)}: {words}")


def explain_hold(state: QueueState) -> Finding:
    """Why the training is not paused, although its Job is suspended."""
    if state.evicted_time is not None:
        return Finding("False", "Preempted", f"{_name(state)} took its place; it goes on by itself when there is room")
    return Finding("False", QUEUED, f"nobody paused it; it waits in {_name(state)}")


def _name(state: QueueState) -> str:
    return f"queue {state.queue}" if state.queue else "Kueue, which also manages Jobs that name no queue"
