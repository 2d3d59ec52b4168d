"""How a training ended, read from its Job and the last word of its pod; pure. Used by `status`."""

from dataclasses import dataclass

from lora_api import ExitCode, outcome_of
from lora_api.status import Failure
from lora_operator.observed import Job, JobEnd, Pod, Terminated

ALREADY_TRAINED = "AlreadyTrained"
DEADLINE_EXCEEDED = "DeadlineExceeded"
LOG_TAIL_CHARACTERS = 1000
UNSAFE_WORDS = "the trainer left no message"


@dataclass(frozen=True)
class Ending:
    """The end of a training."""

    succeeded: bool
    reason: str
    message: str
    time: str
    failure: Failure | None = None


def derive_ending(job: Job, pods: tuple[Pod, ...]) -> Ending | None:
    """How the training ended, or None while its Job goes on. `pods`: those of the Job, oldest first."""
    if job.end is None:
        return None
    if job.end.succeeded:
        return _success(job.end, pods)
    failure = _failure(job.end, pods)
    return Ending(False, failure.reason, failure.message, job.end.time, failure)


def last_terminated(pods: tuple[Pod, ...]) -> Terminated | None:
    """How the newest pod that ended on its own account ended."""
    ended = [pod.terminated for pod in pods if pod.terminated is not None]
    return ended[-1] if ended else None


def describe(terminated: Terminated) -> str:
    """What went wrong, in the trainer's words or, if it left none, by the end of its log."""
    if terminated.message is not None and terminated.message.message:
        return terminated.message.message
    tail = terminated.text.strip()[-LOG_TAIL_CHARACTERS:]
    return f"the trainer ended with exit code {terminated.exit_code}: {tail or UNSAFE_WORDS}"


def _success(end: JobEnd, pods: tuple[Pod, ...]) -> Ending:
    word = last_terminated(pods)
    message = word.message if word else None
    if message is not None and message.reason == ALREADY_TRAINED:
        return Ending(True, ALREADY_TRAINED, message.message or "the output already holds this very run", end.time)
    return Ending(True, "Completed", (message and message.message) or "all epochs are trained and stored", end.time)


def _failure(end: JobEnd, pods: tuple[Pod, ...]) -> Failure:
    if end.reason == DEADLINE_EXCEEDED:
        return Failure(
            reason=DEADLINE_EXCEEDED,
            message="the training ran longer than spec.limits.activeSeconds",
            hint="Raise spec.limits.activeSeconds in a new LoraTraining; one with the same output goes on.",
        )
    word = last_terminated(pods)
    if word is None:
        words = next((pod.words for pod in reversed(pods) if pod.words), "")
        message = ". ".join(filter(None, (end.message or end.reason, words)))
        return Failure(reason=end.reason or "Failed", message=message, hint="See the events of the Job and its pods.")
    return _failure_of(word)


def _failure_of(word: Terminated) -> Failure:
    outcome = outcome_of(word.exit_code)
    message = word.message
    if word.reason == "OOMKilled":
        return Failure(
            reason=outcome_of(ExitCode.OUT_OF_MEMORY).reason,
            exit_code=_code(word),
            step=message.step if message else None,
            message="the pod used more memory than its limit allows and was killed",
            hint=outcome_of(ExitCode.KILLED).hint,
        )
    return Failure(
        reason=outcome.reason,
        exit_code=_code(word),
        step=message.step if message else None,
        message=describe(word),
        hint=(message.hint if message else "") or outcome.hint,
    )


def _code(word: Terminated) -> int | None:
    return word.exit_code if -1 <= word.exit_code <= 255 else None
