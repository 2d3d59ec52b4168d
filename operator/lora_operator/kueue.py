"""What Kueue is told by labels on a Job, and what its Workloads say; pure. Used by `manifests`, `workloads`, `status`.

Workloads of kueue.x-k8s.io/v1beta1 and v1beta2 are read alike: everything that is read here is the same in both.
https://kueue.sigs.k8s.io/docs/reference/kueue.v1beta2/
"""

from dataclasses import dataclass
from typing import Any

from lora_api.cluster_spec import Scheduling
from lora_api.status import QueueStatus

GROUP = "kueue.x-k8s.io"
VERSIONS = ("v1beta2", "v1beta1")
"""Versions of the Workload that can be read, the preferred one first."""
LABEL_QUEUE = f"{GROUP}/queue-name"
LABEL_PRIORITY = f"{GROUP}/priority-class"
LABEL_JOB_UID = f"{GROUP}/job-uid"
"""On a Workload: the uid of the Job that it stands for."""

ADMITTED = "Admitted"
ABSENT = "KueueNotFound"
UNREADABLE = "WorkloadUnreadable"
NO_WORKLOAD = "NoWorkload"
PENDING = "Pending"
DEACTIVATED = "Deactivated"
CHECKS_PENDING = "AdmissionChecksPending"

REASON_CHARACTERS = 128
MESSAGE_CHARACTERS = 2000

Manifest = dict[str, Any]


@dataclass(frozen=True)
class QueueState:
    """What the queue says about one Job."""

    queue: str
    """LocalQueue; empty when the Job names none and is managed all the same."""
    workload: str = ""
    """Name of the Workload; empty while there is none."""
    admitted: bool = False
    reason: str = ""
    """The queue's own reason, or one of the constants of this module where it says nothing."""
    message: str = ""
    """The queue's own words."""
    evictions: int = 0
    """How often the queue stopped the Job, at least."""
    evicted_time: str | None = None
    """When the queue stopped the Job; None when it was admitted since."""

    @property
    def is_absent(self) -> bool:
        """Whether there is no Kueue that could admit the Job."""
        return self.reason == ABSENT


def queue_labels(scheduling: Scheduling) -> dict[str, str]:
    """The labels that put a Job into its queue; none without `scheduling.queueName`.

    `kueue.x-k8s.io/max-exec-time-seconds` is left out on purpose: it cannot be changed while the Job runs, but
    `limits.activeSeconds` can; and where it is exceeded Kueue only suspends the Job, for ever. The Job's own
    activeDeadlineSeconds ends it truly, and Kueue does not compare that field.
    """
    if scheduling.queue_name is None:
        return {}
    labels = {LABEL_QUEUE: scheduling.queue_name}
    if scheduling.queue_priority_class is not None:
        labels[LABEL_PRIORITY] = scheduling.queue_priority_class
    return labels


def topology_annotations(scheduling: Scheduling) -> dict[str, str]:
    """What a pod template says of where the queue is to place its pods; none without `scheduling.queueTopology`.

    https://kueue.sigs.k8s.io/docs/concepts/topology_aware_scheduling/
    """
    wish = scheduling.queue_topology
    if wish is None:
        return {}
    given = {"required": wish.required, "preferred": wish.preferred, "unconstrained": wish.unconstrained and "true"}
    return {f"{GROUP}/podset-{kind}-topology": str(value) for kind, value in given.items() if value}


def absent(queue: str) -> QueueState:
    """The state where the API server knows no Workloads."""
    known = " or ".join(VERSIONS)
    words = (
        f"the API server knows no Workloads of {GROUP}/{known}: Kueue is not installed, or its CRD is not there; "
        "the Job stays suspended"
    )
    return QueueState(queue, reason=ABSENT, message=words)


def unreadable(queue: str, words: str) -> QueueState:
    """The state where the operator is not allowed to read Workloads."""
    cure = "allow it get and list of workloads.kueue.x-k8s.io to see why the Job waits"
    return QueueState(queue, reason=UNREADABLE, message=f"the operator may not read Workloads: {words}; {cure}")


