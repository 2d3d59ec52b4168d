"""The kubernetes client and its leader election, which the operator may use, against the laptop-sized cluster."""

import uuid
from typing import Any

import pytest
from kubernetes import client, config, watch

from lora_devcluster import ThreadedCluster
from tests.support.devcluster import container, job


@pytest.fixture
def api(shared: ThreadedCluster) -> Any:
    return config.new_client_from_config(str(shared.kubeconfig))


@pytest.fixture
def namespace(api: Any) -> str:
    name = f"t-{uuid.uuid4().hex[:8]}"
    client.CoreV1Api(api).create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name=name)))
    return name


def test_a_job_is_watched_to_its_end(api: Any, namespace: str) -> None:
    batch = client.BatchV1Api(api)
    batch.create_namespaced_job(namespace, job(container("true")))

    for event in watch.Watch().stream(batch.list_namespaced_job, namespace, timeout_seconds=20):
        if event["object"].status.succeeded:
            break

    assert batch.read_namespaced_job("j", namespace).status.succeeded == 1


def test_a_stale_replacement_is_a_conflict(api: Any, namespace: str) -> None:
    core = client.CoreV1Api(api)
    made = core.create_namespaced_config_map(namespace, client.V1ConfigMap(metadata=client.V1ObjectMeta(name="c")))
    core.patch_namespaced_config_map("c", namespace, {"data": {"a": "1"}})
    made.data = {"a": "2"}

    with pytest.raises(client.ApiException) as refusal:
        core.replace_namespaced_config_map("c", namespace, made)

    assert refusal.value.status == 409


def test_a_lease_is_taken_and_renewed(api: Any, namespace: str) -> None:
    leases = client.CoordinationV1Api(api)
    spec = client.V1LeaseSpec(holder_identity="a", lease_duration_seconds=15)
    lease = client.V1Lease(metadata=client.V1ObjectMeta(name="lock"), spec=spec)
    taken = leases.create_namespaced_lease(namespace, lease)
    taken.spec.holder_identity = "b"

    leases.replace_namespaced_lease("lock", namespace, taken)

    assert leases.read_namespaced_lease("lock", namespace).spec.holder_identity == "b"


def test_events_are_written_and_found_by_what_they_are_about(api: Any, namespace: str) -> None:
    core = client.CoreV1Api(api)
    about = client.V1ObjectReference(kind="Job", name="j", namespace=namespace)
    meta = client.V1ObjectMeta(name="e")
    core.create_namespaced_event(namespace, client.CoreV1Event(metadata=meta, involved_object=about, reason="Seen"))

    found = core.list_namespaced_event(namespace, field_selector="involvedObject.kind=Job,involvedObject.name=j")

    assert [event.reason for event in found.items] == ["Seen"]


def test_a_namespace_is_deleted_with_what_it_holds(api: Any, namespace: str) -> None:
    core = client.CoreV1Api(api)
    version = core.read_namespace(namespace).metadata.resource_version
    core.delete_namespace(namespace)

    stream = watch.Watch().stream(core.list_namespace, resource_version=version, timeout_seconds=20)
    gone = next(e for e in stream if e["type"] == "DELETED" and e["object"].metadata.name == namespace)

    assert gone["object"].status.phase == "Terminating"
