"""What becomes of pods that train together when one of them fails; pure. Used by `reconcile` and `status`.

The Job of several pods ends with the first that fails, for the others cannot go on without it. Whether that ends the
training, counts as a failure or is nobody's fault is told by what all of them said, and judged once all have ended.
"""

from dataclasses import replace
from datetime import datetime

from lora_api.exit_codes import codes_with
from lora_operator.deadlines import seconds_to_save
from lora_operator.observed import Job, Observed, Pod
from lora_operator.outcome import DEADLINE_EXCEEDED
from lora_operator.subject import Subject
from lora_operator.timestamps import parse_time

RETRY_SECONDS, LONGEST_RETRY_SECONDS = 10.0, 600.0
"""How long the Job controller waits after a first failure, and at most; with each further one it waits twice as long
(https://kubernetes.io/docs/concepts/workloads/controllers/job/#pod-backoff-failure-policy)."""


def follow_up(subject: Subject, observed: Observed, now: datetime) -> Observed:
    """What is seen, with the verdict on a Job of several pods that failed: the last one, or one that another follows.

    A Job that another follows is no longer the current one, as if somebody had deleted it.
    """
    job = observed.job
    if job is None or not job.is_gang or job.failing is None or job.failing.reason == DEADLINE_EXCEEDED:
        return observed
    if seconds_to_save(observed.job_pods, since=job.failing.time, now=now) > 0:
        return observed
    judged = replace(observed, gang_failure=_failure_of(observed.job_pods))
    if _is_final(subject, judged, job):
        return judged
    return replace(judged, job=None, failed_job=job)


def _failure_of(pods: tuple[Pod, ...]) -> Pod | None:
    """The pod whose end is the cause: a lost one makes the others fail, and so it is not asked what they died of."""
    failed = [pod for pod in sorted(pods, key=lambda pod: pod.index) if pod.phase == "Failed"]
    fatal = next((pod for pod in failed if _is_fatal(pod) and not pod.is_disrupted), None)
    if fatal is not None or any(pod.is_disrupted for pod in pods):
        return fatal
    return next((pod for pod in failed if not pod.is_interrupted and not pod.was_stopped), None)


def _is_final(subject: Subject, judged: Observed, job: Job) -> bool:
    """Whether no further attempt is worth it, or allowed."""
    cause, training = judged.gang_failure, subject.training
    if cause is None:
        return False
    known = subject.status.attempts.failures if subject.status.attempts else 0
    failures = max(known, job.failures_before + 1)
    return _is_fatal(cause) or (training is not None and failures > training.spec.retry.max_failures)


def _is_fatal(pod: Pod) -> bool:
    """Whether only a person can cure what it ended with."""
    return pod.terminated is not None and pod.terminated.exit_code in codes_with("FailJob")


def is_in_the_way(observed: Observed, now: datetime) -> bool:
    """Whether pods of a Job that is gone may still write: a second writer must wait for them.

    Of pods that train together only the first writes. Others may stand for ever on a dead node; for their end is waited
    only as long as a kubelet takes that is there.
    """
    failing = observed.failed_job.failing if observed.failed_job is not None else None
    since = failing.time if failing is not None else None
    left = [pod for pod in observed.pods if not pod.is_over]
    return any(pod.index == 0 for pod in left) or seconds_to_save(left, since=since, now=now) > 0


def seconds_to_retry(observed: Observed, failures: int, now: datetime) -> float:
    """How long the next attempt is still to wait after a failure; 0 after an interruption."""
    job = observed.failed_job
    if job is None or job.failing is None or observed.gang_failure is None:
        return 0.0
    delay = min(RETRY_SECONDS * 2.0 ** (min(failures, 32) - 1), LONGEST_RETRY_SECONDS)
    return max(0.0, delay - (now - parse_time(job.failing.time)).total_seconds())


def pods_of_attempts(observed: Observed) -> tuple[Pod, ...]:
    """One pod for each start of the training, oldest first: of several that train together the one that tells most."""
    job = observed.newest_job
    if job is None or not job.is_gang:
        return observed.job_pods
    by_job: dict[str, list[Pod]] = {}
    for pod in observed.training_pods:
        by_job.setdefault(pod.job_uid, []).append(pod)
    return tuple(min(pods, key=_rank) for pods in by_job.values())


def _rank(pod: Pod) -> tuple[bool, bool, int]:
    """A pod at work comes before one that ended by itself, that before others, and a lower index before a higher."""
    is_at_work, has_ended = pod.has_begun and not pod.is_over, pod.is_over and not pod.is_deleting
    return not is_at_work, not has_ended, pod.index