def without_workload(queue: str) -> QueueState:
    """The state where Kueue has not made a Workload for the Job, yet or at all."""
    words = (
        "Kueue has made no Workload for the Job; if that lasts, see that its controller runs and that its "
        "integrations include batch/job"
    )
    return QueueState(queue, reason=NO_WORKLOAD, message=words)


def parse_workload(body: Manifest) -> QueueState:
    """The state that a Workload tells of."""
    spec, status = body["spec"], body.get("status") or {}
    conditions = {c["type"]: c for c in status.get("conditions") or ()}
    evicted = conditions.get("Evicted")
    reason, message = _words(spec, status, conditions)
    return QueueState(
        queue=spec.get("queueName") or "",
        workload=body["metadata"]["name"],
        admitted=_is_true(conditions.get("Admitted")) and not _is_true(evicted),
        reason=reason,
        message=message,
        evictions=_evictions(status, evicted),
        evicted_time=evicted["lastTransitionTime"] if evicted and _is_true(evicted) else None,
    )


def _is_true(condition: Manifest | None) -> bool:
    return condition is not None and condition.get("status") == "True"


def _words(spec: Manifest, status: Manifest, conditions: dict[str, Manifest]) -> tuple[str, str]:
    """Reason and message of the condition that decides."""
    finished, evicted, reserved, admitted = (
        conditions.get(kind) for kind in ("Finished", "Evicted", "QuotaReserved", "Admitted")
    )
    if finished and _is_true(finished):
        return _said(finished)
    if spec.get("active") is False:
        return DEACTIVATED, (evicted or {}).get("message") or "the Workload is deactivated (spec.active is false)"
    if evicted and _is_true(evicted) and (reserved is None or _is_true(reserved)):
        return _said(evicted)
    if admitted and _is_true(admitted):
        return ADMITTED, admitted.get("message") or ""
    if reserved and _is_true(reserved):
        return CHECKS_PENDING, _pending_checks(status)
    if reserved:
        return _said(reserved)
    return PENDING, "the queue has not looked at the Workload yet"


def _said(condition: Manifest) -> tuple[str, str]:
    return condition.get("reason") or PENDING, condition.get("message") or ""


def _pending_checks(status: Manifest) -> str:
    checks = [check for check in status.get("admissionChecks") or () if check.get("state") != "Ready"]
    told = (": ".join(filter(None, (c.get("name"), c.get("state"), c.get("message")))) for c in checks)
    return "; ".join(told) or "quota is reserved; admission checks are awaited"


def _evictions(status: Manifest, evicted: Manifest | None) -> int:
    """Kueue keeps the count in status.schedulingStats; older versions only tell that there was an eviction."""
    stats = (status.get("schedulingStats") or {}).get("evictions")
    if stats:
        return sum(entry.get("count") or 0 for entry in stats)
    return 0 if evicted is None else 1


def queue_status(state: QueueState | None, before: QueueStatus | None, *, has_job: bool = True) -> QueueStatus | None:
    """What the training's status tells of its queue; `before`: what it told until now."""
    if state is None:
        # A Workload goes with its Job; that there is a queue is still to be known.
        return before if has_job or before is None else QueueStatus(name=before.name)
    # A Workload that cannot be looked at for a while is still the one whose evictions were counted.
    hidden = before is not None and state.reason in {ABSENT, UNREADABLE}
    known = before if before is not None and (hidden or before.workload == state.workload) else None
    return QueueStatus(
        name=state.queue,
        workload=known.workload if known else state.workload,
        reason=state.reason[:REASON_CHARACTERS],
        message=state.message[:MESSAGE_CHARACTERS],
        evictions=_count(state, known),
        evicted_time=state.evicted_time or (known.evicted_time if known else None),
    )


def _count(state: QueueState, known: QueueStatus | None) -> int:
    if known is None:
        return state.evictions
    # Without statistics a further eviction shows only in its time.
    is_further = known.evicted_time is not None and state.evicted_time not in {None, known.evicted_time}
    return max(state.evictions, known.evictions + is_further)


def new_evictions(after: QueueStatus | None, before: QueueStatus | None) -> int:
    """Evictions that `before` did not know of: each Job of a training has a Workload of its own."""
    if after is None:
        return 0
    known = before.evictions if before is not None and before.workload == after.workload else 0
    return max(0, after.evictions - known)
