"""The status of a training, derived from what is seen; pure. Used by `reconcile`.

The status before is read only for what can no longer be seen: what pods said that are gone.
"""

from datetime import datetime

from lora_api import LoraTrainingStatus, ProgressReport
from lora_api.status import Artifacts, Attempts, Checkpoint, ConditionType, Plan, Progress
from lora_operator.conditions import MESSAGE_CHARACTERS, derive_conditions, derive_phase
from lora_operator.notices import merge_notices
from lora_operator.observed import Observed, Pod, Subject, parse_time
from lora_operator.outcome import derive_ending
from lora_operator.summary import derive_summary
from lora_operator.view import Acceptance, View

MAX_CHECKPOINTS = 20
PROGRESS_REFRESH_SECONDS = 30.0
"""Numbers that only creep are written this often; whole percents and everything else at once."""


def derive_status(subject: Subject, observed: Observed, *, acceptance: Acceptance, now: datetime) -> LoraTrainingStatus:
    """What is to be told about the training at `now`."""
    before = subject.status
    job = observed.job
    report = last_report(observed)
    ending = derive_ending(job, observed.job_pods) if job else None
    progress = _progress(report, before.progress)
    checkpoints = _checkpoints(before.checkpoints, report.checkpoints if report else ())
    view = View(
        acceptance=acceptance,
        training=subject.training,
        observed=observed,
        report=report,
        ending=ending,
        plan=_plan(report, before.plan),
        progress=progress,
        checkpoints=checkpoints,
        artifacts=_artifacts(report, before.artifacts),
        now=now,
    )
    conditions = derive_conditions(view, previous=before.conditions, generation=subject.generation)
    attempts = _attempts(observed, before.attempts)
    best = (report.best_checkpoint if report else None) or before.best_checkpoint
    return LoraTrainingStatus(
        observed_generation=subject.generation,
        phase=derive_phase(conditions, view.pod),
        start_time=before.start_time or (job.created if job else None),
        completion_time=ending.time if ending else None,
        conditions=conditions,
        plan=view.plan,
        progress=progress,
        checkpoints=checkpoints,
        best_checkpoint=best,
        artifacts=view.artifacts,
        attempts=attempts,
        notices=merge_notices(before.notices, report.notices if report else ()),
        failure=ending.failure if ending else None,
        summary=derive_summary(progress, best, attempts),
    )


def is_worth_writing(before: LoraTrainingStatus, after: LoraTrainingStatus) -> bool:
    """Whether the change is more than numbers that crept on since a moment ago."""
    if before == after:
        return False
    if _without_creep(before) != _without_creep(after):
        return True
    old, new = before.progress, after.progress
    if old is None or new is None or old.updated_time is None or new.updated_time is None:
        return True
    passed = parse_time(new.updated_time) - parse_time(old.updated_time)
    return passed.total_seconds() >= PROGRESS_REFRESH_SECONDS


def without_report(before: LoraTrainingStatus, after: LoraTrainingStatus, refusal: str) -> LoraTrainingStatus:
    """The status without what the trainer says, for when the API server refuses it in those words."""
    told = ("plan", "progress", "checkpoints", "best_checkpoint", "artifacts", "summary")
    words = f"; what the trainer reports cannot be written: {refusal}"
    conditions = tuple(
        c.model_copy(update={"message": c.message[: MESSAGE_CHARACTERS - len(words)] + words})
        if c.type == ConditionType.RUNNING
        else c
        for c in after.conditions
    )
    return after.model_copy(update={"conditions": conditions} | {field: getattr(before, field) for field in told})


def _without_creep(status: LoraTrainingStatus) -> LoraTrainingStatus:
    progress = status.progress and Progress(
        total_steps=status.progress.total_steps,
        epoch=status.progress.epoch,
        total_epochs=status.progress.total_epochs,
        percent=status.progress.percent,
    )
    return status.model_copy(update={"progress": progress, "summary": None})


def last_report(observed: Observed) -> ProgressReport | None:
    """What the newest pod said last: its last word, else its answer to the newest poll."""
    pod = observed.pod
    if pod is None:
        return None
    if pod.terminated is not None:
        return pod.terminated.message or observed.report
    return observed.report


def _progress(report: ProgressReport | None, before: Progress | None) -> Progress | None:
    told = report.progress if report else None
    if told is None or before is None:
        return told or before
    # Another operator may have asked later than we did: time never runs backwards.
    if told.updated_time and before.updated_time and parse_time(told.updated_time) < parse_time(before.updated_time):
        return before
    return told


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


def _attempts(observed: Observed, before: Attempts | None) -> Attempts | None:
    if observed.job is None:
        return before
    old = before or Attempts()
    resumed = [_resumed_step(pod, observed) for pod in observed.job_pods]
    return Attempts(
        number=max(observed.job.attempt, old.number),
        failures=max(observed.job.failed, old.failures),
        preemptions=max(sum(pod.is_interrupted for pod in observed.pods), old.preemptions),
        resumed_from_step=next((step for step in reversed(resumed) if step is not None), old.resumed_from_step),
        lost_steps=max(_lost_steps(observed.job_pods, resumed), old.lost_steps),
    )


def _resumed_step(pod: Pod, observed: Observed) -> int | None:
    if pod.terminated is not None:
        return pod.terminated.message.resumed_from_step if pod.terminated.message else None
    newest = observed.pod
    return observed.report.resumed_from_step if observed.report and newest and newest.uid == pod.uid else None


def _lost_steps(pods: tuple[Pod, ...], resumed: list[int | None]) -> int:
    """Steps between where each pod ended and where the next one went on."""
    lost = 0
    for pod, went_on_from in zip(pods, resumed[1:], strict=False):
        last_word = pod.terminated.message if pod.terminated else None
        if last_word is not None and last_word.step is not None and went_on_from is not None:
            lost += max(0, last_word.step - went_on_from)
    return lost
