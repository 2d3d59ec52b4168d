"""What is told of a training that is evaluated once more after its end; pure. Used by `evaluation`.

Everything else that its status says stays: it has succeeded for ever.
"""

from datetime import datetime

from lora_api import ExitCode, LoraTrainingStatus, TerminationMessage, evaluation_digest, outcome_of
from lora_api.status import Artifacts, Attempts, ConditionType, EvaluationStatus, Failure
from lora_operator.conditions import MESSAGE_CHARACTERS, build_condition, derive_running, derive_suspended
from lora_operator.diagnosis import CANCELLED, HOST_OUT_OF_MEMORY
from lora_operator.evaluated import COMPLETED, FAILED, MEASURING, NOT_REQUESTED, PENDING, told_end
from lora_operator.notices import merge_notices
from lora_operator.observed import Observed
from lora_operator.outcome import DEADLINE_EXCEEDED, NO_PROGRESS, Ending, in_vain, last_terminated
from lora_operator.scheduled import derive_scheduled
from lora_operator.status import build_view, last_report
from lora_operator.subject import Subject
from lora_operator.summary import derive_summary
from lora_operator.timestamps import format_time
from lora_operator.view import Acceptance, Finding, View

_NEW = "a new LoraTraining with the same settings and output trains nothing and is only evaluated"
_CURES = {
    DEADLINE_EXCEEDED: "Raise spec.limits.activeSeconds.",
    NO_PROGRESS: "See why its pods are stopped: their events and those of the node.",
    HOST_OUT_OF_MEMORY: f"Raise spec.pod.resources.limits.memory and requests.memory: {_NEW}.",
}
_CURES_OF_TRAININGS = {
    outcome_of(ExitCode.INVALID_CONFIGURATION).hint: "Correct the field that is named.",
    outcome_of(ExitCode.OUT_OF_MEMORY).hint: "Lower widthPx and heightPx of spec.evaluation.grid.prompts.",
}
"""What to do instead of what is said of a training: of one that has ended only the evaluation may change."""
_AGAIN = "It is tried again when spec.evaluation changes, or is removed and set again."


def is_begun(status: LoraTrainingStatus) -> bool:
    """Whether it is told that what was found before no longer holds."""
    digest = status.evaluation.digest if status.evaluation is not None else ""
    return not digest and not is_over(status)


def is_over(status: LoraTrainingStatus) -> bool:
    """Whether it is told how the evaluation ended."""
    return not any(c.type == ConditionType.EVALUATED and c.status == "Unknown" for c in status.conditions)


def derive_evaluation(
    subject: Subject, observed: Observed, *, acceptance: Acceptance, now: datetime
) -> LoraTrainingStatus:
    """What is to be told at `now`; `observed`: with the Job for the present wish, if it is there."""
    status, training = subject.status, subject.training
    if subject.is_cancelled:
        words = "spec.cancel ended the evaluation; what was known before stays"
        return _tell(subject, Finding("False", CANCELLED, words), _again(status, reason=FAILED, message=words), now)
    if training is not None and training.spec.evaluation is None:
        words = "spec.evaluation was removed; what was known before stays"
        return _tell(subject, Finding("False", NOT_REQUESTED, words), _again(status, reason=FAILED, message=words), now)
    if training is None or not is_begun(status):
        pending = Finding("Unknown", PENDING, "spec.evaluation was changed; the training is to be evaluated again")
        found = pending if training is not None else Finding("Unknown", acceptance.reason, acceptance.message)
        return _tell(subject, found, _again(status, reason=MEASURING), now)
    failures = observed.job.failed if observed.job is not None else 0
    attempts = Attempts(failures=failures)
    view = build_view(subject, observed, last_report(observed), acceptance=acceptance, attempts=attempts, now=now)
    ending = view.ending or in_vain(observed.job_pods, None, time=format_time(now))
    if ending is None:
        return _tell(subject, _doing(view), status.evaluation, now)
    digest = evaluation_digest(training.spec)
    if not ending.succeeded:
        finding = _failure(ending, training.spec.limits.active_seconds)
        told = _again(status, reason=FAILED, message=finding.message, digest=digest)
        return _tell(subject, finding, told, now)
    return _completed(subject, _last_word(observed), digest, now)


