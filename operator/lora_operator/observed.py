"""What the cluster shows, as frozen values: trainings, Jobs, pods. Parsed here; read by `reconcile` and `status`."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeVar

from pydantic import ValidationError

from lora_api import (
    InvalidTraining,
    LoraTraining,
    LoraTrainingStatus,
    ProgressReport,
    TerminationMessage,
    names,
    parse_training,
)
from lora_api.exit_codes import codes_with
from lora_api.status import ConditionType
from lora_operator.errors import OperatorError

Manifest = dict[str, Any]

ANNOTATION_ACTIVE_SECONDS = f"{names.GROUP}/active-seconds"
"""On a Job: seconds that it ran before it was suspended; Kubernetes starts its own clock anew on resuming."""


class Key(NamedTuple):
    """Which LoraTraining."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


def parse_time(text: str) -> datetime:
    """A Kubernetes timestamp."""
    return datetime.fromisoformat(text)


def format_time(moment: datetime) -> str:
    """A Kubernetes timestamp of whole seconds, UTC."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True)
class Subject:
    """A LoraTraining as the API server holds it."""

    key: Key
    uid: str
    generation: int
    resource_version: str
    is_deleting: bool
    training: LoraTraining | None
    """None when it cannot be understood; `problem` then says why."""
    problem: str
    status: LoraTrainingStatus
    raw_status: Manifest
    ttl_seconds: int | None = None
    """How long its children outlive its end."""

    @property
    def is_finished(self) -> bool:
        """Whether it has ended for ever, in the words of its own status."""
        return any(c.type == ConditionType.FINISHED and c.status == "True" for c in self.status.conditions)

    @property
    def attempt(self) -> int:
        """Number of the newest Job that the status knows of; 0: none."""
        return self.status.attempts.number if self.status.attempts else 0


def parse_subject(body: Manifest) -> Subject:
    """A LoraTraining from its API document.

    Raises:
        OperatorError: its status cannot be read, so nothing is known about what was done already.
    """
    meta = body["metadata"]
    raw_status = body.get("status") or {}
    # The spec of a finished training decides nothing any more.
    training, problem = (None, "") if is_finished(body) else _parse_spec(body)
    return Subject(
        key=Key(meta["namespace"], meta["name"]),
        uid=meta["uid"],
        generation=meta.get("generation", 0),
        resource_version=meta["resourceVersion"],
        is_deleting="deletionTimestamp" in meta,
        training=training,
        problem=problem,
        status=_parse_status(raw_status),
        raw_status=raw_status,
        ttl_seconds=body["spec"].get("ttlSecondsAfterFinished"),
    )


def is_finished(body: Manifest) -> bool:
    """Whether the API document of a training says that it has ended for ever."""
    conditions = (body.get("status") or {}).get("conditions") or ()
    return any(c["type"] == ConditionType.FINISHED and c["status"] == "True" for c in conditions)


def _parse_spec(body: Manifest) -> tuple[LoraTraining | None, str]:
    """The training, or what is wrong with it."""
    try:
        return parse_training({key: value for key, value in body.items() if key != "status"}), ""
    except InvalidTraining as error:
        return None, "; ".join(str(found) for found in error.problems)


def _parse_status(document: Manifest) -> LoraTrainingStatus:
    try:
        return LoraTrainingStatus.model_validate_json(json.dumps(document))
    except ValidationError as error:
        raise OperatorError(f"the status cannot be read: {error.errors(include_url=False)[0]}") from error


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
    resource_version: str
    owner_uid: str
    attempt: int
    created: str
    start_time: str | None
    suspend: bool
    is_suspended: bool
    """The Job controller says so: no pod is left running."""
    active_deadline_seconds: int | None
    backoff_limit: int
    active_seconds: int
    failed: int
    is_deleting: bool
    end: JobEnd | None


def controller_uid(body: Manifest) -> str:
    """Uid of the object's controller, or nothing."""
    owners = body["metadata"].get("ownerReferences") or ()
    return next((str(owner["uid"]) for owner in owners if owner.get("controller")), "")


def parse_job(body: Manifest) -> Job:
    """A Job from its API document."""
    meta, spec, status = body["metadata"], body["spec"], body.get("status") or {}
    conditions = {c["type"]: c for c in status.get("conditions") or () if c["status"] == "True"}
    return Job(
        name=meta["name"],
        uid=meta["uid"],
        resource_version=meta["resourceVersion"],
        owner_uid=controller_uid(body),
        attempt=_count((meta.get("labels") or {}).get(names.LABEL_ATTEMPT)),
        created=meta["creationTimestamp"],
        start_time=status.get("startTime"),
        suspend=bool(spec.get("suspend")),
        is_suspended="Suspended" in conditions,
        active_deadline_seconds=spec.get("activeDeadlineSeconds"),
        backoff_limit=spec.get("backoffLimit", 6),
        active_seconds=_count((meta.get("annotations") or {}).get(ANNOTATION_ACTIVE_SECONDS)),
        failed=status.get("failed") or 0,
        is_deleting="deletionTimestamp" in meta,
        end=_job_end(conditions, status),
    )


