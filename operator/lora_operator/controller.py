"""Carries out what `reconcile` decides: observes, acts, writes the status. Run by `application`."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from lora_api import LoraTrainingStatus, names
from lora_api.status import ConditionType
from lora_operator.cache import Cache
from lora_operator.changes import Event
from lora_operator.cluster import EVENTS, JOBS, PODS, SERVICES, TRAININGS, Cluster, merge_diff
from lora_operator.decision import Action, Create, Decision, Delete, DeleteService, PatchJob
from lora_operator.errors import ClusterUnavailable, Conflict, OperatorError, Refused
from lora_operator.figures import Known, derive_figures
from lora_operator.metrics import Metrics
from lora_operator.observed import CREATING_REASONS, Job, Observed, Pod, controller_uid
from lora_operator.pod_problems import POD_REFUSALS
from lora_operator.profiles import ProfileFile
from lora_operator.queue import WorkQueue
from lora_operator.reconcile import decide
from lora_operator.recorder import EventRecorder
from lora_operator.status import without_report
from lora_operator.subject import Key, Manifest, Subject
from lora_operator.timestamps import parse_time
from lora_operator.workloads import WorkloadReader

log = logging.getLogger(__name__)

CONFLICT_SECONDS = 0.2
LAST_WORD_TRIES = 5
"""So often a refused last status is tried as it is, before it is written without the trainer's report."""
MOUNT_PATIENCE_SECONDS = 3.0
"""A pod whose volumes are not mounted after this time is asked for the reason."""
POD_PATIENCE_SECONDS = 3.0
"""A Job that has no pod after this time is asked for the reason."""
PODS_PER_SECOND = 20
"""What kube-controller-manager makes at most unless it is told otherwise (--kube-api-qps): in a burst Jobs have no pods
because it is busy, and to ask for each would keep the server busier still."""


