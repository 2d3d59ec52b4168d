"""Which pods come to the node, in which order, and why the others do not."""

from typing import Any

import pytest

from lora_devcluster.conditions import condition
from lora_devcluster.store import Key
from tests.support.devcluster import container, pod, until
from tests.support.node import Node


def shell(script: str, **more: Any) -> dict[str, Any]:
    return container("sh", "-c", script, **more)


NO_CLAIM = {"name": "v", "persistentVolumeClaim": {"claimName": "none"}}


TAINT = {"key": "gpu", "value": "yes", "effect": "NoSchedule"}


def affinity(operator: str, *values: str) -> dict[str, Any]:
    rule = {"key": "room", "operator": operator, **({"values": list(values)} if values else {})}
    terms = {"nodeSelectorTerms": [{"matchExpressions": [rule]}]}
    return {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}}


async def test_pods_wait_for_a_gpu_in_turn(node: Node) -> None:
    gpu = {"resources": {"limits": {"nvidia.com/gpu": 1}}}
    node.create(pod(shell("exec sleep 60", **gpu), name="first"))
    await node.phase("Running", name="first")
    node.create(pod(shell("exit 0", **gpu), name="second"))
    held = await until(node.cluster.store, lambda: condition((node.pod("second") or {})["status"], "PodScheduled"))

    node.delete("first", grace_seconds=0)

    assert (held["reason"], "1 Insufficient nvidia.com/gpu" in held["message"]) == ("Unschedulable", True)
    assert (await node.finished("second"))["status"]["phase"] == "Succeeded"


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"nodeSelector": {"room": "cellar"}}, "node(s) didn't match Pod's node affinity/selector"),
        ({"volumes": [NO_CLAIM]}, 'persistentvolumeclaim "none" not found'),
    ],
)
async def test_a_pod_that_fits_nowhere_says_why(node: Node, spec: dict[str, Any], words: str) -> None:
    node.create(pod(shell("true"), **spec))

    event = await node.event("FailedScheduling")

    assert words in event["message"]


@pytest.mark.parametrize(
    ("spec", "fits"),
    [
        ({}, False),
        ({"tolerations": [{"key": "gpu", "value": "yes", "effect": "NoSchedule"}]}, True),
        ({"tolerations": [{"key": "gpu", "value": "no"}]}, False),
        ({"tolerations": [{"operator": "Exists"}]}, True),
        ({"tolerations": [{"operator": "Exists"}], **affinity("In", "attic")}, True),
        ({"tolerations": [{"operator": "Exists"}], **affinity("NotIn", "attic")}, False),
    ],
)
async def test_taints_and_affinity_decide_who_may_come(node: Node, spec: dict[str, Any], fits: bool) -> None:
    [key] = [Key("", "nodes", "", obj["metadata"]["name"]) for obj in node.cluster.store.objects("", "nodes")]
    node.cluster.api.modify(key, lambda obj: obj["spec"].update(taints=[TAINT]))
    node.create(pod(shell("true"), **spec))

    placed = await until(node.cluster.store, lambda: condition((node.pod() or {})["status"], "PodScheduled"))

    assert (placed["status"] == "True") is fits


async def test_a_gated_pod_is_not_scheduled(node: Node) -> None:
    node.create(pod(shell("true"), schedulingGates=[{"name": "example.com/wait"}]))

    held = await until(node.cluster.store, lambda: condition((node.pod() or {})["status"], "PodScheduled"))

    assert held["reason"] == "SchedulingGated"


async def test_the_more_important_pod_goes_first(node: Node) -> None:
    gpu = {"resources": {"limits": {"nvidia.com/gpu": 1}}}
    for name, priority in (("late", 0), ("urgent", 10)):
        node.create(pod(shell("true", **gpu), name=name, priority=priority))

    await node.finished("late")

    events = [e for e in node.cluster.store.objects("", "events") if e["reason"] == "Scheduled"]
    events.sort(key=lambda event: int(event["metadata"]["resourceVersion"]))
    assert [event["involvedObject"]["name"] for event in events] == ["urgent", "late"]
