"""Labels for the queue, and what its Workloads say."""

from typing import Any

import pytest

from lora_api.cluster_spec import Scheduling
from lora_api.status import QueueStatus
from lora_operator import kueue
from lora_operator.kueue import QueueState, new_evictions, parse_workload, queue_labels, queue_status

TIME, LATER = "2026-11-22T10:00:00Z", "2026-11-22T11:00:00Z"
NO_QUOTA = (
    "couldn't assign flavors to pod set main: insufficient unused quota for nvidia.com/gpu in flavor a100, "
    "1 more needed"
)
PREEMPTED = "Preempted to accommodate a workload (UID: u, JobUID: j) due to prioritization in the ClusterQueue"


def condition(kind: str, reason: str, message: str = "", *, status: str = "True", time: str = TIME) -> dict[str, str]:
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": time}


RESERVED = condition("QuotaReserved", "QuotaReserved", "Quota reserved in ClusterQueue gpus")
ADMITTED = condition("Admitted", "Admitted", "The workload is admitted")
WAITING = condition("QuotaReserved", "Pending", NO_QUOTA, status="False")
EVICTED = condition("Evicted", "Preempted", PREEMPTED)
BACK = condition("Evicted", "QuotaReserved", f"Previously: {PREEMPTED}", status="False", time=LATER)


def workload(*conditions: dict[str, str], version: str = "v1beta2", **status: Any) -> dict[str, Any]:
    return {
        "apiVersion": f"kueue.x-k8s.io/{version}",
        "kind": "Workload",
        "metadata": {"name": "job-hina-a1-4f2c1", "namespace": "ml"},
        "spec": {"queueName": "main", "active": status.pop("active", True), "podSets": []},
        "status": {"conditions": list(conditions), **status},
    }


def stats(*counts: int) -> dict[str, Any]:
    reasons = ("Preempted", "PodsReadyTimeout", "ClusterQueueStopped")
    entries = [
        {"reason": r, "underlyingCause": "", "count": n} for r, n in zip(reasons[: len(counts)], counts, strict=True)
    ]
    return {"schedulingStats": {"evictions": entries}}


def test_a_queue_name_becomes_the_label_that_kueue_reads() -> None:
    assert queue_labels(Scheduling(queue_name="main")) == {"kueue.x-k8s.io/queue-name": "main"}


def test_the_rank_in_the_queue_becomes_a_label_of_its_own() -> None:
    labels = queue_labels(Scheduling(queue_name="main", queue_priority_class="urgent"))

    assert labels == {"kueue.x-k8s.io/queue-name": "main", "kueue.x-k8s.io/priority-class": "urgent"}


def test_without_a_queue_nothing_of_kueue_is_on_the_job() -> None:
    assert queue_labels(Scheduling(priority_class="high")) == {}


@pytest.mark.parametrize("version", kueue.VERSIONS)
@pytest.mark.parametrize(
    ("conditions", "admitted", "reason", "message"),
    [
        ((), False, "Pending", "the queue has not looked at the Workload yet"),
        ((WAITING,), False, "Pending", NO_QUOTA),
        (
            (condition("QuotaReserved", "Inadmissible", "LocalQueue main doesn't exist", status="False"),),
            False,
            "Inadmissible",
            "LocalQueue main doesn't exist",
        ),
        ((RESERVED,), False, "AdmissionChecksPending", "quota is reserved; admission checks are awaited"),
        ((RESERVED, ADMITTED), True, "Admitted", "The workload is admitted"),
        ((RESERVED, ADMITTED, BACK), True, "Admitted", "The workload is admitted"),
        ((RESERVED, ADMITTED, EVICTED), False, "Preempted", PREEMPTED),
        ((WAITING, EVICTED), False, "Pending", NO_QUOTA),
        (
            (RESERVED, ADMITTED, condition("Finished", "Failed", "no such taint")),
            True,
            "Failed",
            "no such taint",
        ),
    ],
    ids=["new", "no-quota", "no-queue", "checks", "admitted", "again", "evicted", "waits-again", "finished"],
)
def test_the_condition_that_decides_gives_reason_and_message(
    version: str, conditions: tuple[dict[str, str], ...], admitted: bool, reason: str, message: str
) -> None:
    state = parse_workload(workload(*conditions, version=version))

    assert (state.admitted, state.reason, state.message) == (admitted, reason, message)
    assert (state.queue, state.workload) == ("main", "job-hina-a1-4f2c1")


