"""Volume claims: a pod's own ones, and how long a claim stays."""

from typing import Any

import pytest

from lora_devcluster.api import DeleteOptions
from lora_devcluster.errors import ApiError
from lora_devcluster.store import Key
from tests.support.devcluster import Manifest, container, pod, until
from tests.support.node import Node

SPEC = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
OWN = {"name": "d", "ephemeral": {"volumeClaimTemplate": {"metadata": {"labels": {"app": "x"}}, "spec": SPEC}}}
"""The claim of the pod `p` is `p-d`."""
NAMED = {"name": "d", "persistentVolumeClaim": {"claimName": "p-d"}}


def shell(script: str, name: str = "p", volume: Manifest = OWN) -> Manifest:
    mounts = [{"name": "d", "mountPath": "/data"}]
    return pod(container("sh", "-c", script, volumeMounts=mounts), name=name, volumes=[volume])


def claim(node: Node, name: str = "p-d") -> Any:
    return node.cluster.store.get(Key("", "persistentvolumeclaims", "default", name))


async def held(node: Node) -> Manifest:
    """The claim once somebody waits for its end."""

    def look() -> Manifest | None:
        found: Manifest | None = claim(node)
        return found if found and "deletionTimestamp" in found["metadata"] else None

    return await until(node.cluster.store, look)


async def test_a_pods_own_volume_is_a_claim_that_other_pods_may_name(node: Node) -> None:
    node.create(shell("echo kept > /data/f"))
    await node.finished()

    node.create(shell("cat /data/f", "reader", NAMED))
    await node.finished("reader")

    assert node.log("reader") == "kept\n"
    assert claim(node)["metadata"]["labels"] == {"app": "x"}


async def test_a_pods_own_claim_goes_with_it_and_so_do_its_files(node: Node) -> None:
    node.create(shell("echo gone > /data/f"))
    await node.finished()

    node.delete()
    await until(node.cluster.store, lambda: claim(node) is None)
    node.create(shell("ls /data"))
    await node.finished()

    assert node.log() == ""


async def test_a_claim_stays_while_a_pod_names_it_also_one_that_has_ended(node: Node) -> None:
    node.create(shell("true"))
    node.create(shell("true", "reader", NAMED))
    await node.finished()
    await node.finished("reader")

    node.delete()
    await held(node)
    node.delete("reader")

    await until(node.cluster.store, lambda: claim(node) is None)


async def test_a_pod_waits_until_the_claim_of_one_of_the_same_name_is_gone(node: Node) -> None:
    node.create(shell("true"))
    node.create(shell("true", "reader", NAMED))
    await node.finished("reader")
    node.delete()
    first = (await held(node))["metadata"]["uid"]

    node.create(shell("true"))
    event = await node.event("FailedScheduling")
    node.delete("reader")
    await node.finished()

    assert 'persistentvolumeclaim "p-d" is being deleted' in event["message"]
    assert claim(node)["metadata"]["uid"] != first


async def test_a_claim_of_somebody_else_is_not_taken_for_a_pods_own(node: Node) -> None:
    node.create({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "p-d"}, "spec": SPEC})
    node.create(shell("true"))

    event = await node.event("FailedScheduling")

    assert "PVC default/p-d was not created for pod default/p (pod is not owner)" in event["message"]


async def test_a_volume_without_a_template_is_refused(node: Node) -> None:
    with pytest.raises(ApiError, match="volumeClaimTemplate"):
        node.create(shell("true", volume={"name": "d", "ephemeral": {}}))


async def test_a_deleted_claim_of_a_pod_that_waits_is_made_again(node: Node) -> None:
    nowhere = {**shell("true"), "spec": {**shell("true")["spec"], "nodeSelector": {"no": "such"}}}
    node.create(nowhere)
    first = (await until(node.cluster.store, lambda: claim(node)))["metadata"]["uid"]

    node.cluster.api.discard(Key("", "persistentvolumeclaims", "default", "p-d"), DeleteOptions())

    def another() -> bool:
        found = claim(node)
        return found is not None and found["metadata"]["uid"] != first

    await until(node.cluster.store, another)
