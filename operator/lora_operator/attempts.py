"""What a training took: attempts, failures, interruptions, lost steps, running time; pure. For `status`, `deadlines`.

A pod may be gone before its end was seen. What it was then follows from what is known of all others: of the pods that
were made, those that neither run nor completed nor failed were paused or interrupted.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from lora_api import LoraTrainingSpec, ProgressReport, TerminationMessage
from lora_api.status import Attempts, LoraTrainingStatus, PodCount
from lora_operator.observed import Job, Observed, Pod
from lora_operator.subject import Subject
from lora_operator.timestamps import format_time, parse_time

JOB_PATIENCE_SECONDS = 10.0
"""The Job's own deadline comes first, and leaves it in place; a Job that a queue restarts has none that fits."""
LARGEST = 2**53 - 1
"""The largest number that the status holds; what pods tell of their steps is not trusted."""


def derive_attempts(
    subject: Subject, observed: Observed, *, report: ProgressReport | None, evictions: int, now: datetime
) -> Attempts:
    """The numbers at `now`; `evictions`: interruptions by a queue that the status does not know of."""
    status, job = subject.status, observed.newest_job
    before = status.attempts or Attempts()
    known = before.pods or PodCount()
    # Of pods that train together the first stands for all: they begin and end as one.
    pods = tuple(pod for pod in observed.training_pods if pod.created >= subject.created and pod.index == 0)
    failures = max(before.failures, _counted_failures(job, observed) if job else 0)
    count = _count_pods(pods, known, report, has_begun=_has_begun(job, observed, pods))
    interrupted = _missing(observed, pods, count.made, failures) - known.paused
    told = before.preemptions - known.evicted
    active_seconds, active_since = _running_time(status, observed, now)
    time = Attempts(active_seconds=active_seconds, active_since=active_since)
    # Whoever pauses a training, or ends its time, ends its pod: that is no interruption.
    is_wanted = is_paused(subject, observed.job) or _is_time_over(subject, time, now)
    explained = interrupted - told if is_wanted else min(interrupted - told, evictions)
    paused = known.paused + max(0, explained)
    evicted = known.evicted + evictions
    resumption = _resumption(status, pods, report, known)
    count = count.model_copy(update={"paused": paused, "evicted": evicted, "resumed": resumption.pod})
    return Attempts(
        number=max(job.attempt if job else 0, before.number),
        failures=failures,
        preemptions=max(0, interrupted - max(0, explained)) + evicted,
        resumed_from_step=resumption.from_step,
        lost_steps=min(resumption.lost_steps, LARGEST),
        active_seconds=active_seconds,
        active_since=active_since,
        waiting_since=_waiting_since(subject, observed, has_begun=count.begun, now=now),
        pods=count,
    )


def stop_clocks(attempts: Attempts, time: str) -> Attempts:
    """The numbers at the end of the training."""
    since = attempts.active_since
    used = attempts.active_seconds + (_seconds(since, parse_time(time)) if since else 0)
    return attempts.model_copy(update={"active_seconds": used, "active_since": None, "waiting_since": None})


def seconds_to_run(spec: LoraTrainingSpec, attempts: Attempts, now: datetime) -> float | None:
    """Running time left of `limits.activeSeconds`, negative when it is over; None: no limit."""
    limit = spec.limits.active_seconds
    if limit is None:
        return None
    left = float(limit - attempts.active_seconds)
    if attempts.active_since is None:
        return left
    return left - (now - parse_time(attempts.active_since)).total_seconds() + JOB_PATIENCE_SECONDS


def is_time_over(spec: LoraTrainingSpec, attempts: Attempts, now: datetime) -> bool:
    """Whether the training has had all of its running time; never in a pause, for its limit can still be raised."""
    left = seconds_to_run(spec, attempts, now)
    return left is not None and left <= 0 and not spec.suspend


def is_paused(subject: Subject, job: Job | None) -> bool:
    """Whether pods end because somebody wants it so."""
    asked = subject.is_cancelled or (subject.training is not None and subject.training.spec.suspend)
    return asked or (job is not None and (job.suspend or job.is_failing))


def _is_time_over(subject: Subject, time: Attempts, now: datetime) -> bool:
    return subject.training is not None and is_time_over(subject.training.spec, time, now)


def _counted_failures(job: Job, observed: Observed) -> int:
    """Failures of this Job and of those before it."""
    if job.is_gang:
        return job.failures_before + (observed.gang_failure is not None)
    return job.failures_before + job.failed


def _has_begun(job: Job | None, observed: Observed, pods: tuple[Pod, ...]) -> bool:
    """Whether the work of a pod began, and of all others with it if several train together."""
    if job is None or not job.is_gang:
        return any(pod.has_begun for pod in pods)
    own = (pod for pod in observed.training_pods if pod.job_uid == job.uid)
    return len({pod.index for pod in own if pod.has_begun}) == job.nodes


def _count_pods(pods: tuple[Pod, ...], known: PodCount, report: ProgressReport | None, *, has_begun: bool) -> PodCount:
    """Counts the pods that are newer than all that were counted."""
    until = known.until or ""
    new = [pod for pod in pods if pod.created > until or (pod.created == until and pod.uid not in known.newest)]
    newest = max((pod.created for pod in new), default=until)
    of_that_second = tuple(pod.uid for pod in new if pod.created == newest)
    if newest == until:
        of_that_second = (*known.newest, *of_that_second)
    # The trainer knows of pods that came and went while nobody watched.
    starts = report.starts if report and report.starts else 0
    return PodCount(
        made=max(known.made + len(new), starts),
        begun=known.begun or has_begun,
        until=newest or None,
        newest=of_that_second[-16:],
    )


