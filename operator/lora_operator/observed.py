"""What the cluster shows of Jobs and pods, as frozen values. Parsed here; read by `reconcile` and `status`."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TypeVar

from lora_api import ProgressReport, TerminationMessage, names
from lora_api.exit_codes import codes_with
from lora_operator import kueue
from lora_operator.subject import Manifest
from lora_operator.timestamps import format_time, parse_time

ANNOTATION_FAILURES_BEFORE = f"{names.GROUP}/failures-before"
"""On a Job: failures of the Jobs before it, which use up the same budget."""
ANNOTATION_INDEX = "batch.kubernetes.io/job-completion-index"
"""On a pod of a Job: its completion index, which is its rank among the nodes."""


@dataclass(frozen=True)
class JobEnd:
    """How a Job ended: the reason of its Complete or Failed condition."""

    succeeded: bool
    reason: str
    message: str
    time: str


@dataclass(frozen=True)
class Job:
    """A Job of a training."""

    name: str
    uid: str
    resource_version: str = field(compare=False)
    """Changes as well when nothing does that is read of the Job."""
    owner_uid: str
    stage: str
    """`names.STAGE_TRAINING`, `names.STAGE_PREFLIGHT` or `names.STAGE_EVALUATION`."""
    evaluation_digest: str
    """Which `spec.evaluation` it is about, if it evaluates."""
    attempt: int
    created: str
    start_time: str | None
    queue_name: str
    """LocalQueue of Kueue, by label; whoever set it."""
    suspend: bool
    is_suspended: bool
    """The Job controller says so: no pod is left running."""
    suspended_time: str | None
    """Since when it has been so."""
    active_deadline_seconds: int | None
    backoff_limit: int
    nodes: int
    """Pods that it runs at the same time, all of which must succeed."""
    failures_before: int
    """Failures of the Jobs before it."""
    succeeded: int
    failed: int
    is_deleting: bool
    failing: JobEnd | None
    """How it will end as failed, since when it stops its pods: one failed for good, or its time is over."""
    end: JobEnd | None

    @property
    def is_failing(self) -> bool:
        """Whether it will end as failed, or has."""
        return self.failing is not None

    @property
    def is_active(self) -> bool:
        """Whether pods of it may run."""
        return self.end is None and not self.is_deleting

    @property
    def is_gang(self) -> bool:
        """Whether several pods train together: the first that fails ends the Job, and the next Job makes all anew."""
        return self.nodes > 1


def controller_uid(body: Manifest) -> str:
    """Uid of the object's controller, or nothing."""
    owners = body["metadata"].get("ownerReferences") or ()
    return next((str(owner["uid"]) for owner in owners if owner.get("controller")), "")


def parse_job(body: Manifest) -> Job:
    """A Job from its API document."""
    meta, spec, status = body["metadata"], body["spec"], body.get("status") or {}
    labels, annotations = meta.get("labels") or {}, meta.get("annotations") or {}
    conditions = {c["type"]: c for c in status.get("conditions") or () if c["status"] == "True"}
    # Failed pods that have lost their finalizer and are not in the number yet.
    uncounted = (status.get("uncountedTerminatedPods") or {}).get("failed") or ()
    return Job(
        name=meta["name"],
        uid=meta["uid"],
        resource_version=meta["resourceVersion"],
        owner_uid=controller_uid(body),
        stage=labels.get(names.LABEL_STAGE) or names.STAGE_TRAINING,
        evaluation_digest=annotations.get(names.ANNOTATION_EVALUATION_DIGEST) or "",
        attempt=_count(labels.get(names.LABEL_ATTEMPT)),
        created=meta["creationTimestamp"],
        start_time=status.get("startTime"),
        queue_name=labels.get(kueue.LABEL_QUEUE) or "",
        suspend=bool(spec.get("suspend")),
        is_suspended="Suspended" in conditions,
        suspended_time=conditions.get("Suspended", {}).get("lastTransitionTime"),
        active_deadline_seconds=spec.get("activeDeadlineSeconds"),
        backoff_limit=spec.get("backoffLimit", 6),
        nodes=spec.get("completions") or 1,
        failures_before=_count(annotations.get(ANNOTATION_FAILURES_BEFORE)),
        succeeded=status.get("succeeded") or 0,
        failed=(status.get("failed") or 0) + len(uncounted),
        is_deleting="deletionTimestamp" in meta,
        failing=_job_end(status, conditions.get("FailureTarget"), conditions.get("Failed")),
        end=_job_end(status, conditions.get("Complete"), conditions.get("Failed")),
    )


def _count(text: object) -> int:
    """A number by label or annotation; anybody may write anything there, and Python refuses very long ones."""
    return int(text) if isinstance(text, str) and text.isdecimal() and len(text) < 10 else 0


