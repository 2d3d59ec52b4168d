"""Decides about the Job that evaluates a training that has succeeded once more; pure. Used by `finished`.

At most one is there at a time, and one for each wish: what failed is not tried again before the wish changes.
"""

from dataclasses import replace
from datetime import datetime

from lora_api import LoraTraining, LoraTrainingSpec, evaluation_digest, names
from lora_operator import manifests
from lora_operator.acceptance import judge
from lora_operator.deadlines import seconds_to_save
from lora_operator.decision import Action, Create, Decision, Delete, PatchJob
from lora_operator.evaluation_status import derive_evaluation, is_begun, is_over
from lora_operator.observed import Job, Observed
from lora_operator.profiles import Profile, Profiles
from lora_operator.stall import seconds_to_stall
from lora_operator.subject import Subject
from lora_operator.telling import seconds_too_early, tell

WAIT_SECONDS = 5.0
"""A pod that does not start may have a reason that no watch tells, and one that ends may take its time."""


def decide_evaluation(
    subject: Subject, observed: Observed, *, profiles: Profiles, now: datetime, status_interval_seconds: float
) -> Decision:
    """What is to be done so that the training is evaluated as its spec asks for."""
    seen, obsolete = _sort_out(subject, observed)
    gone: tuple[Action, ...] = tuple(Delete(job.name, job.uid) for job in obsolete if not job.is_deleting)
    acceptance = judge(subject, seen, profiles)
    status = derive_evaluation(subject, seen, acceptance=acceptance, now=now)
    if not is_begun(subject.status) or is_over(status):
        # That the old results no longer hold is known before anything writes over them.
        return tell(subject, status, actions=gone, wait_seconds=0.0)
    actions = gone
    if subject.training is not None and acceptance.accepted:
        profile = profiles[subject.training.spec.profile]
        training = manifests.resolve(subject.training, profile)
        if not obsolete and (start := _start(subject, seen, training, profile)) is not None:
            return Decision((start,))
        actions += _adjust(training.spec, seen)
    wait = _seconds_until_due(subject, seen, now)
    if (early := seconds_too_early(subject, seen, status, now, status_interval_seconds)) is not None:
        return Decision(actions, requeue_after_seconds=early if wait is None else min(wait, early))
    return tell(subject, status, actions=actions, wait_seconds=wait)


def _sort_out(subject: Subject, observed: Observed) -> tuple[Observed, tuple[Job, ...]]:
    """What is seen of the Job for the present wish, and the Jobs for others."""
    training, job = subject.training, observed.job
    old = tuple(job for job in observed.older_jobs if job.stage == names.STAGE_EVALUATION)
    is_wanted = training is not None and training.spec.evaluation is not None and not subject.is_cancelled
    wanted = evaluation_digest(training.spec) if training is not None and is_wanted else None
    if job is None or job.evaluation_digest == wanted:
        return observed, old
    return replace(observed, job=None, older_jobs=(*observed.older_jobs, job), report=None), (*old, job)


def _start(subject: Subject, observed: Observed, training: LoraTraining, profile: Profile) -> Create | None:
    """The Job, if it is to be created now."""
    spec = training.spec
    if observed.job is not None or observed.refusal or spec.evaluation is None or spec.suspend or spec.cancel:
        return None
    if any(not pod.is_over for pod in observed.pods):
        # Pods of a Job that is gone still end: a second writer must wait for them.
        return None
    job = manifests.build_evaluation_job(training, profile, generation=subject.generation, attempts=subject.attempt)
    return Create(job)


def _adjust(spec: LoraTrainingSpec, observed: Observed) -> tuple[Action, ...]:
    """Brings the Job in line with the fields that may change."""
    job = observed.job
    if job is None or not job.is_active:
        return ()
    queued = observed.queue is not None or bool(job.queue_name)
    if spec.suspend and queued:
        return (Delete(job.name, job.uid),)
    patch = manifests.build_job_patch(spec, job, manifests.UNUSED, queued=queued)
    return (PatchJob(job.name, patch),) if patch else ()


def _seconds_until_due(subject: Subject, observed: Observed, now: datetime) -> float | None:
    """When to look again although nothing changed; None: at the next round over all trainings."""
    job, pod = observed.job, observed.pod
    if job is None:
        return WAIT_SECONDS if any(not pod.is_over for pod in observed.pods) else None
    if job.failing is not None:
        return seconds_to_save(observed.job_pods, since=job.failing.time, now=now) or None
    if (pod is None or pod.waiting is not None) and job.is_active and not job.suspend:
        return WAIT_SECONDS
    return seconds_to_stall(subject, observed, now)
