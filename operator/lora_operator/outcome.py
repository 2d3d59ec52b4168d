"""How a training ended, read from its Jobs and the last words of their pods; pure. Used by `status`."""

from dataclasses import dataclass

from lora_api import codes_with, names
from lora_api.redaction import redact
from lora_api.status import Failure, SavedState
from lora_operator.diagnosis import CANCELLED, EVICTED, MESSAGE_CHARACTERS, diagnose
from lora_operator.observed import Job, JobEnd, Pod, Terminated
from lora_operator.timestamps import parse_time

ALREADY_TRAINED = "AlreadyTrained"
DEADLINE_EXCEEDED = "DeadlineExceeded"
START_DEADLINE_EXCEEDED = "StartDeadlineExceeded"
NO_PROGRESS = "NoProgress"
MOST_IN_VAIN = 6
"""Pods in a row that are interrupted without a newer state before it is given up: as often as Kubernetes tries a Job
that does not say (its backoffLimit). Spot nodes alone do not get there: a pod that has made a step saves it."""
_WHY_IN_VAIN = (
    "See why its pods are stopped: their events and those of the node. If they are not given the time to get anywhere, "
    "lower checkpoints.everySeconds; a new LoraTraining with the same output goes on."
)
WILL_START = "the pod then starts by itself"
"""How words end about what only keeps a pod waiting."""
_RETRIES_USED_UP = "BackoffLimitExceeded"
REASON_CHARACTERS = 128


@dataclass(frozen=True)
class Ending:
    """The end of a training."""

    succeeded: bool
    reason: str
    message: str
    time: str
    failure: Failure | None = None


def derive_ending(
    job: Job, pods: tuple[Pod, ...], *, failures: int | None = None, allowed_seconds: int | None = None
) -> Ending | None:
    """How the training ended, or None while it goes on.

    `pods`: those of the Job, oldest first; `failures`: failed pods of all attempts, if the Job is not the first;
    `allowed_seconds`: `spec.limits.activeSeconds`. The Job that checks the data ends the training when it fails, and
    when the output already holds this very run.
    """
    if job.end is None:
        return None
    if job.end.succeeded:
        return _success(job, job.end, pods)
    if job.end.reason == DEADLINE_EXCEEDED:
        return out_of_time(allowed_seconds, time=job.end.time)
    failure = _failure(job.end, pods, failures or job.failed)
    if job.stage == names.STAGE_PREFLIGHT:
        failure = failure.model_copy(update={"message": f"{failure.message}; no GPU was asked for"})
    return failed(failure, time=job.end.time)


def failed(failure: Failure, *, time: str) -> Ending:
    """The end of a training that failed so."""
    return Ending(False, failure.reason, failure.message, time, failure)


def out_of_time(seconds: int | None, *, time: str) -> Ending:
    """The end of a training that ran for as long as `spec.limits.activeSeconds` allows."""
    allowed = "" if seconds is None else f" ({seconds} s)"
    failure = Failure(
        reason=DEADLINE_EXCEEDED,
        message=f"the training ran longer than spec.limits.activeSeconds{allowed} over all attempts",
        hint="Raise spec.limits.activeSeconds in a new LoraTraining; one with the same output goes on.",
    )
    return failed(failure, time=time)


def cancelled(*, time: str) -> Ending:
    """The end of a training that somebody set `spec.cancel` of."""
    failure = Failure(
        reason=CANCELLED,
        message="ended for good by spec.cancel",
        hint="What it made and its newest state stay; a new LoraTraining with the same output goes on.",
    )
    return failed(failure, time=time)


def never_started(seconds: int, words: str, *, time: str) -> Ending:
    """The end of a training that no pod was started for; `words`: what the scheduler or the queue said last."""
    heard = redact(words).removesuffix(f"; {WILL_START}")
    said = f"; last heard: {heard}" if heard else ""
    failure = Failure(
        reason=START_DEADLINE_EXCEEDED,
        message=f"no pod started within spec.scheduling.startDeadlineSeconds ({seconds} s){said}"[:MESSAGE_CHARACTERS],
        hint="Free what it waited for, or raise spec.scheduling.startDeadlineSeconds in a new LoraTraining.",
    )
    return failed(failure, time=time)