def _job_end(status: Manifest, *found: Manifest | None) -> JobEnd | None:
    """The end that the first of these conditions tells of."""
    condition = next(filter(None, found), None)
    if condition is None:
        return None
    return JobEnd(
        succeeded=condition["type"] == "Complete",
        reason=condition.get("reason") or "",
        message=condition.get("message") or "",
        time=status.get("completionTime") or condition["lastTransitionTime"],
    )


ENDED_PHASES = {"Succeeded", "Failed"}
"""Phases of pods that will never run again."""
CREATING_REASONS = {"ContainerCreating", "PodInitializing"}
"""What the kubelet says of containers while volumes are mounted and before init containers have ended."""


@dataclass(frozen=True)
class Waiting:
    """Why a container does not start, in the kubelet's words."""

    reason: str
    message: str


@dataclass(frozen=True)
class Disruption:
    """Why the cluster took a pod away, in the words of its DisruptionTarget condition."""

    reason: str
    message: str


@dataclass(frozen=True)
class Terminated:
    """How the trainer container ended."""

    exit_code: int
    reason: str
    text: str
    """Termination message, or the end of the log."""
    message: TerminationMessage | None
    """The text as the trainer writes it; None when it is something else."""


@dataclass(frozen=True)
class Pod:
    """A pod of a training."""

    name: str
    uid: str
    job_uid: str
    stage: str
    """`names.STAGE_TRAINING`, `names.STAGE_PREFLIGHT` or `names.STAGE_EVALUATION`."""
    index: int
    """Which of the pods that train together; the first, 0, speaks for all and is the only one that stores anything."""
    has_peers: bool
    """Whether others train together with it."""
    created: str
    phase: str
    ip: str
    node: str
    deletion_time: str | None
    """When it has to be gone; None: nobody told it to stop."""
    stop_time: str
    """When it was told to stop; empty: it was not."""
    grace_seconds: int
    """Time to end in that it gets when it is told to stop."""
    disruption: Disruption | None
    """It was preempted, evicted or lost with its node."""
    reason: str
    """The kubelet's word for what became of the pod as a whole, such as `Evicted`."""
    words: str
    """What the kubelet says about the pod as a whole, such as why it was evicted."""
    unschedulable: str
    """The scheduler's words, or nothing."""
    waiting: Waiting | None
    is_running: bool
    """The trainer container runs."""
    running_since: str | None
    """When the container that runs was started."""
    memory_limit: str
    """The most memory that the trainer container may use, or nothing."""
    is_checking: bool
    """The init container that checks the data runs."""
    checked: Terminated | None
    """How the init container that checks the data ended, if there is one."""
    terminated: Terminated | None
    """How the trainer container ended; that of the init container when it failed, for no other follows then."""
    ended: str
    """When it ended; of a pod that never ran, when it was last told of; empty: it has not, or nobody says."""

    @property
    def is_deleting(self) -> bool:
        """Whether it was told to stop."""
        return self.deletion_time is not None

    @property
    def was_stopped(self) -> bool:
        """Whether it was told to stop before it ended: what it ended with may follow from that."""
        return self.is_deleting and not (self.ended and self.ended < self.stop_time)

    @property
    def is_disrupted(self) -> bool:
        """Whether the cluster took it away."""
        return self.disruption is not None

    @property
    def answers(self) -> bool:
        """Whether it can be asked for its progress."""
        return self.index == 0 and bool(self.ip) and (self.is_running or self.is_checking)

    @property
    def has_begun(self) -> bool:
        """Whether its work ever began."""
        return self.is_running or self.is_checking or self.checked is not None or self.terminated is not None

    @property
    def is_over(self) -> bool:
        """Whether it will never run again."""
        return self.phase in ENDED_PHASES

    @property
    def tells_of_peers(self) -> bool:
        """Whether its end explains why others that train together with it ended; its Job may delete it at once."""
        return self.has_peers and self.phase == "Failed" and (self.is_disrupted or not self.is_interrupted)

    @property
    def is_interrupted(self) -> bool:
        """Whether it ended in a way that counts as nobody's failure."""
        ignored = self.terminated is not None and self.terminated.exit_code in codes_with("Ignore")
        return self.phase == "Failed" and (self.is_disrupted or ignored)


