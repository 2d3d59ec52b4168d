"""Pods as local processes."""

import asyncio
import base64
import os
import select
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from lora_devcluster.conditions import condition
from lora_devcluster.store import Key
from tests.support.devcluster import container, pod, until
from tests.support.node import Node, ended


def shell(script: str, **more: Any) -> dict[str, Any]:
    return container("sh", "-c", script, **more)


def secret(value: str) -> str:
    return base64.b64encode(value.encode()).decode()


@pytest.mark.parametrize(
    ("script", "phase", "code", "reason"),
    [
        ("exit 0", "Succeeded", 0, "Completed"),
        ("exit 75", "Failed", 75, "Error"),
        ("kill -9 $$$$", "Failed", 137, "Error"),
        ("kill -15 $$$$", "Failed", 143, "Error"),
    ],
)
async def test_a_pod_ends_as_its_process_does(node: Node, script: str, phase: str, code: int, reason: str) -> None:
    node.create(pod(shell(script)))

    done = await node.finished()

    assert (done["status"]["phase"], ended(done)["exitCode"], ended(done)["reason"]) == (phase, code, reason)


async def test_a_running_pod_is_ready_and_has_its_own_address(node: Node) -> None:
    node.create(pod(shell("exec sleep 60")))
    node.create(pod(shell("exec sleep 60"), name="q"))

    first, second = await node.phase("Running"), await node.phase("Running", name="q")

    assert {c["type"]: c["status"] for c in first["status"]["conditions"]} == dict.fromkeys(
        ["PodScheduled", "PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready"], "True"
    )
    addresses = {first["status"]["podIP"], second["status"]["podIP"]}
    assert len(addresses) == 2
    assert len({address.rsplit(".", 2)[0] for address in addresses}) == 1


async def test_the_termination_message_is_what_the_process_wrote(node: Node) -> None:
    node.create(pod(shell("echo last words > /dev/termination-log; exit 3")))

    assert ended(await node.finished())["message"] == "last words\n"


async def test_a_long_termination_message_is_cut(node: Node) -> None:
    node.create(pod(shell("head -c 9000 /dev/zero | tr '\\0' x > /dev/termination-log")))

    assert len(ended(await node.finished())["message"]) == 4096


@pytest.mark.parametrize(("code", "message"), [(1, "from the log\n"), (0, None)])
async def test_a_failed_containers_log_stands_in_for_its_message(node: Node, code: int, message: str | None) -> None:
    node.create(pod(shell(f"echo from the log; exit {code}", terminationMessagePolicy="FallbackToLogsOnError")))

    assert ended(await node.finished()).get("message") == message


async def test_entry_point_command_and_arguments_are_chosen_as_kubernetes_does(node: Node) -> None:
    node.create(pod(container(image="entry:1", args=["a", "b"]), name="image"))
    node.create(pod(container("echo", "own", image="entry:1", args=["a"]), name="command"))

    await node.finished("image")
    await node.finished("command")

    assert (node.log("image"), node.log("command")) == ("entry a b\n", "own a\n")


async def test_python_is_the_interpreter_of_the_cluster(node: Node) -> None:
    node.create(pod(container("python", "-c", "import sys; print(sys.executable)")))

    await node.finished()

    assert node.log().strip() == sys.executable


async def test_a_program_that_is_not_there_is_a_start_error(node: Node) -> None:
    node.create(pod(container("no-such-program")))

    state = ended(await node.finished())

    assert (state["exitCode"], state["reason"]) == (128, "StartError")
    assert 'exec: "no-such-program": executable file not found in $PATH' in state["message"]


async def test_the_environment_holds_what_the_spec_gives_and_nothing_of_ours(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUR_SECRET", "x")
    node.keep("Secret", "s", {"key": secret("from secret")})
    node.keep("ConfigMap", "c", {"A": "a", "B": "b"})
    variables = [
        {"name": "PLAIN", "value": "x"},
        {"name": "EXPANDED", "value": "$(PLAIN)-$(MISSING)-$$(PLAIN)"},
        {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "key"}}},
        {"name": "OPTIONAL", "valueFrom": {"configMapKeyRef": {"name": "none", "key": "k", "optional": True}}},
        {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}}},
    ]
    given: dict[str, Any] = {"env": variables, "envFrom": [{"configMapRef": {"name": "c"}, "prefix": "C_"}]}
    node.create(pod(container("env", resources={"limits": {"cpu": "2"}}, **given)))

    done = await node.finished()

    seen = dict(line.split("=", 1) for line in node.log().splitlines())
    assert {name: seen.get(name) for name in ("PLAIN", "EXPANDED", "KEY", "OPTIONAL", "NAME", "CPU")} == {
        "PLAIN": "x",
        "EXPANDED": "x-$(MISSING)-$(PLAIN)",
        "KEY": "from secret",
        "OPTIONAL": None,
        "NAME": "p",
        "CPU": "2000",
    }
    assert (seen["C_A"], seen["FROM_CLUSTER"], seen["IP"]) == ("a", "yes", done["status"]["podIP"])
    assert "OUR_SECRET" not in seen


