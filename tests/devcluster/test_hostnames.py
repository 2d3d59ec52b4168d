"""Headless Services: what is accepted of them, and the names that they give to pods."""

from typing import Any

import pytest

from lora_devcluster.errors import ApiError
from lora_devcluster.jobs import INDEX
from tests.support.control import Plane
from tests.support.devcluster import Manifest, container, job, pod, until
from tests.support.node import Node, ended


def service(name: str = "peers", **spec: Any) -> Manifest:
    body = {"clusterIP": "None", "selector": {"app": "gang"}, **spec}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": body}


def shell(script: str, **more: Any) -> Manifest:
    return container("sh", "-c", script, **more)


def member(name: str, script: str, value: str, *, app: str = "gang") -> Manifest:
    """A pod below the Service that is told `value` in a variable and leaves what `script` prints."""
    env = [{"name": "PEER", "value": value}]
    body = pod(shell(f"{script} > /dev/termination-log", env=env), name=name, hostname=name, subdomain="peers")
    return {**body, "metadata": {"name": name, "labels": {"app": app}}}


async def said(node: Node, name: str) -> str:
    return str(ended(await node.finished(name))["message"]).strip()


async def test_a_pods_name_below_a_headless_service_is_its_address(node: Node) -> None:
    node.create(service())
    node.create(member("one", "echo $PEER", "two.peers.default.svc"))
    node.create(member("two", "echo $PEER", "two.peers.default.svc.cluster.local"))

    told, own = await said(node, "one"), await said(node, "two")

    assert told == own == (await node.finished("two"))["status"]["podIP"]


async def test_pods_are_told_the_same_free_port_of_a_name(node: Node) -> None:
    node.create(service())
    node.create(member("one", "echo $PEER", "one.peers.default.svc:29500"))
    node.create(member("two", "echo $PEER", "one.peers.default.svc:29500"))

    first, second = await said(node, "one"), await said(node, "two")

    address, port = first.rsplit(":", 1)
    assert first == second
    assert (address, port != "29500") == ((await node.finished("one"))["status"]["podIP"], True)


@pytest.mark.parametrize(
    "value",
    ["one.other.default.svc:1", "one.peers.elsewhere.svc:1", "one.peers.default:1", "http://one.peers.default.svc:1"],
)
async def test_what_is_no_name_below_a_service_stays_as_it_is(node: Node, value: str) -> None:
    node.create(service())
    node.create(member("one", "echo $PEER", value))

    assert await said(node, "one") == value


async def test_a_service_names_only_the_pods_that_it_selects(node: Node) -> None:
    node.create(service())
    node.create(member("one", "echo $PEER", "one.peers.default.svc", app="another"))

    told = await said(node, "one")

    assert told != (await node.finished("one"))["status"]["podIP"]


async def test_a_pod_of_an_indexed_job_knows_its_index_and_its_name(node: Node) -> None:
    node.create(service(selector={"job-name": "j"}))
    rank = {"fieldRef": {"fieldPath": f"metadata.annotations['{INDEX}']"}}
    env = [{"name": "RANK", "valueFrom": rank}, {"name": "FIRST", "value": "j-0.peers.default.svc"}]
    script = "echo $RANK $JOB_COMPLETION_INDEX $HOSTNAME $FIRST > /dev/termination-log"
    gang = {"completions": 2, "parallelism": 2, "completionMode": "Indexed"}
    node.create(job(shell(script, env=env), pod_spec={"subdomain": "peers"}, **gang))

    def ended_pods() -> list[Manifest] | None:
        found = [one for one in node.cluster.store.objects("", "pods") if one["status"]["phase"] == "Succeeded"]
        return found if len(found) == 2 else None

    pods = sorted(await until(node.cluster.store, ended_pods), key=lambda one: str(one["spec"]["hostname"]))
    first = pods[0]["status"]["podIP"]
    assert [ended(one)["message"].split() for one in pods] == [["0", "0", "j-0", first], ["1", "1", "j-1", first]]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (service(name="1peers"), "DNS-1035"),
        (service(type="NodePort"), "may not be set to 'None'"),
        (service(type="Hidden"), "supported values"),
        (service(clusterIP=""), "spec.ports: Required value"),
        (service(ports=[{"port": 70000}]), "between 1 and 65535"),
        (service(ports=[{"port": 1}, {"port": 2}]), "spec.ports[0].name: Required value"),
        (service(ports=[{"name": "a", "port": 1}, {"name": "a", "port": 2}]), "Duplicate value"),
        (service(ports=[{"port": 1, "protocol": "HTTP"}]), "supported values"),
        (service(selector={"app": "two words"}), "spec.selector"),
    ],
)
def test_a_wrong_service_is_refused_as_by_a_real_server(wrong: Manifest, words: str) -> None:
    assert words in Plane().refusal(wrong).message


def test_a_headless_service_stays_headless() -> None:
    plane = Plane()
    plane.create(service())

    with pytest.raises(ApiError, match="field is immutable"):
        plane.patch(service(), {"spec": {"clusterIP": "10.0.0.1"}})
