"""Files that pods get as volumes."""

import base64
from pathlib import Path
from typing import Any

import pytest

from tests.support.devcluster import container, pod
from tests.support.node import Node


def shell(script: str, **more: Any) -> dict[str, Any]:
    return container("sh", "-c", script, **more)


def secret(value: str) -> str:
    return base64.b64encode(value.encode()).decode()


async def test_volumes_lie_where_the_container_mounts_them(node: Node) -> None:
    node.keep("Secret", "s", {"user": secret("me"), "pass": secret("word")})
    node.keep("ConfigMap", "c", {"config.yaml": "a: 1\n"})
    volumes = [
        {"name": "s", "secret": {"secretName": "s", "items": [{"key": "user", "path": "who"}], "defaultMode": 0o400}},
        {"name": "c", "configMap": {"name": "c"}},
        {"name": "scratch", "emptyDir": {}},
    ]
    mounts = [
        {"name": "s", "mountPath": "/creds"},
        {"name": "c", "mountPath": "/etc/app"},
        {"name": "scratch", "mountPath": "/scratch"},
    ]
    script = "cat /creds/who; ls /creds; cat /etc/app/config.yaml; echo x > /scratch/x; cat $WHERE/x"
    script += "; stat -c %a -L /creds/who"
    node.create(pod(shell(script, volumeMounts=mounts, env=[{"name": "WHERE", "value": "/scratch"}]), volumes=volumes))

    await node.finished()

    assert node.log() == "mewho\na: 1\nx\n400\n"


async def test_the_folder_that_mounts_lie_in_holds_them(node: Node) -> None:
    volumes = [{"name": name, "emptyDir": {}} for name in ("a", "b")]
    mounts = [{"name": name, "mountPath": f"/mnt/claims/{name}"} for name in ("a", "b")]
    script = "echo x > /mnt/claims/a/file; cat $CLAIMS/a/file; ls $CLAIMS"
    environment = [{"name": "CLAIMS", "value": "/mnt/claims"}]
    node.create(pod(shell(script, volumeMounts=mounts, env=environment), volumes=volumes))

    await node.finished()

    assert node.log() == "x\na\nb\n"


async def test_projected_and_downward_volumes_gather_files(node: Node) -> None:
    node.keep("Secret", "s", {"user": secret("me")})
    node.keep("ConfigMap", "c", {"a": "x"})
    name = {"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}
    labels = {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}
    sources = [
        {"secret": {"name": "s", "items": [{"key": "user", "path": "sub/who"}]}},
        {"configMap": {"name": "c"}},
        {"configMap": {"name": "absent", "optional": True}},
        {"downwardAPI": {"items": [name]}},
        {"serviceAccountToken": {"path": "token"}},
    ]
    volumes = [{"name": "all", "projected": {"sources": sources}}, {"name": "own", "downwardAPI": {"items": [labels]}}]
    mounts = [{"name": "all", "mountPath": "/all"}, {"name": "own", "mountPath": "/own"}]
    script = "cd /all; cat sub/who a name token; cat /own/labels"
    body = pod(shell(script, volumeMounts=mounts), volumes=volumes)
    body["metadata"]["labels"] = {"app": "x"}
    node.create(body)

    await node.finished()

    assert node.log() == 'mexpsystem:serviceaccount:default:defaultapp="x"'


async def test_an_annotation_is_a_file_to_the_letter(node: Node) -> None:
    text = '{"a": "1e-2", "b": "\u00e9\U0001f600"}\n# no more'
    annotation = {"path": "sub/training.yaml", "fieldRef": {"fieldPath": "metadata.annotations['example.com/x']"}}
    absent = {"path": "none", "fieldRef": {"fieldPath": "metadata.annotations['example.com/none']"}}
    memory = {"path": "memory", "resourceFieldRef": {"containerName": "main", "resource": "limits.memory"}}
    volumes = [{"name": "v", "downwardAPI": {"items": [annotation, absent, memory]}}]
    script = "cd /v; cat sub/training.yaml none memory"
    main = shell(script, volumeMounts=[{"name": "v", "mountPath": "/v"}], resources={"limits": {"memory": "1Mi"}})
    body = pod({**main, "name": "main"}, volumes=volumes)
    body["metadata"]["annotations"] = {"example.com/x": text}
    node.create(body)

    await node.finished()

    assert node.log() == f"{text}1048576"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"configMap": {"name": "none"}}, 'configmap "none" not found'),
        (
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "k", "path": "p"}]}},
            "non-existent config key: k",
        ),
        ({"hostPath": {"path": "/no/such/folder", "type": "Directory"}}, "hostPath type check failed"),
        ({"nfs": {"server": "s", "path": "/"}}, "nfs volumes do not exist in this cluster"),
    ],
)
async def test_what_a_volume_lacks_is_named(node: Node, source: dict[str, Any], words: str) -> None:
    node.create(pod(shell("true"), volumes=[{"name": "v", **source}]))

    assert words in (await node.event("FailedMount"))["message"]


async def test_a_host_path_is_the_folder_itself(node: Node, tmp_path: Path) -> None:
    volumes = [{"name": "v", "hostPath": {"path": str(tmp_path / "new"), "type": "DirectoryOrCreate"}}]
    node.create(pod(shell("echo x > /v/f", volumeMounts=[{"name": "v", "mountPath": "/v"}]), volumes=volumes))

    await node.finished()

    assert (tmp_path / "new" / "f").read_text() == "x\n"


async def test_a_claim_keeps_its_files_from_pod_to_pod(node: Node) -> None:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    node.create({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"}, "spec": spec})
    volumes = [{"name": "d", "persistentVolumeClaim": {"claimName": "data"}}]
    mounts = [{"name": "d", "mountPath": "/data", "subPath": "sub"}]
    node.create(pod(shell("echo kept > /data/f", volumeMounts=mounts), name="writer", volumes=volumes))
    await node.finished("writer")

    node.create(pod(shell("cat /data/f", volumeMounts=mounts), name="reader", volumes=volumes))
    await node.finished("reader")

    assert node.log("reader") == "kept\n"


async def test_a_volume_that_cannot_be_made_is_an_event_and_holds_the_pod(node: Node) -> None:
    volumes = [{"name": "v", "secret": {"secretName": "none"}}]
    node.create(pod(shell("true"), volumes=volumes))

    event = await node.event("FailedMount")

    assert event["message"] == 'MountVolume.SetUp failed for volume "v" : secret "none" not found'
    assert (await node.phase("Pending"))["status"]["containerStatuses"][0]["state"]["waiting"][
        "reason"
    ] == "ContainerCreating"
