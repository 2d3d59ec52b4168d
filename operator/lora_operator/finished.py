"""Decides what is to be done about a training that has ended: it never trains again; pure. Used by `reconcile`."""

from datetime import datetime, timedelta

from lora_api import LoraTrainingStatus, names
from lora_operator.decision import Decision, Delete, DeleteService
from lora_operator.evaluation import decide_evaluation
from lora_operator.observed import Job, Observed
from lora_operator.profiles import Profiles
from lora_operator.subject import Subject
from lora_operator.timestamps import parse_time


def decide_finished(
    subject: Subject, observed: Observed, *, profiles: Profiles, now: datetime, status_interval_seconds: float
) -> Decision:
    """Its children go when their time is over; if it has succeeded, it may have to be evaluated again."""
    jobs = tuple(job for job in (*observed.older_jobs, observed.preflight, observed.job) if job is not None)
    left = {job: seconds for job in jobs if (seconds := _seconds_to_live(subject, job, now)) is not None}
    expired = tuple(job for job, seconds in left.items() if seconds <= 0 and not job.is_deleting)
    surplus = tuple(job for job in observed.surplus_jobs(subject.is_settled) if job not in expired)
    # The Service first: of a Job that is gone nobody knows that it had one.
    services = (DeleteService(names.service_name(subject.key.name)),) if any(job.is_gang for job in expired) else ()
    gone = (*services, *(Delete(job.name, job.uid) for job in (*surplus, *expired)))
    wait = min((seconds for seconds in left.values() if seconds > 0), default=None)
    if subject.is_settled:
        return Decision(gone, _seen(subject), requeue_after_seconds=wait)
    found = decide_evaluation(
        subject, observed, profiles=profiles, now=now, status_interval_seconds=status_interval_seconds
    )
    waits = [seconds for seconds in (wait, found.requeue_after_seconds) if seconds is not None]
    actions = (*gone, *(action for action in found.actions if action not in gone))
    return Decision(actions, found.status, found.events, min(waits, default=None))


def _seen(subject: Subject) -> LoraTrainingStatus | None:
    """The same status, about the present generation: mutable fields may change after the end."""
    if subject.status.observed_generation == subject.generation:
        return None
    return subject.status.model_copy(update={"observed_generation": subject.generation})


def _seconds_to_live(subject: Subject, job: Job, now: datetime) -> float | None:
    """Time until the Job is to be removed; None: it stays, or is at work."""
    ended = subject.status.completion_time
    if job.stage == names.STAGE_EVALUATION:
        # What is not told yet would be made again without its Job.
        ended = job.end.time if job.end is not None and subject.is_settled else None
    if subject.ttl_seconds is None or ended is None:
        return None
    return (parse_time(ended) + timedelta(seconds=subject.ttl_seconds) - now).total_seconds()