def _completed(subject: Subject, word: TerminationMessage | None, digest: str, now: datetime) -> LoraTrainingStatus:
    """The end, as the trainer's last word tells it."""
    status = subject.status
    found = word.evaluation if word is not None else None
    finding = told_end(found)
    if word is None or found is None or finding is None:
        words = "evaluated; what was found was not told, and lies in evaluation/ of the output"
        told = _again(status, reason=COMPLETED, message=words, digest=digest)
        return _tell(subject, Finding("True", COMPLETED, words), told, now)
    after = _tell(subject, finding, found.model_copy(update={"digest": digest}), now)
    return after.model_copy(
        update={
            "best_checkpoint": word.best_checkpoint or status.best_checkpoint,
            "artifacts": _artifacts(status.artifacts, word.artifacts),
            "notices": merge_notices(status.notices, word.notices),
        }
    )


def _last_word(observed: Observed) -> TerminationMessage | None:
    ended = last_terminated(observed.job_pods)
    return ended.message if ended is not None else observed.last_word


def _artifacts(before: Artifacts | None, told: Artifacts | None) -> Artifacts | None:
    """What the run made stays; what an evaluation makes is there as the newest one says."""
    if before is None or told is None:
        return told or before
    made = {"best_adapter_uri": told.best_adapter_uri, "grid_uri": told.grid_uri, "report_uri": told.report_uri}
    return before.model_copy(update=made)


def _failure(ending: Ending, allowed_seconds: int | None) -> Finding:
    failure = ending.failure or Failure(reason=ending.reason, message=ending.message)
    message = failure.message
    if failure.reason == DEADLINE_EXCEEDED:
        message = f"the evaluation ran longer than spec.limits.activeSeconds ({allowed_seconds} s)"
    hint = _CURES.get(failure.reason) or _CURES_OF_TRAININGS.get(failure.hint, failure.hint)
    cure = "".join(f" {words}" for words in (hint, _AGAIN) if words)
    said = message.rstrip(".")[: MESSAGE_CHARACTERS - len(cure) - 1]
    return Finding("False", failure.reason, f"{said}.{cure}")


def _doing(view: View) -> Finding:
    """What the Job is at."""
    if not view.acceptance.accepted:
        return Finding("Unknown", view.acceptance.reason, view.acceptance.message)
    if view.training is not None and view.training.spec.suspend:
        paused = derive_suspended(view)
        return Finding("Unknown", paused.reason, paused.message)
    place = derive_scheduled(view)
    if place.status != "True":
        return Finding("Unknown", place.reason, place.message)
    work = derive_running(view, None)
    if work.status == "True":
        return Finding("Unknown", "Evaluating", (view.report and view.report.message) or "the epochs are compared")
    return Finding("Unknown", work.reason, work.message)


def _again(status: LoraTrainingStatus, *, reason: str, message: str = "", digest: str = "") -> EvaluationStatus:
    """What was known of the epochs, with another word on how it stands with it."""
    before = status.evaluation or EvaluationStatus()
    return before.model_copy(update={"digest": digest, "reason": reason, "message": message})


def _tell(subject: Subject, finding: Finding, evaluation: EvaluationStatus | None, now: datetime) -> LoraTrainingStatus:
    status, kind = subject.status, ConditionType.EVALUATED
    before = next((c for c in status.conditions if c.type == kind), None)
    condition = build_condition(kind, finding, before, generation=subject.generation, now=now)
    return status.model_copy(
        update={
            "observed_generation": subject.generation,
            "conditions": (*(c for c in status.conditions if c.type != kind), condition),
            "evaluation": evaluation,
            "summary": derive_summary(
                status.progress, status.attempts, best=status.best_checkpoint, evaluation=evaluation
            ),
        }
    )