def utc_now() -> datetime:
    """The time, as the decisions see it."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class World:
    """Everything that the controller works on."""

    cluster: Cluster
    cache: Cache
    queue: WorkQueue[Key]
    profiles: ProfileFile
    metrics: Metrics
    recorder: EventRecorder


class Controller:
    """Looks at one training at a time per worker, until nothing is left to do about it."""

    def __init__(
        self,
        world: World,
        *,
        resync_seconds: float,
        status_interval_seconds: float = 0.0,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._world = world
        self._resync_seconds = resync_seconds
        self._status_interval_seconds = status_interval_seconds
        self._clock = clock
        self._written: dict[Key, datetime] = {}
        self._podless: set[Key] = set()
        """Trainings whose Jobs wait for pods."""
        self._workloads = WorkloadReader(world.cluster, now=clock)

    async def work(self) -> None:
        """Takes keys from the queue for ever."""
        queue = self._world.queue
        while True:
            key = await queue.get()
            started = time.monotonic()
            try:
                result = await self._attempt(key)
            finally:
                queue.done(key)
            self._world.metrics.reconciles.labels(result).inc()
            self._world.metrics.reconcile_duration.observe(time.monotonic() - started)

    async def _attempt(self, key: Key) -> str:
        """One look, whatever comes of it; the result as the metric names it."""
        queue, errors = self._world.queue, self._world.metrics.errors
        try:
            delay = await self.reconcile(key)
        except Conflict as error:
            log.debug("%s: %s", key, error)
            queue.add_after(key, CONFLICT_SECONDS)
            return "requeue"
        except OperatorError as error:
            errors.labels(error.kind).inc()
            patience = error.retry_after_seconds if isinstance(error, ClusterUnavailable) else 0.0
            delay = queue.failed(key, least_seconds=patience)
            log.warning("%s: %s; looking again in %.1f s", key, error, delay)
            return "error"
        except Exception:
            # A bug that one training triggers must not stop the others.
            errors.labels("bug").inc()
            log.exception("%s: looking again in %.1f s", key, queue.failed(key))
            return "error"
        queue.succeeded(key)
        if delay is not None:
            queue.add_after(key, delay)
        return "success"

    async def reconcile(self, key: Key) -> float | None:
        """Observes, decides, acts and reports once; seconds until the next look, None when the training is gone."""
        world = self._world
        subject = world.cache.subject(key)
        if subject is None:
            world.metrics.trainings.remove(key)
            world.queue.forget(key)
            self._workloads.forget(key)
            self._written.pop(key, None)
            self._podless.discard(key)
            return None
        try:
            observed = await self._ask_queue(subject, await self._observe(subject))
            decision = self._decide(subject, observed)
            refusal = await self._act_all(subject, decision)
            if refusal is not None:
                decision = self._decide(subject, replace(observed, refusal=str(refusal)))
            await self._report(subject, observed, decision)
        except Conflict:
            # The next look must not repeat itself on the state that has just proved old.
            await self._refresh(subject)
            raise
        if refusal is not None:
            raise refusal
        if any(isinstance(action, Create) for action in decision.actions):
            return 0.0
        wanted = [decision.requeue_after_seconds, self._resync_seconds]
        if observed.queue is not None:
            wanted.append(self._workloads.seconds_left(key))
        return min(seconds for seconds in wanted if seconds is not None)

    def _decide(self, subject: Subject, observed: Observed) -> Decision:
        return decide(
            subject,
            replace(observed, written=self._written.get(subject.key)),
            profiles=self._world.profiles.current,
            now=self._clock(),
            status_interval_seconds=self._status_interval_seconds,
        )

    async def _observe(self, subject: Subject) -> Observed:
        """What the cache shows; where that is not to be trusted, what the API server shows."""
        observed = self._world.cache.observed(subject)
        is_podless = self._note_podless(subject, observed)
        if subject.is_deleting:
            return observed
        job, pods = observed.current_job, observed.newest_pods
        if surplus := observed.surplus_jobs(subject.is_settled):
            # They are about to be deleted, and another operator may know better that they have ended.
            await self._confirm(subject, surplus)
        elif subject.is_settled:
            return observed
        elif subject.is_finished and job is None:
            await self._look_for_evaluation(subject)
        elif observed.job is None and (subject.attempt or job is None):
            await self._look_for_job(subject)
        elif job is not None and (
            _may_lack_words(job, observed.job_pods) or _is_pausing(subject, job, observed.job_pods)
        ):
            # The watch of pods may lag behind that of Jobs; the last word decides the status for ever, and a pod that
            # is seen only when its training goes on again looks as if it had been interrupted.
            await self._list_pods(subject)
        elif job is not None and _may_be_suspended(job, observed.job_pods):
            # Its pod is told to stop before that is seen: what looks like an interruption is the queue's.
            await self._confirm(subject, (job,))
        elif (stuck := next((pod for pod in pods if _is_stuck(pod, self._clock())), None)) is not None:
            return replace(observed, mount_problem=await self._last_words(subject, stuck.uid, "FailedMount"))
        elif job is not None and is_podless:
            words = await self._last_words(subject, job.uid, "FailedCreate")
            return replace(observed, pod_refusal=words)
        else:
            return observed
        return self._world.cache.observed(subject)

    def _note_podless(self, subject: Subject, observed: Observed) -> bool:
        """Whether the training's Job has lacked pods for longer than it takes to make those of all that wait."""
        job = observed.current_job
        if job is None or not _lacks_pods(job, len(observed.newest_pods)):
            self._podless.discard(subject.key)
            return False
        self._podless.add(subject.key)
        patience = POD_PATIENCE_SECONDS
        if not _is_refused(subject):
            # What is told is asked for again: else it would come and go with the bursts of others.
            patience = max(patience, len(self._podless) / PODS_PER_SECOND)
        return (self._clock() - parse_time(job.start_time or job.created)).total_seconds() > patience

    async def _ask_queue(self, subject: Subject, observed: Observed) -> Observed:
        """With what the queue says about the current Job, if one does or may decide about it."""
        job, training = observed.current_job, subject.training
        if job is None or not job.is_active or training is None or subject.is_deleting:
            self._workloads.forget(subject.key)
            return observed
        # Kueue may manage Jobs that name no queue as well: it shows when they do not do as we wish.
        is_odd = job.suspend != training.spec.suspend
        if not (job.queue_name or is_odd or subject.status.queue):
            return observed
        pod = observed.pod.uid if observed.pod is not None else ""
        return replace(observed, queue=await self._workloads.read(subject.key, job, pod=pod))

    async def _look_for_job(self, subject: Subject) -> None:
        """No Job is in the cache: there was none yet, it was deleted, or was not seen yet.

        A training that looks new may be finished long since, if its watch has told nothing.
        """
        cache, key = self._world.cache, subject.key
        await self._refresh(subject)
        fresh = cache.subject(key)
        if fresh is None or fresh.resource_version != subject.resource_version:
            raise Conflict(f"{key} was changed since it was read")
        attempt = subject.attempt
        if not (attempt or subject.status.conditions):
            # Brand-new: whatever another operator began meanwhile has the name that ours would have.
            return
        name = names.job_name(key.name, attempt) if attempt else names.preflight_job_name(key.name)
        job = await self._world.cluster.get(JOBS, key.namespace, name)
        if job is not None:
            cache.put("job", job)
        await self._list_pods(subject)

    async def _look_for_evaluation(self, subject: Subject) -> None:
        """No Job that evaluates is in the cache; another operator may have begun one, for this wish or another."""
        key = subject.key
        await self._refresh(subject)
        fresh = self._world.cache.subject(key)
        if fresh is None or fresh.resource_version != subject.resource_version:
            raise Conflict(f"{key} was changed since it was read")
        labels = f"{names.LABEL_TRAINING}={key.name},{names.LABEL_STAGE}={names.STAGE_EVALUATION}"
        for body in await self._world.cluster.list(JOBS, key.namespace, labels=labels):
            self._world.cache.put("job", body)
        await self._list_pods(subject)

    async def _confirm(self, subject: Subject, jobs: tuple[Job, ...]) -> None:
        key = subject.key
        for job in jobs:
            body = await self._world.cluster.get(JOBS, key.namespace, job.name)
            if body is None:
                self._world.cache.drop_name("job", key, job.name, uid=job.uid)
            else:
                self._world.cache.put("job", body)

    async def _refresh(self, subject: Subject) -> None:
        key = subject.key
        body = await self._world.cluster.get(TRAININGS, key.namespace, key.name)
        if body is None:
            self._world.cache.drop_name("training", key, key.name, uid=subject.uid)
        else:
            self._world.cache.put("training", body)

    async def _list_pods(self, subject: Subject) -> None:
        labels = f"{names.LABEL_TRAINING}={subject.key.name}"
        for body in await self._world.cluster.list(PODS, subject.key.namespace, labels=labels):
            self._world.cache.put("pod", body)

    async def _last_words(self, subject: Subject, uid: str, reason: str) -> str:
        """What the newest event of this reason says: volumes that fail and refused pods stand in no status."""
        fields = f"involvedObject.uid={uid},reason={reason}"
        found = await self._world.cluster.list(EVENTS, subject.key.namespace, fields=fields)
        newest = max(found, key=lambda event: str(event.get("lastTimestamp") or ""), default={})
        return str(newest.get("message") or "")

    async def _act_all(self, subject: Subject, decision: Decision) -> Refused | None:
        """Acts in order, up to the first refusal."""
        for action in decision.actions:
            try:
                await self._act(subject, action)
            except Refused as error:
                return error
        return None

    async def _act(self, subject: Subject, action: Action) -> None:
        cluster, cache, key = self._world.cluster, self._world.cache, subject.key
        match action:
            case Create(manifest):
                created = await self._create(subject, manifest)
                if manifest["kind"] == JOBS.kind:
                    log.info("%s: started Job %s", key, created["metadata"]["name"])
                    cache.put("job", created)
            case PatchJob(name, patch):
                patched = await cluster.patch(JOBS, key.namespace, name, patch)
                if patched is None:
                    cache.drop_name("job", key, name)
                else:
                    log.info("%s: changed Job %s: %s", key, name, patch["spec"])
                    cache.put("job", patched)
            case Delete(name, uid):
                await cluster.delete(JOBS, key.namespace, name, uid=uid)
                log.info("%s: deleted Job %s", key, name)
            case DeleteService(name):
                await self._delete_service(subject, name)

    async def _create(self, subject: Subject, manifest: Manifest) -> Manifest:
        """Creates the object; one of that name is taken over only if it is ours: nothing of others is overwritten."""
        meta, resource = manifest["metadata"], SERVICES if manifest["kind"] == SERVICES.kind else JOBS
        created = await self._world.cluster.create(resource, manifest)
        if created is not None:
            return created
        existing = await self._world.cluster.get(resource, meta["namespace"], meta["name"])
        if existing is None:
            raise Conflict(f"{resource.kind} {meta['name']} came and went")
        if controller_uid(existing) != subject.uid:
            raise Refused(
                f"{resource.kind} {meta['name']} exists already and is not of this training; "
                "it goes with the object it belongs to, or delete it, or use another name"
            )
        return existing

    async def _delete_service(self, subject: Subject, name: str) -> None:
        cluster, namespace = self._world.cluster, subject.key.namespace
        existing = await cluster.get(SERVICES, namespace, name)
        if existing is not None and controller_uid(existing) == subject.uid:
            await cluster.delete(SERVICES, namespace, name, uid=existing["metadata"]["uid"])
            log.info("%s: deleted Service %s", subject.key, name)

    def _measure(self, subject: Subject, observed: Observed, status: LoraTrainingStatus) -> None:
        """Tells the metrics how the training is."""
        known = Known(status, created=subject.created, gpus=subject.gpus, now=self._clock())
        figures = derive_figures(known, observed.pods)
        pod, report = observed.pod, observed.report
        goes_on = status.completion_time is None and pod is not None and pod.stage == names.STAGE_TRAINING
        if goes_on and report is not None:
            # The status may be told less often than the trainer is heard; of the end it knows more.
            figures = figures.with_report(report)
        self._world.metrics.trainings.set(subject.key, figures)

    async def _report(self, subject: Subject, observed: Observed, decision: Decision) -> None:
        self._measure(subject, observed, decision.status or subject.status)
        if decision.status is None:
            return
        await self._write_status(subject, decision.status)
        for event in decision.events:
            await self._record(subject, event)

    async def _write_status(self, subject: Subject, status: LoraTrainingStatus) -> None:
        try:
            await self._patch_status(subject, status)
        except Refused as error:
            if status.completion_time and self._world.queue.failures(subject.key) < LAST_WORD_TRIES:
                # What a finished training does not tell now it never tells.
                raise
            await self._patch_status(subject, without_report(subject.status, status, str(error)))
            raise

    async def _patch_status(self, subject: Subject, status: LoraTrainingStatus) -> None:
        key = subject.key
        # Of a settled training not all is known: what is not known stays as it is.
        before = subject.status.to_document() if subject.is_settled else subject.raw_status
        changes = merge_diff(before, status.to_document())
        if not changes:
            return
        body = {"metadata": {"resourceVersion": subject.resource_version}, "status": changes}
        patched = await self._world.cluster.patch(TRAININGS, key.namespace, key.name, body, subresource="status")
        self._written[key] = self._clock()
        if patched is None:
            self._world.cache.drop_name("training", key, key.name, uid=subject.uid)
        else:
            self._world.cache.put("training", patched)

    async def _record(self, subject: Subject, event: Event) -> None:
        log.log(
            logging.INFO if event.type == "Normal" else logging.WARNING,
            "%s: %s: %s",
            subject.key,
            event.reason,
            event.message,
        )
        try:
            await self._world.recorder.record(subject, event)
        except OperatorError as error:
            # Events are told as well as can be; the status holds the truth.
            self._world.metrics.errors.labels("event").inc()
            log.debug("%s: the event %s was lost: %s", subject.key, event.reason, error)


