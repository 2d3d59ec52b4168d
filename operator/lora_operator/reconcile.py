"""Decides what is to be done about one training; pure. Used by `controller`, which carries it out.

The same world gives the same answer, whoever asks and however often.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from lora_api import LoraTraining, LoraTrainingStatus, names
from lora_api.status import Phase
from lora_operator import manifests
from lora_operator.changes import Event, derive_events
from lora_operator.observed import Job, Manifest, Observed, Subject, parse_time
from lora_operator.profiles import Profiles
from lora_operator.status import derive_status, is_worth_writing
from lora_operator.view import ACCEPTED, Acceptance

WAIT_FOR_PODS_SECONDS = 5.0
WAIT_FOR_START_SECONDS = 5.0
"""A pod that does not start may have a reason that no watch tells."""


@dataclass(frozen=True)
class Create:
    """Create a child unless it is there."""

    manifest: Manifest


@dataclass(frozen=True)
class PatchJob:
    """Change mutable fields of a Job."""

    name: str
    patch: Manifest


@dataclass(frozen=True)
class Delete:
    """Delete a child and what it owns."""

    kind: Literal["Job", "ConfigMap"]
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


def decide(subject: Subject, observed: Observed, *, profiles: Profiles, now: datetime) -> Decision:
    """What is to be done about the training, given what is seen of its children."""
    if subject.is_deleting:
        # Its children name it as their owner: the garbage collector removes them, with or without us.
        return Decision()
    if subject.is_finished:
        return _decide_finished(subject, observed, now)
    acceptance = _accept(subject, profiles)
    if observed.job is not None:
        actions = _delete_surplus(subject, observed) + _adjust(subject, observed.job, now)
        return _answer(subject, observed, acceptance=acceptance, now=now, actions=actions)
    if any(not pod.is_over for pod in observed.pods):
        # Pods of a Job that is gone still end: a second writer must wait for them.
        answer = _answer(subject, observed, acceptance=acceptance, now=now)
        return Decision((), answer.status, answer.events, WAIT_FOR_PODS_SECONDS)
    if subject.training is None or not acceptance.accepted or observed.refusal:
        return _answer(subject, observed, acceptance=acceptance, now=now)
    return Decision(_start(subject.training, profiles, attempt=subject.attempt + 1))


def _accept(subject: Subject, profiles: Profiles) -> Acceptance:
    if subject.training is None:
        return Acceptance(False, "InvalidSpec", subject.problem)
    wanted = subject.training.spec.profile
    if wanted not in profiles:
        known = ", ".join(sorted(profiles))
        message = f"spec.profile is {wanted}, but the operator has no such profile; use one of {known}, or add it"
        return Acceptance(False, "ProfileNotFound", message)
    return ACCEPTED


def _start(training: LoraTraining, profiles: Profiles, *, attempt: int) -> tuple[Action, ...]:
    profile = profiles[training.spec.profile]
    resolved = manifests.resolve(training, profile)
    config_map = manifests.build_config_map(resolved)
    return Create(config_map), Create(manifests.build_job(resolved, profile, attempt))


def _adjust(subject: Subject, job: Job, now: datetime) -> tuple[Action, ...]:
    if subject.training is None or job.end is not None or job.is_deleting:
        return ()
    patch = manifests.build_job_patch(subject.training.spec, job, now)
    return (PatchJob(job.name, patch),) if patch else ()


def _delete_surplus(subject: Subject, observed: Observed) -> tuple[Action, ...]:
    return tuple(Delete("Job", job.name, job.uid) for job in observed.surplus_jobs(subject.is_finished))


def _answer(
    subject: Subject,
    observed: Observed,
    *,
    acceptance: Acceptance,
    now: datetime,
    actions: tuple[Action, ...] = (),
) -> Decision:
    status = derive_status(subject, observed, acceptance=acceptance, now=now)
    job, pod = observed.current_job, observed.pod
    waits = pod.waiting is not None if pod else job is not None and job.is_active and not job.suspend
    again = WAIT_FOR_START_SECONDS if waits else None
    if not is_worth_writing(subject.status, status):
        return Decision(actions, requeue_after_seconds=again)
    if status.phase in {Phase.SUCCEEDED, Phase.FAILED}:
        # Its time to live begins.
        again = 0.0
    return Decision(actions, status, derive_events(subject.status, status), again)


def _decide_finished(subject: Subject, observed: Observed, now: datetime) -> Decision:
    """A finished training never trains again; its children go when their time is over."""
    status = _seen(subject)
    running = _delete_surplus(subject, observed)
    seconds_left = _seconds_to_live(subject, now)
    if seconds_left is None or observed.job is None:
        return Decision(running, status)
    if seconds_left > 0:
        return Decision(running, status, requeue_after_seconds=seconds_left)
    # The Job goes last: as long as it is there, an interrupted clean-up starts again.
    config_map = Delete("ConfigMap", names.config_map_name(subject.key.name))
    return Decision((config_map, Delete("Job", observed.job.name, observed.job.uid)), status)


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