async def test_bytes_of_a_secret_reach_the_process_as_they_are(node: Node) -> None:
    node.keep("Secret", "s", {"key": base64.b64encode(b"\xff\xfe").decode()})
    variable = {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "key"}}}
    node.create(pod(container("python", "-c", "import os; print(os.environb[b'KEY'])", env=[variable])))

    await node.finished()

    assert node.log() == "b'\\xff\\xfe'\n"


async def test_a_container_that_ends_before_the_others_shows_it(node: Node) -> None:
    node.create(pod(shell("exit 3", name="short"), shell("exec sleep 60", name="long")))

    def short_ended() -> bool:
        statuses = (node.pod() or {"status": {}})["status"].get("containerStatuses") or []
        return any(status["name"] == "short" and "terminated" in status["state"] for status in statuses)

    await until(node.cluster.store, short_ended)

    assert (node.pod() or {})["status"]["phase"] == "Running"


async def test_arguments_are_expanded_by_the_containers_variables(node: Node) -> None:
    node.create(pod(container("echo", "$(WHO)", "$$(WHO)", env=[{"name": "WHO", "value": "you"}])))

    await node.finished()

    assert node.log() == "you $(WHO)\n"


async def test_a_missing_secret_holds_the_container_until_it_is_there(node: Node) -> None:
    reference = {"secretKeyRef": {"name": "late", "key": "key"}}
    node.create(pod(container("env", env=[{"name": "KEY", "valueFrom": reference}])))
    state = await node.waiting("CreateContainerConfigError")

    node.keep("Secret", "late", {"key": secret("here")})

    assert state["message"] == 'secret "late" not found'
    await node.finished()
    assert "KEY=here" in node.log()


async def test_a_missing_key_is_named(node: Node) -> None:
    node.keep("ConfigMap", "c", {"a": "x"})
    reference = {"configMapKeyRef": {"name": "c", "key": "b"}}
    node.create(pod(container("env", env=[{"name": "KEY", "valueFrom": reference}])))

    state = await node.waiting("CreateContainerConfigError")

    assert state["message"] == "couldn't find key b in ConfigMap default/c"


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


async def test_init_containers_run_first_and_in_order(node: Node) -> None:
    volumes = [{"name": "v", "emptyDir": {}}]
    mounts = [{"name": "v", "mountPath": "/v"}]
    inits = [shell(f"echo {name} >> /v/f", name=name, volumeMounts=mounts) for name in ("one", "two")]
    node.create(pod(shell("cat /v/f", volumeMounts=mounts), initContainers=inits, volumes=volumes))

    await node.finished()

    assert node.log() == "one\ntwo\n"


async def test_a_failed_init_container_fails_the_pod(node: Node) -> None:
    node.create(pod(shell("echo never"), initContainers=[shell("exit 64", name="init")]))

    done = await node.finished()

    assert done["status"]["phase"] == "Failed"
    assert done["status"]["initContainerStatuses"][0]["state"]["terminated"]["exitCode"] == 64
    assert node.log() == ""


async def test_a_container_is_started_again_where_the_policy_says_so(node: Node) -> None:
    volumes = [{"name": "v", "emptyDir": {}}]
    script = "echo run; if [ -e /v/f ]; then exit 0; fi; touch /v/f; exit 1"
    once = shell(script, volumeMounts=[{"name": "v", "mountPath": "/v"}])
    node.create(pod(once, restartPolicy="OnFailure", volumes=volumes))

    done = await node.phase("Succeeded")

    status = done["status"]["containerStatuses"][0]
    assert (status["restartCount"], status["lastState"]["terminated"]["exitCode"]) == (1, 1)
    assert (node.log(previous=True), node.log()) == ("run\n", "run\n")


