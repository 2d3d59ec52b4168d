"""Decides what is to be done about one training; pure. Used by `controller`, which carries it out.

The same world gives the same answer, whoever asks and however often.
"""

from datetime import datetime

from lora_api import LoraTrainingStatus
from lora_api.status import Attempts, ConditionType, PodCount
from lora_operator import manifests
from lora_operator.acceptance import judge
from lora_operator.attempts import is_time_over
from lora_operator.deadlines import seconds_to_next, seconds_to_save
from lora_operator.decision import Action, Create, Decision, Delete, PatchJob
from lora_operator.finished import decide_finished
from lora_operator.gang import follow_up, is_in_the_way, seconds_to_retry
from lora_operator.observed import Observed
from lora_operator.outcome import MOST_IN_VAIN
from lora_operator.profiles import Profiles
from lora_operator.stall import seconds_to_stall
from lora_operator.status import derive_status, is_finished
from lora_operator.subject import Subject
from lora_operator.telling import seconds_too_early, tell
from lora_operator.timestamps import parse_time
from lora_operator.view import Acceptance

WAIT_FOR_PODS_SECONDS = 5.0
KEPT_ATTEMPTS = MOST_IN_VAIN
"""So many Jobs before the newest are kept, of pods that train together: what they show is still needed."""
WAIT_FOR_START_SECONDS = 5.0
"""A pod that does not start may have a reason that no watch tells."""
LONGEST_WAIT_FOR_START_SECONDS = 60.0
WAIT_SHARE = 0.5
"""Each such look asks the API server for events: it is the rarer the longer the pod has waited already."""


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
        return decide_finished(
            subject, observed, profiles=profiles, now=now, status_interval_seconds=status_interval_seconds
        )
    observed = follow_up(subject, observed, now)
    acceptance = judge(subject, observed, profiles)
    status = derive_status(subject, observed, acceptance=acceptance, now=now)
    if is_finished(status):
        # Jobs that still run are stopped when the end is written.
        return tell(subject, status, actions=(), wait_seconds=0.0)
    start = _start(subject, observed, acceptance, profiles, status=status, now=now)
    if start and not (observed.failed_job and _is_news(subject, status)):
        return Decision(start)
    actions = _adjust(subject, observed, status, now)
    if start or (any(map(_stops_or_starts, actions)) and _made(status) > _made(subject.status)):
        # Whoever looks next may find neither the pods of the Job nor a word of them: first they are told of.
        return tell(subject, status, actions=(), wait_seconds=0.0)
    wait = _seconds_until_due(subject, observed, status, now)
    if (early := seconds_too_early(subject, observed, status, now, status_interval_seconds)) is not None:
        wait = early if wait is None else min(wait, early)
        return Decision(actions, requeue_after_seconds=wait)
    return tell(subject, status, actions=actions, wait_seconds=wait)


def _start(
    subject: Subject,
    observed: Observed,
    acceptance: Acceptance,
    profiles: Profiles,
    *,
    status: LoraTrainingStatus,
    now: datetime,
) -> tuple[Create, ...]:
    """What is to be created now: the check of the data, or the next attempt."""
    if subject.training is None or not acceptance.accepted or observed.refusal or observed.job is not None:
        return ()
    if is_in_the_way(observed, now) or _is_held(subject, status) or _seconds_to_retry(observed, status, now):
        return ()
    profile = profiles[subject.training.spec.profile]
    training = manifests.resolve(subject.training, profile)
    check = observed.preflight
    if check is not None and check.end is None:
        # Whatever the profile says by now: one Job at a time.
        return ()
    if check is None and manifests.needs_preflight_job(training.spec, profile) and not _is_checked(subject):
        return (Create(manifests.build_preflight_job(training, profile)),)
    attempt = (status.attempts.number if status.attempts else 0) + 1
    job = manifests.build_job(training, profile, attempt=attempt, used=_used(status))
    service = manifests.build_service(training)
    return (Create(job),) if service is None else (Create(service), Create(job))


def _seconds_to_retry(observed: Observed, status: LoraTrainingStatus, now: datetime) -> float:
    return seconds_to_retry(observed, status.attempts.failures if status.attempts else 0, now)


def _is_checked(subject: Subject) -> bool:
    """Whether the data were checked before: that is never done twice."""
    ready = any(c.type == ConditionType.DATASET_READY and c.status == "True" for c in subject.status.conditions)
    return ready or subject.attempt > 0


def _is_held(subject: Subject, status: LoraTrainingStatus) -> bool:
    """Whether a paused training waits without a Job: a queue would set one going that is merely suspended.

    One of several pods would make only those anew that had not succeeded, and they would wait for the others.
    """
    spec = subject.training.spec if subject.training else None
    if spec is None or not spec.suspend:
        return False
    return spec.scheduling.queue_name is not None or status.queue is not None or spec.parallelism.nodes > 1


