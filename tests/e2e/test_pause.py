"""The real trainer, paused in the middle and resumed: the adapter is that of a run that nobody touched."""

import asyncio
import hashlib
import os
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml

from lora_api import LoraTraining, names
from lora_demo.seaweed import ObjectStore
from lora_devcluster.kueue import QueueSetting
from tests.support import scenario as scenario_settings
from tests.support.scenario import PROFILES, TRAININGS, Scenario, open_scenario
from tests.support.seaweed import real_store as real_store
from tests.support.tiny_pipeline import write_tiny_pipeline
from tests.support.tiny_run import make_training, write_pictures

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
    folder = tmp_path_factory.mktemp("inputs")
    write_tiny_pipeline(folder / "base")
    write_pictures(folder / "train")
    return folder


@pytest.fixture
async def scenario(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scenario]:
    """A cluster that runs the real trainer, which takes longer than the one that scenarios usually have."""
    monkeypatch.setitem(scenario_settings.IMAGES, "real:*", ("python", "-m", "lora_trainer"))
    monkeypatch.setattr(scenario_settings, "TIMEOUT_SECONDS", 200)
    async with open_scenario(tmp_path) as scenario:
        scenario.profiles_file.write_text(yaml.safe_dump({**PROFILES, "real": {"image": "real:1"}}))
        yield scenario


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def document(training: LoraTraining, store: ObjectStore) -> dict[str, Any]:
    """The same training for the cluster, where files lie in a bucket, and whose queue is `main`."""
    spec = training.spec.to_document()
    for section, place in (("baseModel", "base"), ("dataset", "train"), ("output", "out")):
        spec[section]["uri"] = f"s3://{BUCKET}/{place}"
    storage = {"endpoint": store.endpoint, "region": "us-east-1", "credentialsSecretRef": {"name": "s3"}}
    spec |= {"profile": "real", "scheduling": {"queueName": "main"}, "storage": storage}
    return {"apiVersion": names.API_VERSION, "kind": names.KIND, "metadata": {"name": "tiny"}, "spec": spec}


def upload(store: ObjectStore, folder: Path) -> Any:
    """A client of the store, in whose bucket the folder's files are now."""
    keys = {"aws_access_key_id": store.access_key, "aws_secret_access_key": store.secret_key}
    client = boto3.client("s3", endpoint_url=store.endpoint, region_name="us-east-1", **keys)
    client.create_bucket(Bucket=BUCKET)
    for path in folder.rglob("*"):
        if path.is_file():
            client.upload_file(str(path), BUCKET, path.relative_to(folder).as_posix())
    return client


async def make_secret(scenario: Scenario, store: ObjectStore) -> None:
    keys = {"AWS_ACCESS_KEY_ID": store.access_key, "AWS_SECRET_ACCESS_KEY": store.secret_key}
    body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s3"}, "stringData": keys}
    await scenario.send("POST", "/api/v1/namespaces/ml/secrets", body)


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
    client = upload(real_store, inputs)
    await make_secret(scenario, real_store)
    scenario.cluster.install_queue(QueueSetting(quotas={"main": {"pods": "1"}}))
    await scenario.start_operator(status_interval_seconds=0.0)

    await scenario.send("POST", TRAININGS, document(training, real_store))
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