def _missing(observed: Observed, pods: tuple[Pod, ...], made: int, failures: int) -> int:
    """Pods that neither run nor completed nor failed."""
    job = observed.newest_job
    # Of pods that train together all have to come to the end, else none has.
    completed = sum(pod.phase == "Succeeded" and not pod.has_peers for pod in pods)
    if job is not None and job.end is not None and job.end.succeeded:
        completed = max(1, completed)
    # A pod that is told to stop is explained now: by the time it is gone its Job may have been set going again.
    alive = {pod.job_uid if pod.has_peers else pod.uid for pod in pods if not pod.is_over and not pod.is_deleting}
    if job is not None and _is_undecided(observed, pods):
        alive.add(job.uid)
    return max(0, made - len(alive) - completed - max(failures, _failed_before_told(job, observed, pods)))


def _is_undecided(observed: Observed, pods: tuple[Pod, ...]) -> bool:
    """Whether pods that train together may be coming to an end, and nobody knows yet what that is."""
    job = observed.job
    if job is None or not job.is_gang or job.suspend or job.is_deleting or observed.gang_failure is not None:
        return False
    return job.is_failing or (job.end is None and any(pod.job_uid == job.uid for pod in pods))


def _failed_before_told(job: Job | None, observed: Observed, pods: Iterable[Pod]) -> int:
    """Failures, those included that the Job has not counted yet."""
    if job is None:
        return 0
    if job.is_gang:
        return _counted_failures(job, observed)
    seen = sum(
        pod.phase == "Failed" and not pod.is_interrupted and not pod.is_deleting
        for pod in pods
        if pod.job_uid == job.uid
    )
    return job.failures_before + max(job.failed, seen)


@dataclass(frozen=True)
class _Resumption:
    """What is known of how pods went on from each other."""

    pod: str
    """Uid of the newest pod that went on from something."""
    from_step: int | None
    lost_steps: int
    """Steps that had to be made again, in all."""


def _resumption(
    status: LoraTrainingStatus, pods: tuple[Pod, ...], report: ProgressReport | None, known: PodCount
) -> _Resumption:
    """Compares the first step of every pod that was not looked at yet with the last step before it."""
    before = status.attempts or Attempts()
    found = _Resumption(known.resumed, before.resumed_from_step, before.lost_steps)
    # Progress and the pod it is of are remembered together, so what is remembered is that pod's.
    last = status.progress.step if status.progress and before.pods else 0
    at = next((index for index, pod in enumerate(pods) if pod.uid == known.resumed), None)
    if at is not None:
        last = max(last, _last_step(_word(pods[at])) or 0)
    elif known.resumed:
        at = len(pods) - 2
    for pod in pods[0 if at is None else at + 1 :]:
        said = report if pod.uid == pods[-1].uid else _word(pod)
        end = _last_step(said)
        if said is None or (end is None and said.resumed_from_step is None):
            continue
        first = said.resumed_from_step or 0
        found = _Resumption(pod.uid, said.resumed_from_step, found.lost_steps + max(0, last - first))
        last = first if end is None else end
    return found


def _word(pod: Pod) -> TerminationMessage | None:
    return pod.terminated.message if pod.terminated else None


def _last_step(said: ProgressReport | None) -> int | None:
    """The last step that a pod tells of; None: it made none."""
    if isinstance(said, TerminationMessage) and said.step is not None:
        return said.step
    return said.progress.step if said is not None and said.progress is not None else None


def _running_time(status: LoraTrainingStatus, observed: Observed, now: datetime) -> tuple[int, str | None]:
    """Seconds of all running times that are over, and since when one goes on; `stop_clocks` adds the last one."""
    before, job = status.attempts or Attempts(), observed.job
    since = job.start_time if job is not None else None
    used, old = before.active_seconds, before.active_since
    if old is not None and old != since:
        used += _seconds(old, _end_of_running(status, observed, now))
    return used, since


def _end_of_running(status: LoraTrainingStatus, observed: Observed, now: datetime) -> datetime:
    """When the running time that the status tells of was over."""
    job, before = observed.job, status.attempts or Attempts()
    if job is None:
        failed = observed.failed_job
        return parse_time(failed.failing.time) if failed is not None and failed.failing is not None else now
    if job.attempt > before.number:
        return parse_time(job.created)
    if job.end is not None:
        return parse_time(job.end.time)
    if job.suspended_time:
        return parse_time(job.suspended_time)
    # Stopped and started again while nobody watched: it ran at least until it was last heard of.
    heard = status.progress.updated_time if status.progress else None
    return min(now, parse_time(heard)) if heard else parse_time(before.active_since or format_time(now))


def _seconds(start: str, end: datetime) -> int:
    return max(0, int((end - parse_time(start)).total_seconds()))


def _waiting_since(subject: Subject, observed: Observed, *, has_begun: bool, now: datetime) -> str | None:
    """Since when the first start has been waited for; None while the data are checked, and in a pause."""
    check, before = observed.preflight, subject.status.attempts
    asked = subject.training is not None and subject.training.spec.suspend
    checking = check is not None and check.end is None and any(pod.has_begun for pod in observed.preflight_pods)
    if has_begun or asked or (checking and observed.job is None):
        return None
    if before is not None and before.waiting_since is not None:
        return before.waiting_since
    if before is None:
        return subject.created
    if check is not None and check.end is not None and observed.job is not None and before.number == 0:
        return check.end.time
    return format_time(now)