def _count(text: object) -> int:
    return int(text) if isinstance(text, str) and text.isdecimal() else 0


def _job_end(conditions: dict[str, Manifest], status: Manifest) -> JobEnd | None:
    condition = conditions.get("Complete") or conditions.get("Failed")
    if condition is None:
        return None
    return JobEnd(
        succeeded="Complete" in conditions,
        reason=condition.get("reason") or "",
        message=condition.get("message") or "",
        time=status.get("completionTime") or condition["lastTransitionTime"],
    )


@dataclass(frozen=True)
class Waiting:
    """Why a container does not start, in the kubelet's words."""

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
    created: str
    phase: str
    ip: str
    node: str
    is_deleting: bool
    is_disrupted: bool
    """It was preempted, evicted or lost with its node."""
    words: str
    """What the kubelet says about the pod as a whole, such as why it was evicted."""
    unschedulable: str
    """The scheduler's words, or nothing."""
    waiting: Waiting | None
    is_running: bool
    """The trainer container runs."""
    terminated: Terminated | None

    @property
    def is_over(self) -> bool:
        """Whether it will never run again."""
        return self.phase in {"Succeeded", "Failed"}

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
    state = _trainer_state(status)
    waiting = state.get("waiting")
    return Pod(
        name=meta["name"],
        uid=meta["uid"],
        job_uid=controller_uid(body),
        created=meta["creationTimestamp"],
        phase=status.get("phase") or "Pending",
        ip=status.get("podIP") or "",
        node=spec.get("nodeName") or "",
        is_deleting="deletionTimestamp" in meta,
        is_disrupted=conditions.get("DisruptionTarget", {}).get("status") == "True",
        words=": ".join(filter(None, (status.get("reason"), status.get("message")))),
        unschedulable=scheduled.get("message") or "no node fits" if refused else "",
        waiting=Waiting(waiting.get("reason") or "", waiting.get("message") or "") if waiting else None,
        is_running="running" in state,
        terminated=_terminated(state["terminated"]) if "terminated" in state else None,
    )


def _trainer_state(status: Manifest) -> Manifest:
    for container in status.get("containerStatuses") or ():
        if container["name"] == names.TRAINER_CONTAINER:
            return container.get("state") or {}
    return {}


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
    if report.progress and report.progress.updated_time and parse_time(report.progress.updated_time).tzinfo is None:
        raise ValueError(f"progress.updatedTime is {report.progress.updated_time}, but must have a time zone")
    return report


@dataclass(frozen=True)
class Observed:
    """What is seen of a training's children."""

    job: Job | None = None
    """The newest Job of this very object."""
    older_jobs: tuple[Job, ...] = ()
    pods: tuple[Pod, ...] = ()
    """By age, oldest first; those of Jobs that are gone included."""
    report: ProgressReport | None = None
    """What the newest pod said last, if it still runs."""
    mount_problem: str = ""
    """The kubelet's words about a volume of the newest pod that cannot be mounted."""
    refusal: str = ""
    """Why the API server refused to create the children, in its words."""

    @classmethod
    def of(
        cls, jobs: Iterable[Job], pods: Iterable[Pod], report: tuple[str, ProgressReport] | None = None
    ) -> "Observed":
        """From a training's own Jobs and all of its pods; `report` is what the pod with that uid said last."""
        by_attempt = sorted(jobs, key=lambda job: job.attempt)
        by_age = tuple(sorted(pods, key=lambda pod: (pod.created, pod.name)))
        seen = cls(job=by_attempt[-1] if by_attempt else None, older_jobs=tuple(by_attempt[:-1]), pods=by_age)
        if report is None or seen.pod is None or seen.pod.uid != report[0]:
            return seen
        return replace(seen, report=report[1])

    def surplus_jobs(self, is_finished: bool) -> tuple[Job, ...]:
        """Jobs that still run and should not: all but the newest, and that one too once the training has ended."""
        jobs = (self.job, *self.older_jobs) if is_finished else self.older_jobs
        return tuple(job for job in jobs if job is not None and job.end is None and not job.is_deleting)

    @property
    def job_pods(self) -> tuple[Pod, ...]:
        """Pods of the newest Job, oldest first."""
        return tuple(pod for pod in self.pods if self.job is not None and pod.job_uid == self.job.uid)

    @property
    def pod(self) -> Pod | None:
        """The pod that says how the training does: the newest of the newest Job."""
        pods = self.job_pods
        if not pods:
            return None
        newest = pods[-1]
        if self.mount_problem and newest.waiting and newest.waiting.reason == "ContainerCreating":
            return replace(newest, waiting=Waiting("FailedMount", self.mount_problem))
        return newest
