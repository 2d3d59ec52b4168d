"""The status of a training, derived from what is seen; pure. Used by `reconcile`.

The status before is read only for what can no longer be seen: what pods said that are gone.
"""

from dataclasses import replace
from datetime import datetime

from lora_api import LoraTrainingStatus, ProgressReport, evaluation_digest
from lora_api.status import (
    Artifacts,
    Attempts,
    Checkpoint,
    Condition,
    ConditionType,
    EvaluationStatus,
    Plan,
    Progress,
    QueueStatus,
)
from lora_operator import kueue
from lora_operator.attempts import derive_attempts, is_time_over, stop_clocks
from lora_operator.changes import derive_events
from lora_operator.conditions import MESSAGE_CHARACTERS, derive_conditions, derive_phase
from lora_operator.deadlines import seconds_to_save, seconds_to_start
from lora_operator.evaluated import told_end
from lora_operator.gang import pods_of_attempts
from lora_operator.notices import merge_notices
from lora_operator.observed import Observed
from lora_operator.outcome import (
    DEADLINE_EXCEEDED,
    Ending,
    cancelled,
    derive_ending,
    in_vain,
    never_started,
    out_of_time,
)
from lora_operator.subject import Subject
from lora_operator.summary import derive_summary
from lora_operator.timestamps import format_time, parse_time
from lora_operator.view import Acceptance, View

MAX_CHECKPOINTS = 20


def derive_status(subject: Subject, observed: Observed, *, acceptance: Acceptance, now: datetime) -> LoraTrainingStatus:
    """What is to be told about the training at `now`."""
    before, report = subject.status, last_report(observed)
    queue, evictions = _queue(observed, before)
    said = report if observed.job and observed.pod else None
    attempts = derive_attempts(subject, observed, report=said, evictions=evictions, now=now)
    view = build_view(subject, observed, report, acceptance=acceptance, attempts=attempts, now=now)
    conditions = derive_conditions(view, previous=before.conditions, generation=subject.generation)
    if view.ending is None and (ending := _out_of_patience(view, attempts, conditions)):
        view = replace(view, ending=ending)
        conditions = derive_conditions(view, previous=before.conditions, generation=subject.generation)
    best = (report.best_checkpoint if report else None) or before.best_checkpoint
    job, ending = observed.current_job, view.ending
    progress = _at_end(view.progress, ending) if ending else view.progress
    return LoraTrainingStatus(
        observed_generation=subject.generation,
        phase=derive_phase(conditions, view.pod),
        start_time=before.start_time or (job.created if job else None),
        completion_time=ending.time if ending else None,
        conditions=conditions,
        plan=view.plan,
        progress=progress,
        checkpoints=view.checkpoints,
        best_checkpoint=best,
        evaluation=view.evaluation,
        artifacts=view.artifacts,
        saved_state=view.saved_state,
        checkpoint_request=_answered_request(subject, report),
        memory_rungs=(report.memory_rungs if report else ()) or before.memory_rungs,
        queue=queue,
        attempts=stop_clocks(attempts, ending.time) if ending else attempts,
        notices=merge_notices(before.notices, report.notices if report else ()),
        failure=ending.failure if ending else None,
        summary=derive_summary(progress, attempts, best=best, evaluation=view.evaluation),
    )


def build_view(
    subject: Subject,
    observed: Observed,
    report: ProgressReport | None,
    *,
    acceptance: Acceptance,
    attempts: Attempts,
    now: datetime,
) -> View:
    """Everything that is told of is derived from this; `report`: what the trainer said last."""
    before = subject.status
    return View(
        acceptance=acceptance,
        training=subject.training,
        observed=observed,
        report=report,
        ending=_ending(subject, observed, attempts, now=now),
        plan=_plan(report, _plan(_word_of_check(observed), before.plan)),
        progress=_progress(report, before.progress),
        checkpoints=_checkpoints(before.checkpoints, report.checkpoints if report else ()),
        artifacts=_artifacts(report, before.artifacts),
        evaluation=_evaluation(subject, report),
        saved_state=(report.saved_state if report else None) or before.saved_state,
        now=now,
        is_cancelled=subject.is_cancelled,
    )