async def test_a_deleted_pod_may_end_by_itself_within_its_grace_period(node: Node, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    os.mkfifo(ready)
    node.create(pod(shell(f"trap 'exit 75' TERM; echo > {ready}; while :; do sleep 0.02; done")))
    await asyncio.to_thread(ready.read_text)
    codes = _terminations(node)

    node.delete()
    await node.gone()

    assert codes == [75]


def _terminations(node: Node) -> list[int]:
    """Collects the exit codes that the pod's status shows from now on."""
    codes: list[int] = []

    def look(change: Any) -> None:
        for status in (change.object.get("status") or {}).get("containerStatuses") or ():
            state = status["state"].get("terminated")
            if state and state["exitCode"] not in codes:
                codes.append(state["exitCode"])

    node.cluster.store.subscribe(look)
    return codes


async def test_a_deaf_pod_is_killed_after_its_grace_period(node: Node, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    os.mkfifo(ready)
    node.create(pod(shell(f"trap '' TERM; echo > {ready}; sleep 60")))
    await asyncio.to_thread(ready.read_text)
    codes = _terminations(node)

    node.delete(grace_seconds=1)
    await node.gone()

    assert codes == [137]


async def test_a_pod_deleted_without_grace_is_gone_at_once(node: Node) -> None:
    node.create(pod(shell("exec sleep 60")))
    await node.phase("Running")

    node.delete(grace_seconds=0)

    assert node.pod() is None


def _has_ended(pid: int) -> bool:
    """Waits for the end of a process that is not our child; False after ten seconds."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([process], [], [], 10)[0])
    finally:
        os.close(process)


async def test_processes_that_a_container_leaves_behind_end_with_it(node: Node, tmp_path: Path) -> None:
    note = tmp_path / "pid"
    node.create(pod(shell(f"sleep 60 & echo $! > {note}")))

    await node.finished()

    assert await asyncio.to_thread(_has_ended, int(note.read_text()))


async def test_memory_that_is_used_up_shows_as_oom_killed(node: Node) -> None:
    node.create(pod(shell("exec sleep 60")))
    await node.phase("Running")

    node.cluster.kubelet.kill_for_memory("default", "p", "main")

    state = ended(await node.finished())
    assert (state["exitCode"], state["reason"]) == (128 + signal.SIGKILL, "OOMKilled")


async def test_a_pod_past_its_deadline_fails(node: Node) -> None:
    node.create(pod(shell("exec sleep 60"), activeDeadlineSeconds=1))

    done = await node.finished()

    assert (done["status"]["phase"], done["status"]["reason"]) == ("Failed", "DeadlineExceeded")


async def test_an_image_without_an_entry_cannot_be_pulled(node: Node) -> None:
    node.create(pod(container("true", image="unknown:1")))

    state = await node.waiting("ImagePullBackOff")

    assert 'Back-off pulling image "unknown:1"' in state["message"]
    assert (await node.event("Failed"))["type"] == "Warning"


async def test_a_noop_pod_succeeds_without_a_process(node: Node) -> None:
    node.create(pod(container("false", image="noop:1")))

    done = await node.finished()

    assert (done["status"]["phase"], list((node.cluster.folder / "pods").glob("*/logs"))) == ("Succeeded", [])


async def test_pods_wait_for_a_gpu_in_turn(node: Node) -> None:
    gpu = {"resources": {"limits": {"nvidia.com/gpu": 1}}}
    node.create(pod(shell("exec sleep 60", **gpu), name="first"))
    await node.phase("Running", name="first")
    node.create(pod(shell("exit 0", **gpu), name="second"))
    held = await until(node.cluster.store, lambda: condition((node.pod("second") or {})["status"], "PodScheduled"))

    node.delete("first", grace_seconds=0)

    assert (held["reason"], "1 Insufficient nvidia.com/gpu" in held["message"]) == ("Unschedulable", True)
    assert (await node.finished("second"))["status"]["phase"] == "Succeeded"


NO_CLAIM = {"name": "v", "persistentVolumeClaim": {"claimName": "none"}}


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


TAINT = {"key": "gpu", "value": "yes", "effect": "NoSchedule"}


def affinity(operator: str, *values: str) -> dict[str, Any]:
    rule = {"key": "room", "operator": operator, **({"values": list(values)} if values else {})}
    terms = {"nodeSelectorTerms": [{"matchExpressions": [rule]}]}
    return {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}}


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


async def test_a_pod_talks_to_the_api_under_its_service_account(node: Node) -> None:
    code = "import json, os; c = json.load(open(os.environ['KUBECONFIG'])); print(c['users'][0]['user']['token'])"
    node.create(pod(container("python", "-c", code)))

    await node.finished()

    assert node.log() == "system:serviceaccount:default:default\n"


async def test_a_pod_without_a_token_cannot_talk_to_the_api(node: Node) -> None:
    node.create(pod(container("env"), automountServiceAccountToken=False))

    await node.finished()

    assert "KUBECONFIG" not in node.log()


async def test_a_pods_files_go_with_it(node: Node) -> None:
    node.create(pod(shell("true")))
    await node.finished()

    node.delete()
    await until(node.cluster.store, lambda: node.pod() is None)
    node.create(pod(shell("true"), name="next"))
    done = await node.finished("next")

    folders = [path.name for path in (node.cluster.folder / "pods").iterdir()]
    assert folders == [done["metadata"]["uid"]]
