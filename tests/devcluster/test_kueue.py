"""The stand-in for Kueue: what it does to Jobs, and the words it leaves on Workloads."""

from typing import Any

import pytest

from lora_devcluster.api import MERGE_PATCH, DeleteOptions, WriteOptions
from lora_devcluster.kueue import QueueController, QueueSetting
from lora_devcluster.store import Key
from tests.support.devcluster import Manifest, container, job, until
from tests.support.node import Node

LABELS = {"kueue.x-k8s.io/queue-name": "main"}
SLEEPS = container("sh", "-c", "trap 'exit 75' TERM; sleep 60 & wait")


def install(node: Node, **changes: Any) -> QueueController:
    setting = {"quotas": {"main": {"pods": "1"}}, "node_labels": {"room": "attic"}, **changes}
    return node.cluster.install_queue(QueueSetting(**setting))


def queued(name: str = "j", *containers: Manifest, labels: Manifest = LABELS) -> Manifest:
    body = job(*(containers or (SLEEPS,)), name=name, suspend=True, pod_spec={"nodeSelector": {}})
    body["metadata"]["labels"] = labels
    return body


def job_of(node: Node, name: str = "j") -> Manifest:
    found = node.cluster.store.get(Key("batch", "jobs", "default", name))
    assert found is not None
    return found


def words(queue: QueueController, kind: str, name: str = "j") -> tuple[str, str, str] | None:
    workload = queue.workload("default", name)
    found = [c for c in (workload or {}).get("status", {}).get("conditions", ()) if c["type"] == kind]
    return (found[0]["status"], found[0]["reason"], found[0]["message"]) if found else None


async def until_runs(node: Node, name: str = "j") -> None:
    await until(node.cluster.store, lambda: (job_of(node, name).get("status") or {}).get("ready") == 1)


async def until_says(
    node: Node, queue: QueueController, kind: str, status: str, name: str = "j"
) -> tuple[str, str, str]:
    def look() -> tuple[str, str, str] | None:
        found = words(queue, kind, name)
        return found if found and found[0] == status else None

    return await until(node.cluster.store, look)


async def test_a_job_that_fits_is_started_on_the_nodes_of_its_flavor(node: Node) -> None:
    queue = install(node)

    node.create(queued())
    await until_runs(node)

    assert job_of(node)["spec"]["template"]["spec"]["nodeSelector"] == {"room": "attic"}
    assert words(queue, "Admitted") == ("True", "Admitted", "The workload is admitted")


async def test_a_job_without_room_stays_suspended_and_the_workload_says_what_is_missing(node: Node) -> None:
    queue = install(node)
    node.create(queued("first"))
    await until_runs(node, "first")

    node.create(queued("second"))
    said = await until_says(node, queue, "QuotaReserved", "False", "second")

    assert said[1:] == (
        "Pending",
        "couldn't assign flavors to pod set main: insufficient unused quota for pods in flavor default-flavor, "
        "1 more needed",
    )
    assert job_of(node, "second")["spec"]["suspend"] is True


async def test_a_job_of_an_unknown_queue_is_inadmissible(node: Node) -> None:
    queue = install(node, quotas={})

    node.create(queued())

    said = await until_says(node, queue, "QuotaReserved", "False")
    assert said[1:] == ("Inadmissible", "LocalQueue main doesn't exist")


async def test_a_finished_job_makes_room_for_the_next(node: Node) -> None:
    queue = install(node)
    node.create(queued("first", container("true")))
    node.create(queued("second"))

    await until_runs(node, "second")

    assert words(queue, "Finished", "first") == ("True", "Succeeded", "Job finished successfully")


async def test_the_higher_rank_is_admitted_first(node: Node) -> None:
    queue = install(node, quotas={"main": {"pods": "0"}}, priorities={"urgent": 10})
    node.create(queued("plain"))
    node.create(queued("vip", labels={**LABELS, "kueue.x-k8s.io/priority-class": "urgent"}))
    await until_says(node, queue, "QuotaReserved", "False", "vip")

    queue.set_quota("main", {"pods": "1"})

    await until_runs(node, "vip")
    assert job_of(node, "plain")["spec"]["suspend"] is True


