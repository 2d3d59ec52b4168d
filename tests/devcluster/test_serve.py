"""`python -m lora_devcluster serve` as a process."""

import os
import select
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lora_devcluster.__main__ import UsageError, image_table, main
from tests.support.devcluster import container, pod
from tests.support.kubectl import Kubectl


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], Kubectl]]:
    command = [sys.executable, "-m", "lora_devcluster", "serve", "--dir", str(tmp_path / "c"), "--image", "busybox:*="]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        word, _, path = shlex.split(process.stdout.readline())[1].partition("=")
        assert word == "KUBECONFIG"
        yield process, Kubectl(Path(path))
        process.kill()


def sleeper(kubectl: Kubectl, tmp_path: Path) -> int:
    """A running pod; the process id of its container."""
    note = tmp_path / "pid"
    kubectl.apply(pod(container("sh", "-c", f"echo $$$$ > {note}.new; mv {note}.new {note}; exec sleep 600")))
    kubectl("wait", "--for=jsonpath={.status.phase}=Running", "pod/p", "--timeout=60s")
    while not note.exists():
        os.sched_yield()
    return int(note.read_text())


def ends(process: int) -> bool:
    """Whether the process is over within ten seconds."""
    return bool(select.select([process], [], [], 10)[0])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_cluster_and_its_pods(
    served: tuple[subprocess.Popen[str], Kubectl], tmp_path: Path, number: signal.Signals
) -> None:
    server, kubectl = served
    child = os.pidfd_open(sleeper(kubectl, tmp_path))

    server.send_signal(number)

    assert (server.wait(timeout=60), ends(child)) == (0, True)


def test_pods_do_not_outlive_a_cluster_that_is_killed(
    served: tuple[subprocess.Popen[str], Kubectl], tmp_path: Path
) -> None:
    server, kubectl = served
    child = os.pidfd_open(sleeper(kubectl, tmp_path))

    server.kill()

    assert ends(child)


def test_images_are_given_as_name_and_command() -> None:
    table = image_table(["a:*=python -m 'my app'", "b=noop", "c="])

    assert table == {"a:*": ["python", "-m", "my app"], "b": "noop", "c": []}


@pytest.mark.parametrize("text", ["a", "=b"])
def test_an_image_without_a_name_or_command_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="write --image NAME=VALUE"):
        image_table([text])


def test_a_wrong_command_line_exits_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--dir", str(tmp_path), "--env", "x"]) == 2
    assert "error: --env 'x': write --env NAME=VALUE" in capsys.readouterr().err
