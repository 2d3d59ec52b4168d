"""The real trainer in the cluster: paused in the middle, resumed, and evaluated again after its end."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from lora_api import LoraTraining
from lora_demo.seaweed import ObjectStore
from lora_devcluster.kueue import QueueSetting
from lora_trainer.run import run_training
from tests.support.real_trainer import document, make_secret, open_real_scenario, upload, write_inputs
from tests.support.scenario import TRAININGS, Scenario, condition
from tests.support.seaweed import real_store as real_store
from tests.support.tiny_run import make_session, make_training

pytestmark = pytest.mark.asyncio(loop_scope="module")

ADAPTER = "adapters/tiny.safetensors"
LONG = {
    "training": {"epochs": 10},
    "checkpoints": {"everyEpochs": 5},
    "samples": {"prompts": []},
}
STEPS, BUCKET = 60, "real"
GRID = {"weights": [0.5], "prompts": [{"prompt": "zwx red shape", "steps": 1, "widthPx": 64, "heightPx": 64}]}


@dataclass(frozen=True)
class Trained:
    """A training that was paused, resumed, and has succeeded."""

    scenario: Scenario
    client: Any
    paused: dict[str, Any]
    ended: dict[str, Any]
    alone: Path
    """Output of the same training that nobody touched."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def trained(tmp_path_factory: pytest.TempPathFactory, real_store: ObjectStore) -> AsyncIterator[Trained]:
    """One for all tests of this module: real trainings take their time."""
    folder = tmp_path_factory.mktemp("real")
    inputs = write_inputs(folder / "inputs")
    training = make_training(inputs / "base", inputs / "train", folder / "alone", **LONG)
    client = upload(real_store, inputs, BUCKET)
    with pytest.MonkeyPatch.context() as monkeypatch:
        async with open_real_scenario(folder, monkeypatch) as scenario:
            await make_secret(scenario, real_store)
            scenario.cluster.install_queue(QueueSetting(quotas={"main": {"pods": "1"}}))
            await scenario.start_operator(status_interval_seconds=0.0)
            await scenario.send("POST", TRAININGS, queued(document(training, real_store, BUCKET)))
            alone = asyncio.create_task(train_alone(training, folder))
            paused, ended = await pause_and_resume(scenario)
            await alone
            yield Trained(scenario, client, paused, ended, folder / "alone")


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


async def pause_and_resume(scenario: Scenario) -> tuple[dict[str, Any], dict[str, Any]]:
    """The training while it is paused, and at its end."""
    await until(scenario, lambda body: step(body) > 0)
    await scenario.change({"spec": {"suspend": True}}, name="tiny")
    paused = await until(scenario, lambda body: phase(body) == "Suspended")
    await scenario.change({"spec": {"suspend": False}}, name="tiny")
    return paused, await until(scenario, lambda body: phase(body) == "Succeeded")


async def train_alone(training: LoraTraining, folder: Path) -> None:
    """The same training beside the cluster."""
    await asyncio.to_thread(run_training, training, make_session(folder / "work").session)


def digests(client: Any) -> dict[str, str]:
    """Every object of the output, by its path."""
    found = client.list_objects_v2(Bucket=BUCKET, Prefix="out/").get("Contents", ())
    read = {entry["Key"]: client.get_object(Bucket=BUCKET, Key=entry["Key"])["Body"].read() for entry in found}
    return {key.removeprefix("out/"): sha256(content) for key, content in read.items()}


async def test_a_paused_and_resumed_training_makes_the_very_same_adapter(trained: Trained) -> None:
    adapter = digests(trained.client)[ADAPTER]

    attempts = trained.ended["status"]["attempts"]
    assert 0 < step(trained.paused) < STEPS
    assert trained.paused["status"]["savedState"]["step"] == attempts["resumedFromStep"]
    assert (attempts["number"], attempts["lostSteps"]) == (2, 0)
    assert 0 < attempts["resumedFromStep"] < STEPS
    assert adapter == sha256((trained.alone / ADAPTER).read_bytes())


async def test_a_grid_asked_for_later_is_drawn_and_the_training_stays_as_it_is(trained: Trained) -> None:
    scenario, before = trained.scenario, digests(trained.client)

    await scenario.change({"spec": {"evaluation": {"grid": GRID}}}, name="tiny")
    body = await scenario.until(lambda: _evaluated(scenario))

    after = digests(trained.client)
    assert (condition(body, "Evaluated") or {})["status"] == "True", body["status"]
    assert [name for name in scenario.jobs() if "-e" in name] == ["tiny-e4"]
    assert body["status"]["completionTime"] == trained.ended["status"]["completionTime"]
    assert "evaluation/manifest.json" in set(after) - set(before)
    assert body["status"]["artifacts"]["gridUri"].startswith(f"s3://{BUCKET}/out/evaluation/")
    adapters = {path for path in before if path.startswith("adapters/")}
    assert len(adapters) >= 2
    assert {path: after[path] for path in adapters} == {path: before[path] for path in adapters}


def _evaluated(scenario: Scenario) -> dict[str, Any] | None:
    body = scenario.training("tiny")
    found = condition(body, "Evaluated")
    return body if found is not None and found["status"] != "Unknown" and found["reason"] != "NotRequested" else None