def _ending(subject: Subject, observed: Observed, attempts: Attempts, *, now: datetime) -> Ending | None:
    job, training = observed.current_job, subject.training
    if job is None:
        return None
    if job.failing is not None and any(not pod.is_over for pod in observed.job_pods):
        # What pods save while they end, and their last words, belong to the end; on a dead node none will follow.
        if seconds_to_save(observed.job_pods, since=job.failing.time, now=now) > 0:
            return None
        job = replace(job, end=job.failing)
    limit = training.spec.limits.active_seconds if training else None
    failures = attempts.failures if observed.job else None
    pods = (observed.gang_failure,) if observed.gang_failure is not None else observed.job_pods
    ending = derive_ending(job, pods, failures=failures, allowed_seconds=limit)
    return _at_last_step(ending, observed) if ending is not None and ending.reason == DEADLINE_EXCEEDED else ending


def _out_of_patience(view: View, attempts: Attempts, conditions: tuple[Condition, ...]) -> Ending | None:
    """The end of a training that is cancelled, out of time or gets nowhere; its own Job may not know that."""
    job = view.observed.current_job
    if job is not None and job.is_failing:
        return None
    if view.is_cancelled:
        return None if _may_still_save(view) else _at_last_step(cancelled(time=format_time(view.now)), view.observed)
    if view.training is None or view.training.spec.suspend:
        return None
    spec, time = view.training.spec, format_time(view.now)
    if is_time_over(spec, attempts, view.now):
        ending = out_of_time(spec.limits.active_seconds, time=time)
        return None if _may_still_save(view) else _at_last_step(ending, view.observed)
    to_start = seconds_to_start(spec, attempts, view.now)
    if to_start is not None and to_start <= 0:
        words = next(c.message for c in conditions if c.type == ConditionType.SCHEDULED)
        return never_started(spec.scheduling.start_deadline_seconds or 0, words, time=time)
    return in_vain(pods_of_attempts(view.observed), view.saved_state, time=time)


def _may_still_save(view: View) -> bool:
    """Whether a Job is still to be stopped, or pods that were told to stop are still to be heard."""
    job, pods = view.observed.job, view.observed.training_pods
    is_running = job is not None and job.is_active and not job.suspend
    return is_running or seconds_to_save(pods, since=None, now=view.now) > 0


def _at_last_step(ending: Ending, observed: Observed) -> Ending:
    """The end of a training that was stopped, with the step that it had come to."""
    if ending.failure is None or observed.last_word is None:
        return ending
    return replace(ending, failure=ending.failure.model_copy(update={"step": observed.last_word.step}))


def _queue(observed: Observed, before: LoraTrainingStatus) -> tuple[QueueStatus | None, int]:
    """What the queue says, and evictions that were not known of."""
    told = kueue.queue_status(observed.queue, before.queue, has_job=observed.current_job is not None)
    return told, kueue.new_evictions(told, before.queue)


def is_finished(status: LoraTrainingStatus) -> bool:
    """Whether the status tells of an end for ever."""
    return any(c.type == ConditionType.FINISHED and c.status == "True" for c in status.conditions)


def is_worth_writing(before: LoraTrainingStatus, after: LoraTrainingStatus) -> bool:
    """Whether the change is more than a later time of the same progress."""
    return before != after and _without_times(before) != _without_times(after)


def is_urgent(before: LoraTrainingStatus, after: LoraTrainingStatus) -> bool:
    """Whether the change must be told at once: what people decide by, and what is needed after a restart."""
    if before.observed_generation != after.observed_generation or is_finished(before) != is_finished(after):
        return True
    if _attempt(before) != _attempt(after) or before.checkpoint_request != after.checkpoint_request:
        return True
    old, new = _by_type(before), _by_type(after)
    if is_finished(after) and _status_of(old, ConditionType.EVALUATED) != _status_of(new, ConditionType.EVALUATED):
        return True
    accepted, ready, suspended = ConditionType.ACCEPTED, ConditionType.DATASET_READY, ConditionType.SUSPENDED
    if _said(old.get(accepted)) != _said(new.get(accepted)) or _holds(old, suspended) != _holds(new, suspended):
        return True
    if _holds(new, ready) and not _holds(old, ready):
        return True
    return any(event.type == "Warning" for event in derive_events(before, after))


def _by_type(status: LoraTrainingStatus) -> dict[str, Condition]:
    return {condition.type: condition for condition in status.conditions}


def _said(condition: Condition | None) -> tuple[str, str] | None:
    return (condition.status, condition.reason) if condition else None


def _holds(conditions: dict[str, Condition], kind: str) -> bool:
    return _status_of(conditions, kind) == "True"


def _status_of(conditions: dict[str, Condition], kind: str) -> str:
    return conditions[kind].status if kind in conditions else ""