def _may_lack_words(job: Job, pods: tuple[Pod, ...]) -> bool:
    """Whether the Job has ended, and pods that it counted are not known to have."""
    if job.end is None:
        return False
    ended = [pod for pod in pods if pod.terminated is not None]
    if job.end.succeeded:
        # Of pods that train together the first speaks for all, and is the last to end.
        return not any(pod.phase == "Succeeded" and pod.index == 0 for pod in ended)
    return len(ended) < max(1, job.failed)


def _is_pausing(subject: Subject, job: Job, pods: tuple[Pod, ...]) -> bool:
    """Whether the Job is about to be paused, or it is about to be told that it is."""
    asked = subject.training is not None and subject.training.spec.suspend
    told = any(c.type == ConditionType.SUSPENDED and c.status == "True" for c in subject.status.conditions)
    has_stopped = job.is_suspended and all(pod.is_over for pod in pods)
    return job.is_active and asked and not told and (has_stopped or not job.suspend)


def _may_be_suspended(job: Job, pods: tuple[Pod, ...]) -> bool:
    """Whether a queue may have suspended the Job, and only that its pod ends is seen."""
    is_running = bool(job.queue_name) and job.is_active and not job.suspend
    return is_running and any(pod.is_deleting and not pod.is_disrupted and not pod.is_over for pod in pods)


def _is_stuck(pod: Pod, now: datetime) -> bool:
    waits = pod.waiting is not None and pod.waiting.reason in CREATING_REASONS
    return waits and (now - parse_time(pod.created)).total_seconds() > MOUNT_PATIENCE_SECONDS


def _lacks_pods(job: Job, pods: int) -> bool:
    """Whether the Job should have more pods than it has."""
    return pods < job.nodes and job.is_active and not job.suspend and job.start_time is not None


def _is_refused(subject: Subject) -> bool:
    """Whether it is told that the API server refuses the pods."""
    return any(c.type == ConditionType.SCHEDULED and c.reason in POD_REFUSALS for c in subject.status.conditions)
