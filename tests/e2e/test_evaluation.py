"""The real trainer, whose evaluation is changed after the training: nothing is trained again."""

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from lora_demo.seaweed import ObjectStore
from tests.support.real_trainer import document, make_secret, open_real_scenario, upload, write_inputs
from tests.support.scenario import TRAININGS, Scenario, condition
from tests.support.seaweed import real_store as real_store
from tests.support.tiny_run import FEW_BLOCKS, make_training

BUCKET = "evaluation"
PROMPT = {"prompt": "zwx red shape", "steps": 1, "widthPx": 64, "heightPx": 64}


@pytest.fixture
async def scenario(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scenario]:
    async with open_real_scenario(tmp_path, monkeypatch) as found:
        yield found


def digests(client: Any) -> dict[str, str]:
    """Every object of the output, by key."""
    found = client.list_objects_v2(Bucket=BUCKET, Prefix="out/").get("Contents", ())
    read = {entry["Key"]: client.get_object(Bucket=BUCKET, Key=entry["Key"])["Body"].read() for entry in found}
    return {key: hashlib.sha256(content).hexdigest() for key, content in read.items()}


async def test_a_grid_asked_for_later_is_drawn_and_the_training_stays_as_it_is(
    scenario: Scenario, tmp_path: Path, real_store: ObjectStore
) -> None:
    inputs = write_inputs(tmp_path / "inputs")
    changes: dict[str, Any] = {"samples": {"prompts": []}, "network": {"blocks": list(FEW_BLOCKS)}}
    training = make_training(inputs / "base", inputs / "train", tmp_path / "unused", **changes)
    client = upload(real_store, inputs, BUCKET)
    await make_secret(scenario, real_store)
    await scenario.start_operator()
    await scenario.send("POST", TRAININGS, document(training, real_store, BUCKET))
    ended = await scenario.until(lambda: _ended(scenario))
    before = digests(client)

    grid = {"weights": [0.5, 1], "prompts": [PROMPT]}
    await scenario.change({"spec": {"evaluation": {"grid": grid}}}, name="tiny")
    body = await scenario.until(lambda: _evaluated(scenario))

    after = digests(client)
    assert condition(body, "Evaluated")["status"] == "True", body["status"]
    assert scenario.jobs() == ["tiny-a1", "tiny-e2"]
    assert body["status"]["completionTime"] == ended["status"]["completionTime"]
    assert "evaluation/manifest.json" in " ".join(set(after) - set(before))
    assert body["status"]["artifacts"]["gridUri"].startswith(f"s3://{BUCKET}/out/evaluation/")
    adapters = [key for key in before if "/adapters/" in key]
    assert len(adapters) >= 2
    assert [after[key] for key in adapters] == [before[key] for key in adapters]


def _ended(scenario: Scenario) -> dict[str, Any] | None:
    body = scenario.training("tiny") or {}
    return body if body.get("status", {}).get("phase") in {"Succeeded", "Failed"} else None


def _evaluated(scenario: Scenario) -> dict[str, Any] | None:
    body = scenario.training("tiny")
    found = condition(body, "Evaluated")
    return body if found is not None and found["status"] != "Unknown" and found["reason"] != "NotRequested" else None