def _attempt(status: LoraTrainingStatus) -> int:
    return status.attempts.number if status.attempts else 0


def _without_times(status: LoraTrainingStatus) -> LoraTrainingStatus:
    progress = status.progress and status.progress.model_copy(update={"updated_time": None})
    return status.model_copy(update={"progress": progress})


def without_report(before: LoraTrainingStatus, after: LoraTrainingStatus, refusal: str) -> LoraTrainingStatus:
    """The status without what the trainer says, for when the API server refuses it in those words."""
    told = (
        "plan", "progress", "checkpoints", "best_checkpoint", "evaluation", "artifacts", "saved_state",
        "checkpoint_request", "memory_rungs", "notices", "summary",
    )  # fmt: skip
    words = f"; what the trainer reports cannot be written: {refusal}"
    conditions = tuple(
        c.model_copy(update={"message": c.message[: MESSAGE_CHARACTERS - len(words)] + words})
        if c.type == ConditionType.RUNNING
        else c
        for c in after.conditions
    )
    kept = {"conditions": conditions} | {field: getattr(before, field) for field in told}
    if is_finished(before) and after.evaluation is not None:
        # Which evaluation has ended is known by it: none is made twice.
        kept["evaluation"] = EvaluationStatus(digest=after.evaluation.digest, reason=after.evaluation.reason)
    return after.model_copy(update=kept)


def last_report(observed: Observed) -> ProgressReport | None:
    """What the newest pod said last: its last word, also when it is gone, else its answer to the newest poll."""
    pod = observed.pod
    if pod is None:
        return observed.last_word
    if pod.terminated is not None:
        return pod.terminated.message or observed.report
    return observed.report


def _answered_request(subject: Subject, report: ProgressReport | None) -> str | None:
    """The newest request for a state that is known to be answered; pods tell of no other than was made."""
    wish, before = subject.checkpoint_request, subject.status.checkpoint_request
    return wish if wish and report is not None and report.checkpoint_request == wish else before


def _word_of_check(observed: Observed) -> ProgressReport | None:
    """The last word of the check that the data passed, in a pod of its own or in the one that trains."""
    passed = [pod.terminated for pod in observed.preflight_pods] + [pod.checked for pod in observed.training_pods]
    return next((end.message for end in reversed(passed) if end is not None and end.message is not None), None)


def _progress(report: ProgressReport | None, before: Progress | None) -> Progress | None:
    told = report.progress if report else None
    if told is None or before is None:
        return told or before
    # Another operator may have asked later than we did: time never runs backwards.
    if told.updated_time and before.updated_time and parse_time(told.updated_time) < parse_time(before.updated_time):
        return before
    return told


def _at_end(progress: Progress | None, ending: Ending) -> Progress | None:
    """Nothing is left after a success, however many steps it took; what a failure leaves takes no more time."""
    end = {"percent": 100, "remaining_seconds": 0} if ending.succeeded else {"remaining_seconds": None}
    return progress and progress.model_copy(update=end)


def _plan(report: ProgressReport | None, before: Plan | None) -> Plan | None:
    """The newest plan; a last word is short and may have left out the buckets that an earlier report named."""
    told = report.plan if report else None
    if told is None:
        return before
    if not told.buckets and before is not None and before.total_steps == told.total_steps:
        return before
    return told


def _checkpoints(before: tuple[Checkpoint, ...], told: tuple[Checkpoint, ...]) -> tuple[Checkpoint, ...]:
    """The newest of all that were ever told, by step; one that was written again replaces the older one."""
    by_uri = {checkpoint.uri: checkpoint for checkpoint in (*before, *told)}
    return tuple(sorted(by_uri.values(), key=lambda c: (c.step, c.epoch, c.uri))[-MAX_CHECKPOINTS:])


def _artifacts(report: ProgressReport | None, before: Artifacts | None) -> Artifacts | None:
    told = report.artifacts if report else None
    if told is None or before is None:
        return told or before
    return before.model_copy(update=told.model_dump(exclude_none=True))


def _evaluation(subject: Subject, report: ProgressReport | None) -> EvaluationStatus | None:
    """The newest of what was told."""
    told = (report.evaluation if report else None) or subject.status.evaluation
    if told is None or subject.training is None:
        return told
    # Until the end the settings cannot change: a trainer of another version may only count them otherwise.
    digest = evaluation_digest(subject.training.spec) if told_end(told) is not None else ""
    return told.model_copy(update={"digest": digest})