def parse_pod(body: Manifest) -> Pod:
    """A pod from its API document."""
    meta, spec, status = body["metadata"], body["spec"], body.get("status") or {}
    conditions = {c["type"]: c for c in status.get("conditions") or ()}
    scheduled = conditions.get("PodScheduled", {})
    refused = scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable"
    state = _state_of(names.TRAINER_CONTAINER, status.get("containerStatuses"))
    check = _state_of(names.PREFLIGHT_CONTAINER, status.get("initContainerStatuses"))
    checked = _terminated(check["terminated"]) if "terminated" in check else None
    ended = _terminated(state["terminated"]) if "terminated" in state else None
    if ended is None and checked is not None and checked.exit_code:
        ended = checked
    # While the init container runs, its successor waits for nothing else.
    waiting = None if "running" in check else check.get("waiting") or state.get("waiting")
    return Pod(
        name=meta["name"],
        uid=meta["uid"],
        job_uid=controller_uid(body),
        stage=(meta.get("labels") or {}).get(names.LABEL_STAGE) or names.STAGE_TRAINING,
        index=_count((meta.get("annotations") or {}).get(ANNOTATION_INDEX)),
        has_peers=bool(spec.get("subdomain")),
        created=meta["creationTimestamp"],
        phase=status.get("phase") or "Pending",
        ip=status.get("podIP") or "",
        node=spec.get("nodeName") or "",
        deletion_time=meta.get("deletionTimestamp"),
        stop_time=_stop_time(meta),
        grace_seconds=spec.get("terminationGracePeriodSeconds") or 0,
        disruption=_disruption(conditions.get("DisruptionTarget", {})),
        reason=status.get("reason") or "",
        words=": ".join(filter(None, (status.get("reason"), status.get("message")))),
        unschedulable=scheduled.get("message") or "no node fits" if refused else "",
        waiting=Waiting(waiting.get("reason") or "", waiting.get("message") or "") if waiting else None,
        is_running="running" in state,
        running_since=(state.get("running") or check.get("running") or {}).get("startedAt"),
        memory_limit=_memory_limit(spec),
        is_checking="running" in check,
        checked=checked,
        terminated=ended,
        ended=_time_of_end(status, state, check),
    )


def _stop_time(meta: Manifest) -> str:
    """A deletion is dated ahead by the time that the pod gets to end in."""
    if "deletionTimestamp" not in meta:
        return ""
    grace = timedelta(seconds=meta.get("deletionGracePeriodSeconds") or 0)
    return format_time(parse_time(meta["deletionTimestamp"]) - grace)


def _time_of_end(status: Manifest, *containers: Manifest) -> str:
    if status.get("phase") not in ENDED_PHASES:
        return ""
    times = [(container.get("terminated") or {}).get("finishedAt") for container in containers]
    if not any(times):
        times = [condition.get("lastTransitionTime") for condition in status.get("conditions") or ()]
    return max(filter(None, times), default="")


def _age(pod: Pod) -> tuple[str, bool, str, str]:
    """Sorts pods by age; of two that were created in the same second the one that still lives is the younger, else the
    one that ended later."""
    return pod.created, not pod.is_over, pod.ended, pod.name


def _disruption(condition: Manifest) -> Disruption | None:
    if condition.get("status") != "True":
        return None
    return Disruption(condition.get("reason") or "", condition.get("message") or "")


def _memory_limit(spec: Manifest) -> str:
    found: Manifest = next((c for c in spec.get("containers") or () if c.get("name") == names.TRAINER_CONTAINER), {})
    return str(((found.get("resources") or {}).get("limits") or {}).get("memory") or "")


def _state_of(name: str, containers: list[Manifest] | None) -> Manifest:
    return next((c.get("state") or {} for c in containers or () if c["name"] == name), {})


def _terminated(state: Manifest) -> Terminated:
    text = state.get("message") or ""
    return Terminated(
        exit_code=state.get("exitCode", -1),
        reason=state.get("reason") or "",
        text=text,
        message=_parse_termination(text),
    )


def _parse_termination(text: str) -> TerminationMessage | None:
    try:
        return parse_report(text, TerminationMessage)
    except ValueError:
        # Not ours: a crash leaves the end of its log here (FallbackToLogsOnError).
        return None


Report = TypeVar("Report", bound=ProgressReport)


def parse_report(content: str | bytes, kind: type[Report]) -> Report:
    """What a pod says. Raises ValueError unless all of it is sound: pods are not trusted."""
    report = kind.model_validate_json(content)
    times = {
        "progress.updatedTime": report.progress.updated_time if report.progress else None,
        "savedState.savedTime": report.saved_state.saved_time if report.saved_state else None,
        "activeTime": report.active_time,
    }
    for name, time in times.items():
        if time is not None and parse_time(time).tzinfo is None:
            raise ValueError(f"{name} is {time}, but must have a time zone")
    return report