async def test_preemption_stops_the_pods_without_calling_them_disrupted_and_counts_nothing(node: Node) -> None:
    queue = install(node)
    node.create(queued())
    await until_runs(node)
    seen: list[Manifest] = []
    node.cluster.store.subscribe(lambda change: seen.append(change.object) if change.key.plural == "pods" else None)

    queue.set_quota("main", {"pods": "0"})
    queue.preempt("default", "j")
    await until_says(node, queue, "Requeued", "True")

    stopped = job_of(node)
    assert stopped["spec"]["suspend"] is True
    assert not stopped["spec"]["template"]["spec"].get("nodeSelector")
    assert "startTime" not in stopped["status"]
    assert not stopped["status"].get("failed")
    assert not any(c["type"] == "DisruptionTarget" for pod in seen for c in pod["status"].get("conditions", ()))
    assert words(queue, "Evicted")[:2] == ("True", "Preempted")
    assert words(queue, "Preempted")[:2] == ("True", "InClusterQueue")


async def test_a_preempted_job_starts_again_when_there_is_room(node: Node) -> None:
    queue = install(node)
    node.create(queued())
    await until_runs(node)
    queue.set_quota("main", {"pods": "0"})
    queue.preempt("default", "j")
    await until_says(node, queue, "Requeued", "True")

    queue.set_quota("main", {"pods": "1"})
    await until_runs(node)

    status = queue.workload("default", "j")["status"]
    assert words(queue, "Evicted")[:2] == ("False", "QuotaReserved")
    assert status["schedulingStats"]["evictions"] == [{"reason": "Preempted", "underlyingCause": "", "count": 1}]


async def test_a_job_that_someone_starts_before_its_admission_is_suspended_again(node: Node) -> None:
    queue = install(node, quotas={"main": {"pods": "0"}})
    node.create(queued())
    await until_says(node, queue, "QuotaReserved", "False")

    jobs = node.cluster.api.registry.builtin("batch", "jobs")
    key = Key("batch", "jobs", "default", "j")
    node.cluster.api.patch(jobs, key, MERGE_PATCH, {"spec": {"suspend": False}}, WriteOptions())

    await until(node.cluster.store, lambda: job_of(node)["spec"]["suspend"] or None)


async def test_a_deactivated_workload_stops_its_job(node: Node) -> None:
    queue = install(node)
    node.create(queued())
    await until_runs(node)
    workload = queue.workload("default", "j")

    node.cluster.api.modify(
        Key("kueue.x-k8s.io", "workloads", "default", workload["metadata"]["name"]),
        lambda obj: obj["spec"].update(active=False),
    )
    said = await until_says(node, queue, "Evicted", "True")

    assert said[1:] == ("Deactivated", "The workload is deactivated")
    await until(node.cluster.store, lambda: job_of(node)["spec"]["suspend"] or None)


@pytest.mark.parametrize("manages_all", [False, True])
async def test_jobs_without_queue_are_suspended_only_where_all_are_managed(node: Node, manages_all: bool) -> None:
    install(node, manages_all=manages_all)

    body = node.create(job(SLEEPS))

    assert body["spec"]["suspend"] is manages_all


async def test_the_workload_goes_with_its_job(node: Node) -> None:
    install(node)
    node.create(queued())
    await until_runs(node)

    resource = node.cluster.api.registry.builtin("batch", "jobs")
    node.cluster.api.delete(resource, Key("batch", "jobs", "default", "j"), DeleteOptions(propagation="Background"))
    store = node.cluster.store

    await until(store, lambda: not store.objects("kueue.x-k8s.io", "workloads"))


async def test_a_job_that_gets_its_queue_later_enters_it(node: Node) -> None:
    queue = install(node, manages_all=True)
    node.create(queued(labels={}))
    said = await until_says(node, queue, "QuotaReserved", "False")

    node.cluster.api.modify(Key("batch", "jobs", "default", "j"), lambda obj: obj["metadata"].update(labels=LABELS))
    await until_runs(node)

    assert said[1:] == ("Inadmissible", "LocalQueue  doesn't exist")
