"""Decides what is to be done about one training; pure. Used by `controller`, which carries it out.

The same world gives the same answer, whoever asks and however often.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from lora_api import LoraTrainingStatus
from lora_api.status import Attempts, ConditionType
from lora_operator import manifests
from lora_operator.attempts import is_time_over
from lora_operator.changes import Event, derive_events
from lora_operator.deadlines import seconds_to_next, seconds_to_save
from lora_operator.observed import Observed
from lora_operator.profiles import Profiles
from lora_operator.stall import measure_silence
from lora_operator.status import derive_status, is_finished, is_urgent, is_worth_writing
from lora_operator.subject import Manifest, Subject
from lora_operator.timestamps import parse_time
from lora_operator.view import ACCEPTED, Acceptance

WAIT_FOR_PODS_SECONDS = 5.0
WAIT_FOR_START_SECONDS = 5.0
"""A pod that does not start may have a reason that no watch tells."""


@dataclass(frozen=True)
class Create:
    """Create a Job unless it is there."""

    manifest: Manifest


@dataclass(frozen=True)
class PatchJob:
    """Change mutable fields of a Job."""

    name: str
    patch: Manifest


@dataclass(frozen=True)
class Delete:
    """Delete a Job and its pods."""

    name: str
    uid: str | None = None
    """Delete only this very object."""


Action = Create | PatchJob | Delete


@dataclass(frozen=True)
class Decision:
    """What is to be done: actions in order, then the status, then events, then another look."""

    actions: tuple[Action, ...] = ()
    status: LoraTrainingStatus | None = None
    """None: what is written there is still right."""
    events: tuple[Event, ...] = ()
    requeue_after_seconds: float | None = None


def decide(
    subject: Subject, observed: Observed, *, profiles: Profiles, now: datetime, status_interval_seconds: float = 0.0
) -> Decision:
    """What is to be done about the training, given what is seen of its children.

    `status_interval_seconds`: how long after one write of the status the next one waits, if it tells of progress only.
    """
    if subject.is_deleting:
        # Its children name it as their owner: the garbage collector removes them, with or without us.
        return Decision()
    if subject.is_finished:
        return _decide_finished(subject, observed, now)
    acceptance = _accept(subject, observed, profiles)
    status = derive_status(subject, observed, acceptance=acceptance, now=now)
    if is_finished(status):
        # Jobs that still run are stopped when the end is written.
        return _tell(subject, observed, status, actions=(), wait_seconds=0.0)
    if (start := _start(subject, observed, acceptance, profiles, status=status)) is not None:
        return Decision((start,))
    actions = _adjust(subject, observed, status, now)
    if any(map(_stops_or_starts, actions)) and _made(status) > _made(subject.status):
        # Whoever looks next may find neither the pods of the Job nor a word of them: first they are told of.
        return _tell(subject, observed, status, actions=(), wait_seconds=0.0)
    wait = _seconds_until_due(subject, observed, status, now)
    if (early := _seconds_too_early(subject, observed, status, now, status_interval_seconds)) is not None:
        wait = early if wait is None else min(wait, early)
        return Decision(actions, requeue_after_seconds=wait)
    return _tell(subject, observed, status, actions=actions, wait_seconds=wait)


def _accept(subject: Subject, observed: Observed, profiles: Profiles) -> Acceptance:
    if subject.training is None:
        return Acceptance(False, "InvalidSpec", subject.problem)
    wanted = subject.training.spec.profile
    if wanted not in profiles:
        known = ", ".join(sorted(profiles))
        message = f"spec.profile is {wanted}, but the operator has no such profile; use one of {known}, or add it"
        return Acceptance(False, "ProfileNotFound", message)
    profile = profiles[wanted]
    if observed.current_job is None and (
        size := manifests.oversize(manifests.resolve(subject.training, profile), profile)
    ):
        most = manifests.MAX_ANNOTATION_BYTES
        message = (
            f"the spec and the pod's annotations are {size} bytes, but pods can carry at most {most}; "
            "shorten the longest texts, such as spec.samples.prompts and spec.pod.annotations"
        )
        return Acceptance(False, "SpecTooLarge", message)
    return ACCEPTED


def _start(
    subject: Subject, observed: Observed, acceptance: Acceptance, profiles: Profiles, *, status: LoraTrainingStatus
) -> Create | None:
    """The Job that is to be created now: the check of the data, or the next attempt."""
    if subject.training is None or not acceptance.accepted or observed.refusal or observed.job is not None:
        return None
    if any(not pod.is_over for pod in observed.pods) or _is_held(subject, status):
        # Pods of a Job that is gone still end: a second writer must wait for them.
        return None
    profile = profiles[subject.training.spec.profile]
    training = manifests.resolve(subject.training, profile)
    check = observed.preflight
    if check is not None and check.end is None:
        # Whatever the profile says by now: one Job at a time.
        return None
    if check is None and manifests.needs_preflight_job(training.spec, profile) and not _is_checked(subject):
        return Create(manifests.build_preflight_job(training, profile))
    return Create(manifests.build_job(training, profile, attempt=subject.attempt + 1, used=_used(status)))


def _is_checked(subject: Subject) -> bool:
    """Whether the data were checked before: that is never done twice."""
    ready = any(c.type == ConditionType.DATASET_READY and c.status == "True" for c in subject.status.conditions)
    return ready or subject.attempt > 0


def _is_held(subject: Subject, status: LoraTrainingStatus) -> bool:
    """Whether a paused training waits without a Job: a queue would set one going that is merely suspended."""
    spec = subject.training.spec if subject.training else None
    queued = spec is not None and (spec.scheduling.queue_name is not None or status.queue is not None)
    return spec is not None and spec.suspend and queued


def _is_time_over(subject: Subject, status: LoraTrainingStatus, now: datetime) -> bool:
    """Whether running time is used up, although no end was told yet."""
    training, attempts = subject.training, status.attempts
    return training is not None and attempts is not None and is_time_over(training.spec, attempts, now)


def _used(status: LoraTrainingStatus) -> manifests.Used:
    attempts = status.attempts or Attempts()
    save_seconds = status.saved_state.save_seconds if status.saved_state else None
    return manifests.Used(attempts.failures, attempts.active_seconds, save_seconds)


def _adjust(subject: Subject, observed: Observed, status: LoraTrainingStatus, now: datetime) -> tuple[Action, ...]:
    """Brings the Jobs that are there in line with the spec."""
    job, surplus = observed.current_job, _delete_surplus(subject, observed)
    if subject.training is None or job is None or not job.is_active:
        return surplus
    if _is_time_over(subject, status, now):
        # Its pod saves before the end is told.
        return (*surplus, Delete(job.name, job.uid))
    queued = observed.queue is not None
    if _is_held(subject, status) and (queued or job.queue_name):
        return (*surplus, Delete(job.name, job.uid))
    patch = manifests.build_job_patch(subject.training.spec, job, _used(status), queued=queued)
    return (*surplus, PatchJob(job.name, patch)) if patch else surplus


def _stops_or_starts(action: Action) -> bool:
    """Whether pods come or go by it."""
    return isinstance(action, Delete) or (isinstance(action, PatchJob) and "suspend" in action.patch["spec"])


def _made(status: LoraTrainingStatus) -> int:
    """Pods that the status tells of."""
    return status.attempts.pods.made if status.attempts and status.attempts.pods else 0


def _delete_surplus(subject: Subject, observed: Observed) -> tuple[Action, ...]:
    return tuple(Delete(job.name, job.uid) for job in observed.surplus_jobs(subject.is_finished))


def _tell(
    subject: Subject,
    observed: Observed,
    status: LoraTrainingStatus,
    *,
    actions: tuple[Action, ...],
    wait_seconds: float | None,
) -> Decision:
    if not is_worth_writing(subject.status, status):
        return Decision(actions, requeue_after_seconds=wait_seconds)
    return Decision(actions, status, derive_events(subject.status, status), wait_seconds)


def _seconds_too_early(
    subject: Subject, observed: Observed, status: LoraTrainingStatus, now: datetime, interval_seconds: float
) -> float | None:
    """How long a status that only tells of progress must wait; None: it may be written, or need not."""
    if observed.written is None or not is_worth_writing(subject.status, status) or is_urgent(subject.status, status):
        return None
    early = interval_seconds - (now - observed.written).total_seconds()
    return early if early > 0 else None


def _seconds_until_due(subject: Subject, observed: Observed, status: LoraTrainingStatus, now: datetime) -> float | None:
    """When to look again although nothing changed; None: at the next round over all trainings."""
    waits: list[float] = []
    job, pod = observed.current_job, observed.pod
    lacks_pods = pod is None and job is not None and job.is_active and not job.suspend
    if lacks_pods or (pod is not None and pod.waiting is not None):
        waits.append(WAIT_FOR_START_SECONDS)
    if pod is not None and (silence := _seconds_to_stall(subject, observed, now)) is not None:
        waits.append(silence)
    is_stopping = _is_time_over(subject, status, now)
    if is_stopping or (job is None and observed.pods):
        waits.append(WAIT_FOR_PODS_SECONDS)
    if job is not None and job.failing is not None:
        waits.append(seconds_to_save(observed.job_pods, since=job.failing.time, now=now))
    elif subject.training is not None and status.attempts is not None and not is_stopping:
        deadline = seconds_to_next(subject.training.spec, status.attempts, now)
        waits += [deadline] if deadline is not None else []
    return min(filter(None, waits), default=None)


def _seconds_to_stall(subject: Subject, observed: Observed, now: datetime) -> float | None:
    """When a running pod that says nothing more will have been silent for too long; None: it does not run, or was."""
    pod, training = observed.pod, subject.training
    if pod is None or training is None or not (pod.is_running or pod.is_checking):
        return None
    limit = training.spec.limits.stall_seconds
    silence = measure_silence(observed.report, running_since=pod.running_since, stall_seconds=limit, now=now)
    if silence is None or silence.is_too_long:
        return None
    return silence.patience_seconds - silence.seconds + 1


def _decide_finished(subject: Subject, observed: Observed, now: datetime) -> Decision:
    """A finished training never trains again; its children go when their time is over."""
    status = _seen(subject)
    running = _delete_surplus(subject, observed)
    jobs = tuple(job for job in (*observed.older_jobs, observed.preflight, observed.job) if job is not None)
    seconds_left = _seconds_to_live(subject, now)
    if seconds_left is None or not jobs:
        return Decision(running, status)
    if seconds_left > 0:
        return Decision(running, status, requeue_after_seconds=seconds_left)
    return Decision(tuple(Delete(job.name, job.uid) for job in jobs if not job.is_deleting), status)


def _seen(subject: Subject) -> LoraTrainingStatus | None:
    """The same status, about the present generation: mutable fields may change after the end."""
    if subject.status.observed_generation == subject.generation:
        return None
    return subject.status.model_copy(update={"observed_generation": subject.generation})


def _seconds_to_live(subject: Subject, now: datetime) -> float | None:
    ttl = subject.ttl_seconds
    if ttl is None or subject.status.completion_time is None:
        return None
    return (parse_time(subject.status.completion_time) + timedelta(seconds=ttl) - now).total_seconds()