def _is_to_stop(subject: Subject, status: LoraTrainingStatus, now: datetime) -> bool:
    """Whether it is cancelled, or its running time is used up, although no end was told yet."""
    training, attempts = subject.training, status.attempts
    is_over = training is not None and attempts is not None and is_time_over(training.spec, attempts, now)
    return subject.is_cancelled or is_over


def _used(status: LoraTrainingStatus) -> manifests.Used:
    attempts = status.attempts or Attempts()
    save_seconds = status.saved_state.save_seconds if status.saved_state else None
    return manifests.Used(attempts.failures, attempts.active_seconds, save_seconds)


def _adjust(subject: Subject, observed: Observed, status: LoraTrainingStatus, now: datetime) -> tuple[Action, ...]:
    """Brings the Jobs that are there in line with the spec."""
    job, surplus = observed.current_job, _delete_surplus(subject, observed)
    if job is None or not job.is_active:
        return surplus
    if _is_to_stop(subject, status, now) and not job.is_failing:
        # Its pod saves before the end is told.
        return (*surplus, Delete(job.name, job.uid))
    if subject.training is None:
        return surplus
    queued = observed.queue is not None
    if _is_held(subject, status) and (queued or job.queue_name or job.is_gang):
        return (*surplus, Delete(job.name, job.uid))
    if job.is_gang and job.suspend and job.succeeded:
        # Its queue stopped it after some pods had come to their end, and it would not make those again.
        return (*surplus, Delete(job.name, job.uid))
    patch = manifests.build_job_patch(subject.training.spec, job, _used(status), queued=queued)
    return (*surplus, PatchJob(job.name, patch)) if patch else surplus


def _stops_or_starts(action: Action) -> bool:
    """Whether pods come or go by it."""
    return isinstance(action, Delete) or (isinstance(action, PatchJob) and "suspend" in action.patch["spec"])


def _is_news(subject: Subject, status: LoraTrainingStatus) -> bool:
    """Whether the status counts more than is told: what failed before is not seen for ever."""
    return _counts(status) != _counts(subject.status)


def _counts(status: LoraTrainingStatus) -> tuple[int, ...]:
    attempts = status.attempts or Attempts()
    pods = attempts.pods or PodCount()
    return attempts.number, attempts.failures, attempts.preemptions, pods.made, pods.paused, pods.evicted


def _made(status: LoraTrainingStatus) -> int:
    """Pods that the status tells of."""
    return status.attempts.pods.made if status.attempts and status.attempts.pods else 0


def _delete_surplus(subject: Subject, observed: Observed) -> tuple[Action, ...]:
    """Jobs that run and should not, and those of attempts that nobody will look into any more."""
    old = (
        job for job in observed.older_jobs[:-KEPT_ATTEMPTS] if job.is_gang and not job.is_active and not job.is_deleting
    )
    return tuple(Delete(job.name, job.uid) for job in (*observed.surplus_jobs(False), *old))


def _seconds_until_due(subject: Subject, observed: Observed, status: LoraTrainingStatus, now: datetime) -> float | None:
    """When to look again although nothing changed; None: at the next round over all trainings."""
    waits: list[float] = []
    job, pods = observed.current_job, observed.newest_pods
    lacks_pods = job is not None and len(pods) < job.nodes and job.is_active and not job.suspend
    if lacks_pods or any(pod.waiting is not None for pod in pods):
        waits.append(_seconds_to_ask(observed, now))
    if (silence := seconds_to_stall(subject, observed, now)) is not None:
        waits.append(silence)
    is_stopping = _is_to_stop(subject, status, now)
    if is_stopping or (job is None and observed.pods):
        waits.append(WAIT_FOR_PODS_SECONDS)
    waits.append(_seconds_to_retry(observed, status, now))
    if job is not None and job.failing is not None:
        waits.append(seconds_to_save(observed.job_pods, since=job.failing.time, now=now))
    elif subject.training is not None and status.attempts is not None and not is_stopping:
        deadline = seconds_to_next(subject.training.spec, status.attempts, now)
        waits += [deadline] if deadline is not None else []
    return min(filter(None, waits), default=None)


def _seconds_to_ask(observed: Observed, now: datetime) -> float:
    """When to ask again why no pod starts."""
    job, waiting = observed.current_job, [pod.created for pod in observed.newest_pods if pod.waiting is not None]
    since = max(waiting) if waiting else job.start_time if job is not None else None
    waited = (now - parse_time(since)).total_seconds() if since else 0.0
    return min(max(WAIT_FOR_START_SECONDS, WAIT_SHARE * waited), LONGEST_WAIT_FOR_START_SECONDS)
