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
