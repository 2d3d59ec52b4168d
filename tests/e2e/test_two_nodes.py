"""The real trainer on two nodes of the cluster, one of which is taken away in the middle."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, load_file

from lora_demo.seaweed import ObjectStore
from lora_trainer.run import run_training
from tests.support.real_trainer import document, make_secret, open_real_scenario, upload, write_inputs
from tests.support.scenario import TRAININGS, Scenario
from tests.support.seaweed import real_store as real_store
from tests.support.tiny_run import FEW_BLOCKS, make_session, make_training

ADAPTER, BUCKET = "adapters/tiny.safetensors", "nodes"
SHORT: dict[str, Any] = {
    "network": {"rank": 4, "blocks": list(FEW_BLOCKS)},
    "checkpoints": {"everyEpochs": 3},
    "samples": {"prompts": []},
}


async def test_two_nodes_of_which_one_is_taken_away_make_what_one_alone_makes_in_twice_the_batches(
    tmp_path: Path, real_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = write_inputs(tmp_path / "inputs")
    places = (inputs / "base", inputs / "train", tmp_path / "alone")
    # As many threads in the pods as here: sums over other parts of a matrix are rounded otherwise.
    threads = {"env": [{"name": "OMP_NUM_THREADS", "value": str(torch.get_num_threads())}]}
    both = make_training(*places, training={"epochs": 6}, parallelism={"nodes": 2}, pod=threads, **SHORT)
    alone = make_training(*places, training={"epochs": 6, "gradientAccumulationSteps": 2}, **SHORT)
    client = upload(real_store, inputs, BUCKET)

    async with open_real_scenario(tmp_path, monkeypatch) as scenario:
        await make_secret(scenario, real_store)
        await scenario.start_operator()
        await scenario.send("POST", TRAININGS, document(both, real_store, BUCKET))
        await scenario.until(lambda: _step(scenario) > 0)
        scenario.cluster.disruptions.preempt("ml", _second_pod(scenario))
        ended = await scenario.until(lambda: _ended(scenario))
    await asyncio.to_thread(run_training, alone, make_session(tmp_path / "work").session)

    attempts = ended["status"]["attempts"]
    made = load(client.get_object(Bucket=BUCKET, Key=f"out/{ADAPTER}")["Body"].read())
    assert ended["status"]["phase"] == "Succeeded", ended["status"]
    assert (attempts["number"], attempts["preemptions"], attempts["failures"]) == (2, 1, 0)
    assert (attempts["resumedFromStep"] > 0, attempts["lostSteps"]) == (True, 0)
    # The files hold 16 bits; other data, noise or order would change weights by a learning rate of 0.01.
    torch.testing.assert_close(made, load_file(tmp_path / "alone" / ADAPTER), rtol=2e-3, atol=2e-4)


def _step(scenario: Scenario) -> int:
    progress = (scenario.training("tiny") or {}).get("status", {}).get("progress") or {}
    return int(progress.get("step", 0))


def _second_pod(scenario: Scenario) -> str:
    (pod,) = [pod for pod in scenario.stored("", "pods") if pod["spec"].get("hostname") == "tiny-a1-1"]
    return str(pod["metadata"]["name"])


def _ended(scenario: Scenario) -> dict[str, Any] | None:
    body = scenario.training("tiny")
    return body if body and body["status"].get("phase") in {"Succeeded", "Failed"} else None
