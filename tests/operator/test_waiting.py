"""lora_operator.waiting"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lora_operator.errors import ClusterUnavailable
from lora_operator.waiting import NotSucceeded, Patience, main, wait_for_success
from tests.support.documents import make_document

AT_ONCE = Patience(seconds=60, pause_seconds=0)
TIME = "2026-01-01T00:00:00Z"


def condition(kind: str, status: str, reason: str, message: str = "") -> dict[str, Any]:
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": TIME}


def training(phase: str, *conditions: dict[str, Any], step: str = "") -> dict[str, Any]:
    metadata = {"name": "hina", "namespace": "ml", "uid": "u", "resourceVersion": "1", "creationTimestamp": TIME}
    status = {"phase": phase, "conditions": list(conditions), "summary": {"step": step}}
    return {**make_document(), "metadata": metadata, "status": status}


PENDING = training("Pending", condition("Scheduled", "False", "Unschedulable", "0/1 nodes are available"))
RUNNING = training("Running", step="1/2")
SUCCEEDED = training("Succeeded", condition("Finished", "True", "Completed"))
FAILED = training("Failed", condition("Finished", "True", "InvalidDataset", "no picture was found"))


async def outcome(*answers: Any, patience: Patience = AT_ONCE) -> list[str]:
    """What is told while the training is found like this, look after look."""
    left: Iterator[Any] = iter(answers)
    told: list[str] = []

    async def look() -> Any:
        answer = next(left)
        if isinstance(answer, Exception):
            raise answer
        return answer

    await wait_for_success(look, patience, told.append)
    return told


async def test_every_change_is_told_once_until_the_training_has_succeeded() -> None:
    told = await outcome(PENDING, PENDING, RUNNING, SUCCEEDED)

    assert told == [
        "ml/hina: Pending (Unschedulable: 0/1 nodes are available)",
        "ml/hina: Running, step 1/2",
        "ml/hina: Succeeded",
    ]


async def test_a_failure_is_told_in_the_words_of_the_operator() -> None:
    with pytest.raises(NotSucceeded, match="ml/hina: InvalidDataset: no picture was found"):
        await outcome(RUNNING, FAILED)


async def test_a_training_that_is_not_there_is_not_waited_for() -> None:
    with pytest.raises(NotSucceeded, match="no such training"):
        await outcome(None)


async def test_a_server_that_does_not_answer_is_asked_again() -> None:
    told = await outcome(ClusterUnavailable("busy"), SUCCEEDED)

    assert told == ["the API server does not answer: busy", "ml/hina: Succeeded"]


async def test_patience_ends_with_what_the_training_waits_for() -> None:
    with pytest.raises(NotSucceeded, match=r"not finished after 0 s: .*0/1 nodes are available"):
        await outcome(PENDING, patience=Patience(seconds=0, pause_seconds=0))


def test_what_is_wrong_is_said_without_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "absent"))

    code = main(["ml", "hina", "--timeout", "1"])

    assert code == 1
    assert "does not say how to reach the API server" in capsys.readouterr().err