@dataclass(frozen=True)
class Observed:
    """What is seen of a training's children."""

    job: Job | None = None
    """The newest Job of this very object that trains; of a finished one, that evaluates."""
    failed_job: Job | None = None
    """The newest Job that trained, if pods that train together failed and the next Job is to make all of them anew."""
    gang_failure: Pod | None = None
    """Of pods that train together and failed: the one that it counts as a failure for; None: an interruption."""
    older_jobs: tuple[Job, ...] = ()
    """Those before it; of a finished training, those that trained and checked the data as well."""
    preflight: Job | None = None
    """The Job that checks the data."""
    pods: tuple[Pod, ...] = ()
    """By age, oldest first; those of the check and of Jobs that are gone included."""
    report: ProgressReport | None = None
    """What the newest pod said last, if it still runs."""
    last_word: TerminationMessage | None = None
    """What the newest pod said last that ended, also when it is gone."""
    mount_problem: str = ""
    """The kubelet's words about a volume of a pod that cannot be mounted."""
    pod_refusal: str = ""
    """Why the API server refuses the pods of the current Job, in the words of the Job controller's event."""
    refusal: str = ""
    """Why the API server refused to create the children, in its words."""
    queue: kueue.QueueState | None = None
    """What the queue says about the training's Job; None: no queue decides about it."""
    written: datetime | None = None
    """When this operator last wrote the status; None: not yet."""

    @classmethod
    def of(
        cls, jobs: Iterable[Job], pods: Iterable[Pod], report: tuple[str, ProgressReport] | None = None
    ) -> "Observed":
        """From a training's own Jobs and all of its pods; `report` is what the pod with that uid said last."""
        found = tuple(jobs)
        training = sorted((job for job in found if job.stage == names.STAGE_TRAINING), key=lambda job: job.attempt)
        seen = cls(
            job=training[-1] if training else None,
            older_jobs=tuple(training[:-1]),
            preflight=next((job for job in found if job.stage == names.STAGE_PREFLIGHT), None),
        )
        return seen._with_pods(pods, report)

    @classmethod
    def of_finished(
        cls, jobs: Iterable[Job], pods: Iterable[Pod], report: tuple[str, ProgressReport] | None = None
    ) -> "Observed":
        """The same of a finished training: what is at work is the newest Job that evaluates it."""
        # At most one is there but for moments; a name tells the generation.
        found = sorted(
            jobs, key=lambda job: (job.stage == names.STAGE_EVALUATION, job.created, len(job.name), job.name)
        )
        newest = found[-1] if found and found[-1].stage == names.STAGE_EVALUATION else None
        others = tuple(found[:-1] if newest else found)
        return cls(job=newest, older_jobs=others)._with_pods(pods, report)

    def _with_pods(self, pods: Iterable[Pod], report: tuple[str, ProgressReport] | None) -> "Observed":
        seen = replace(self, pods=tuple(sorted(pods, key=_age)))
        if report is None or seen.pod is None or seen.pod.uid != report[0]:
            return seen
        return replace(seen, report=report[1])

    def surplus_jobs(self, is_settled: bool) -> tuple[Job, ...]:
        """Jobs that still run and should not: all but the newest, and that one too once nothing is left to do."""
        jobs = (*self.older_jobs, self.preflight) if self.job or is_settled else self.older_jobs
        every = (self.job, *jobs) if is_settled else jobs
        return tuple(job for job in every if job is not None and job.is_active)

    @property
    def current_job(self) -> Job | None:
        """The Job that the training is at: the newest that trains, else the one that checks the data."""
        return self.job or self.preflight

    @property
    def newest_job(self) -> Job | None:
        """The newest Job that trains or trained."""
        return self.job or self.failed_job

    @property
    def job_pods(self) -> tuple[Pod, ...]:
        """Pods of the current Job, oldest first; of those that train together, the first ones last."""
        return self._pods_of(self.current_job)

    @property
    def preflight_pods(self) -> tuple[Pod, ...]:
        """Pods of the Job that checks the data, oldest first."""
        return self._pods_of(self.preflight)

    @property
    def training_pods(self) -> tuple[Pod, ...]:
        """Pods that train, those of earlier Jobs included, oldest first."""
        return tuple(pod for pod in self.pods if pod.stage == names.STAGE_TRAINING)

    def _pods_of(self, job: Job | None) -> tuple[Pod, ...]:
        pods = [pod for pod in self.pods if job is not None and pod.job_uid == job.uid]
        return tuple(sorted(pods, key=lambda pod: -pod.index))

    @property
    def pod(self) -> Pod | None:
        """The pod that says how the training does: the newest of the current Job, the first of those that train
        together."""
        return next((pod for pod in self.newest_pods if pod.index == 0), None)

    @property
    def newest_pods(self) -> tuple[Pod, ...]:
        """The newest pod of the current Job at each index, by index."""
        newest = {pod.index: pod for pod in self.job_pods}
        return tuple(self._with_mount_problem(newest[index]) for index in sorted(newest))

    def _with_mount_problem(self, pod: Pod) -> Pod:
        if self.mount_problem and pod.waiting and pod.waiting.reason in CREATING_REASONS:
            return replace(pod, waiting=Waiting("FailedMount", self.mount_problem))
        return pod
