"""lora_devcluster.disruptions and quota: what the cluster does to pods against their will."""

import pytest

from lora_devcluster.conditions import condition
from lora_devcluster.errors import ApiError
from tests.support.devcluster import Manifest, container, job, pod, until
from tests.support.node import Node

SLEEP = container("sleep", "600")


async def run(node: Node, command: Manifest) -> None:
    node.create(pod(command, terminationGracePeriodSeconds=5))
    await node.phase("Running")


def target(found: Manifest) -> tuple[str, str]:
    said = condition(found["status"], "DisruptionTarget")
    assert said is not None and said["status"] == "True"
    return said["reason"], said["message"]


async def test_a_preempted_pod_is_marked_and_told_to_go(node: Node) -> None:
    await run(node, SLEEP)

    node.cluster.disruptions.preempt("default", "p")

    found = node.pod()
    assert found is not None
    assert target(found) == (
        "PreemptionByScheduler",
        "default-scheduler: preempting to accommodate a higher priority pod",
    )
    await node.gone()


async def test_a_pod_evicted_under_pressure_fails_as_nobodys_fault(node: Node) -> None:
    await run(node, SLEEP)

    node.cluster.disruptions.evict_under_pressure("default", "p", "memory")

    status = (await node.finished())["status"]
    assert (status["phase"], status["reason"]) == ("Failed", "Evicted")
    assert status["message"].strip() == "The node was low on resource: memory."
    assert target({"status": status})[0] == "TerminationByKubelet"


async def test_a_pod_that_fills_its_own_volume_fails_by_its_own_fault(node: Node) -> None:
    await run(node, SLEEP)

    node.cluster.disruptions.evict_for_volume("default", "p", "work", "1Gi")

    status = (await node.finished())["status"]
    assert (status["reason"], status["message"].strip()) == (
        "Evicted",
        'Usage of EmptyDir volume "work" exceeds the limit "1Gi".',
    )
    assert condition(status, "DisruptionTarget") is None


async def test_pods_of_a_lost_node_are_told_to_go_and_cannot(node: Node) -> None:
    await run(node, SLEEP)

    node.cluster.disruptions.lose_node()

    found = node.pod()
    assert found is not None and found["metadata"]["deletionTimestamp"]
    assert found["status"]["phase"] == "Running"
    assert target(found) == ("DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint")


async def test_pods_go_with_the_node_that_is_given_up_and_the_next_ones_run(node: Node) -> None:
    node.create(job(SLEEP, podReplacementPolicy="Failed"))
    first = await until(node.cluster.store, lambda: _live(node))
    node.cluster.disruptions.lose_node()

    node.cluster.disruptions.forget_node()

    second = await until(node.cluster.store, lambda: (p := _live(node)) and p != first and p)
    assert second


def _live(node: Node) -> str | None:
    pods = node.cluster.store.objects("", "pods", "default")
    return next((p["metadata"]["name"] for p in pods if p["status"].get("phase") == "Running"), None)


async def test_a_node_may_refuse_a_pod_that_the_scheduler_gave_it(node: Node) -> None:
    node.cluster.kubelet.refuse_next("unlucky", "UnexpectedAdmissionError", "Allocate failed")
    node.create(pod(container("true"), name="lucky"))

    node.create(pod(SLEEP, name="unlucky"))

    assert (await node.finished("lucky"))["status"]["phase"] == "Succeeded"
    status = (await node.finished("unlucky"))["status"]
    assert (status["reason"], status["message"]) == ("UnexpectedAdmissionError", "Pod was rejected: Allocate failed")


def quota(**hard: str) -> Manifest:
    spec = {"hard": {name.replace("__", "."): amount for name, amount in hard.items()}}
    return {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "small"}, "spec": spec}


async def test_a_quota_refuses_pods_beyond_it_with_its_numbers(node: Node) -> None:
    node.create(quota(requests__memory="1Gi"))
    big = container("true", resources={"requests": {"memory": "768Mi"}})
    node.create(pod(big, name="first"))

    with pytest.raises(ApiError) as refused:
        node.create(pod(big, name="second"))

    assert refused.value.message == (
        'pods "second" is forbidden: exceeded quota: small, requested: requests.memory=768Mi, '
        "used: requests.memory=768Mi, limited: requests.memory=1Gi"
    )


async def test_pods_that_are_over_leave_their_room_in_the_quota(node: Node) -> None:
    node.create(quota(pods="1"))
    node.create(pod(container("true"), name="first"))
    await node.finished("first")

    assert node.create(pod(container("true"), name="second"))


async def test_a_quota_on_memory_wants_every_container_to_name_it(node: Node) -> None:
    node.create(quota(limits__memory="1Gi"))

    with pytest.raises(ApiError, match=r"small: must specify limits\.memory for: main"):
        node.create(pod(container("true")))