def test_a_deactivated_workload_says_so() -> None:
    state = parse_workload(workload(condition("Evicted", "Deactivated", "The workload is deactivated"), active=False))

    assert (state.reason, state.message) == ("Deactivated", "The workload is deactivated")


def test_admission_checks_that_are_not_ready_are_named() -> None:
    checks = [
        {"name": "budget", "state": "Ready", "message": "fine"},
        {"name": "nodes", "state": "Pending", "message": "waiting for 1 node"},
    ]

    state = parse_workload(workload(RESERVED, admissionChecks=checks))

    assert state.message == "nodes: Pending: waiting for 1 node"


def test_evictions_of_every_reason_are_counted_from_the_statistics() -> None:
    assert parse_workload(workload(RESERVED, ADMITTED, BACK, **stats(2, 1))).evictions == 3


def test_without_statistics_an_eviction_is_known_from_its_condition() -> None:
    assert parse_workload(workload(WAITING, EVICTED)).evictions == 1
    assert parse_workload(workload(RESERVED, ADMITTED, BACK)).evictions == 1
    assert parse_workload(workload(WAITING)).evictions == 0


def look(before: QueueStatus | None, *conditions: dict[str, str], **status: Any) -> tuple[QueueStatus, int]:
    after = queue_status(parse_workload(workload(*conditions, **status)), before)
    return after, new_evictions(after, before)


def test_every_eviction_is_new_once_without_statistics() -> None:
    again = condition("Evicted", "Preempted", PREEMPTED, time=LATER)
    seen: list[int] = []
    told: QueueStatus | None = None

    for conditions in ((WAITING,), (EVICTED,), (EVICTED, WAITING), (ADMITTED, BACK), (again,), (again,)):
        told, new = look(told, *conditions)
        seen.append(new)

    assert seen == [0, 1, 0, 0, 1, 0]


def test_evictions_between_two_looks_are_all_new_with_statistics() -> None:
    told, _ = look(None, ADMITTED, **stats(1))

    told, new = look(told, EVICTED, **stats(3))

    assert new == 2
    assert told.evictions == 3


def test_another_workload_starts_its_own_count() -> None:
    before = QueueStatus(name="main", workload="job-hina-a1-0", evictions=3, evicted_time=TIME)

    _, new = look(before, EVICTED, **stats(1))

    assert new == 1


@pytest.mark.parametrize("hidden", [kueue.absent("main"), kueue.unreadable("main", "forbidden")])
def test_a_workload_that_was_hidden_for_a_while_is_not_counted_again(hidden: QueueState) -> None:
    told, _ = look(None, EVICTED, **stats(2))

    while_hidden = queue_status(hidden, told)
    told, new = look(while_hidden, EVICTED, **stats(2))

    assert (while_hidden.evictions, while_hidden.reason) == (2, hidden.reason)
    assert new == 0


def test_words_of_any_length_fit_the_status() -> None:
    long = condition("QuotaReserved", "P" * 1024, "x" * 30000, status="False")

    told = look(None, long)[0]

    assert (len(told.reason), len(told.message)) == (128, 2000)


def test_no_kueue_is_told_apart_from_no_workload() -> None:
    assert kueue.absent("main").is_absent
    assert not kueue.without_workload("main").is_absent


def test_without_a_job_only_the_queue_is_still_told() -> None:
    told, _ = look(None, EVICTED, **stats(2))

    assert queue_status(None, told, has_job=False) == QueueStatus(name="main")
    assert queue_status(None, told, has_job=True) == told
    assert queue_status(None, None, has_job=False) is None
