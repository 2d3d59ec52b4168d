"""The real trainer, paused in the middle and resumed: the adapter is that of a run that nobody touched."""

import asyncio
import hashlib
import os
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from lora_api import LoraTraining
from lora_demo.seaweed import ObjectStore
from lora_devcluster.kueue import QueueSetting
from tests.support.real_trainer import document, make_secret, open_real_scenario, upload, write_inputs
from tests.support.scenario import TRAININGS, Scenario
from tests.support.seaweed import real_store as real_store
from tests.support.tiny_run import make_training

ADAPTER = "adapters/tiny.safetensors"
LONG = {
    "training": {"epochs": 10},
    "checkpoints": {"everyEpochs": 5},
    "samples": {"prompts": []},
}
STEPS, BUCKET = 60, "pause"


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Base model and pictures; read only."""
    return write_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture
async def scenario(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scenario]:
    async with open_real_scenario(tmp_path, monkeypatch) as found:
        yield found


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def queued(body: dict[str, Any]) -> dict[str, Any]:
    """The training in the queue `main`."""
    return {**body, "spec": {**body["spec"], "scheduling": {"queueName": "main"}}}


def phase(body: dict[str, Any]) -> str:
    return str(body.get("status", {}).get("phase", ""))


def step(body: dict[str, Any]) -> int:
    progress = body.get("status", {}).get("progress") or {}
    return int(progress.get("step", 0))


async def until(scenario: Scenario, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The training once this holds of it; it must not end otherwise."""

    def look() -> dict[str, Any] | None:
        body = scenario.training("tiny") or {}
        return body if holds(body) or phase(body) in {"Succeeded", "Failed"} else None

    body: dict[str, Any] = await scenario.until(look)
    assert holds(body), body["status"]
    return body


async def train_alone(training: LoraTraining, folder: Path) -> asyncio.subprocess.Process:
    """The same training beside the cluster, in a process of its own as a pod is."""
    file = folder / "alone.yaml"
    file.write_text(yaml.safe_dump(training.to_document()))
    command = (sys.executable, "-m", "lora_trainer", "run", str(file), "--work-dir", str(folder / "work"))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return await asyncio.create_subprocess_exec(*command, env=environment)


async def test_a_paused_and_resumed_training_makes_the_very_same_adapter(
    scenario: Scenario, inputs: Path, real_store: ObjectStore, tmp_path: Path
) -> None:
    training = make_training(inputs / "base", inputs / "train", tmp_path / "alone", **LONG)
    client = upload(real_store, inputs, BUCKET)
    await make_secret(scenario, real_store)
    scenario.cluster.install_queue(QueueSetting(quotas={"main": {"pods": "1"}}))
    await scenario.start_operator(status_interval_seconds=0.0)

    await scenario.send("POST", TRAININGS, queued(document(training, real_store, BUCKET)))
    alone = await train_alone(training, tmp_path)
    await until(scenario, lambda body: step(body) > 0)
    await scenario.change({"spec": {"suspend": True}}, name="tiny")
    paused = await until(scenario, lambda body: phase(body) == "Suspended")
    await scenario.change({"spec": {"suspend": False}}, name="tiny")
    body = await until(scenario, lambda body: phase(body) == "Succeeded")
    assert await alone.wait() == 0

    attempts = body["status"]["attempts"]
    assert 0 < step(paused) < STEPS
    assert paused["status"]["savedState"]["step"] == attempts["resumedFromStep"]
    assert (attempts["number"], attempts["lostSteps"]) == (2, 0)
    assert 0 < attempts["resumedFromStep"] < STEPS
    adapter = client.get_object(Bucket=BUCKET, Key=f"out/{ADAPTER}")["Body"].read()
    assert sha256(adapter) == sha256((tmp_path / "alone" / ADAPTER).read_bytes())