def in_vain(pods: tuple[Pod, ...], saved: SavedState | None, *, time: str) -> Ending | None:
    """The end of a training that would be interrupted for ever; None while it gets on, or a pod is at work.

    `pods`: those of the Job, oldest first; `saved`: the newest state that is known. Interruptions are no failures, so
    the Job would repeat one that comes at the same place each time, such as a full volume. Pods that are deleted do not
    count: whoever pauses, drains or preempts ends them, and not what they do.
    """
    newest = _newest_state(pods, saved)
    row = _interrupted_since(pods, newest)
    if len(row) < MOST_IN_VAIN or any(pod.has_begun and not pod.is_over for pod in pods):
        return None
    cause = diagnose(row[0]) or Failure(reason=NO_PROGRESS)
    newer = f" newer than that of step {newest.step}" if newest is not None else ""
    message = (
        f"{len(row)} pods in a row were interrupted, and none stored a state{newer}; the last time: {cause.message}"
    )
    told = {
        "reason": NO_PROGRESS,
        "message": message[:MESSAGE_CHARACTERS],
        "hint": cause.hint if cause.reason == EVICTED else _WHY_IN_VAIN,
    }
    return failed(cause.model_copy(update=told), time=time)


def _newest_state(pods: tuple[Pod, ...], saved: SavedState | None) -> SavedState | None:
    """Of a pod that is followed by another one at once the last word may be known, and not be told yet."""
    states = [pod.terminated.message.saved_state for pod in pods if pod.terminated and pod.terminated.message]
    return max(filter(None, (saved, *states)), key=lambda state: state.step, default=None)


def _interrupted_since(pods: tuple[Pod, ...], saved: SavedState | None) -> list[Pod]:
    """Pods that were interrupted after this state was stored, newest first."""
    row = []
    for pod in reversed([pod for pod in pods if pod.is_over]):
        if saved is not None and not _ended_at(pod, saved):
            break
        if pod.is_interrupted and not pod.is_deleting:
            row.append(pod)
    return row


def _ended_at(pod: Pod, saved: SavedState) -> bool:
    """Whether the state was the newest at the end of the pod: by its word, or because it began later."""
    told = pod.terminated.message.saved_state if pod.terminated and pod.terminated.message else None
    if told is not None:
        return told.uri == saved.uri
    return saved.saved_time is not None and parse_time(pod.created) >= parse_time(saved.saved_time)


def last_terminated(pods: tuple[Pod, ...]) -> Terminated | None:
    """How the newest pod that ended on its own account ended."""
    ended = [pod.terminated for pod in pods if pod.terminated is not None]
    return ended[-1] if ended else None


def _success(job: Job, end: JobEnd, pods: tuple[Pod, ...]) -> Ending | None:
    word = last_terminated(pods)
    message = word.message if word else None
    if message is not None and message.reason == ALREADY_TRAINED:
        return Ending(True, ALREADY_TRAINED, message.message or "the output already holds this very run", end.time)
    if job.stage == names.STAGE_PREFLIGHT:
        return None
    return Ending(True, "Completed", (message and message.message) or "all epochs are trained and stored", end.time)


def _failure(end: JobEnd, pods: tuple[Pod, ...], failures: int) -> Failure:
    cause = _cause(pods)
    if cause is None:
        words = next((pod.words for pod in reversed(pods) if pod.words), "")
        message = redact(". ".join(filter(None, (end.message or end.reason, words))))[:MESSAGE_CHARACTERS]
        reason = end.reason[:REASON_CHARACTERS] or "Failed"
        return Failure(reason=reason, message=message, hint="See the events of the Job and its pods.")
    if end.reason == _RETRIES_USED_UP and failures > 1 and cause.exit_code not in codes_with("FailJob"):
        message = f"failed {failures} times; the last time: {cause.message}"[:MESSAGE_CHARACTERS]
        return cause.model_copy(update={"message": message})
    return cause


def _cause(pods: tuple[Pod, ...]) -> Failure | None:
    """Why the newest pod failed that its Job counted; interruptions are nobody's failure."""
    for pod in reversed(pods):
        if not pod.is_interrupted and (failure := diagnose(pod)) is not None:
            return _of_node(pod, failure)
    return None


def _of_node(pod: Pod, failure: Failure) -> Failure:
    """With the name of a pod that does not speak for the training."""
    if pod.index == 0:
        return failure
    message = f"pod {pod.name}, of node {pod.index}: {failure.message}"
    return failure.model_copy(update={"message": message[:MESSAGE_CHARACTERS]})
