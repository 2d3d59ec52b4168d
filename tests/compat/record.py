"""Writes down what the API server holds of trainings in every state, for later versions to take over.

Run at a release, from a checkout of it: `python -m tests.compat.record`. The file of a version is never made anew.
"""

import asyncio
import tempfile
from importlib.metadata import version
from pathlib import Path

import yaml

from lora_api import names
from lora_api.load import parse_yaml
from lora_devcluster.kueue import QueueSetting
from tests.support.scenario import ROOT, TRAININGS, Manifest, Scenario, open_scenario

FOLDER = "/folder-of-the-cluster"
"""Stands for the folder in which the gates are that hold pods up."""
GATE = "gate"


async def make_waiting(scenario: Scenario) -> None:
    """Trainings without any pod: paused from the start, without a node, in a queue."""
    await scenario.create(("suspend", True), name="created-suspended")
    await scenario.until_phase("Suspended", "created-suspended")
    await scenario.create(("scheduling", {"nodeSelector": {"room": "cellar"}}), name="unschedulable")
    await scenario.until_condition("Scheduled", "Unschedulable", "unschedulable")
    scenario.cluster.install_queue(QueueSetting(quotas={"main": {"pods": "0"}}))
    await scenario.create(("scheduling.queueName", "main"), name="queued")
    await scenario.until_phase("Queued", "queued")


async def make_active(scenario: Scenario) -> None:
    """Trainings in the midst of their steps: with their first pod, paused, and with one failure behind them."""
    gate, marks = scenario.folder / GATE, scenario.folder / "marks"
    gate.touch()
    await scenario.create(name="failed-once", env={"FAKE_GATE": gate, "FAKE_EXIT_ONCE": 69, "FAKE_MARKS": marks})
    await scenario.until(marks.exists)
    gate.unlink()
    await scenario.until(lambda: _failures(scenario, "failed-once") == 1)
    for name in ("running", "suspended"):
        await scenario.create(name=name, env={"FAKE_GATE": gate})
        await scenario.until_phase("Running", name)
    await scenario.change({"spec": {"suspend": True}}, name="suspended")
    await scenario.until_phase("Suspended", "suspended")


async def make_ended(scenario: Scenario) -> None:
    """Trainings that have ended: well, badly, and well with an evaluation that was asked for later."""
    for name, code in (("succeeded", 0), ("evaluated", 0), ("failed", 65)):
        await scenario.create(name=name, env={"FAKE_EXIT": code})
        await scenario.until_phase("Failed" if code else "Succeeded", name)
    await scenario.change({"spec": {"evaluation": {"grid": {"weights": [0.5, 1]}}}}, name="evaluated")
    await scenario.until_condition("Evaluated", "Completed", "evaluated")


async def make_new(scenario: Scenario) -> None:
    """Trainings that no operator has seen: a plain one, and the examples with all their fields."""
    await scenario.create(name="pending")
    for path in sorted((ROOT / "examples").glob("*.yaml")):
        document, _ = parse_yaml(path.read_text())
        if document["kind"] == names.KIND:
            document["metadata"]["namespace"] = "ml"
            document["spec"]["suspend"] = True
            await scenario.send("POST", TRAININGS, document)


def _failures(scenario: Scenario, name: str) -> int:
    body = scenario.training(name) or {}
    return int(body.get("status", {}).get("attempts", {}).get("failures", 0))


async def record(folder: Path) -> list[Manifest]:
    """Trainings and their Jobs as they are stored, without managed fields."""
    async with open_scenario(folder) as scenario:
        await scenario.start_operator()
        await make_waiting(scenario)
        await make_active(scenario)
        await make_ended(scenario)
        await scenario.stop_operators()
        await make_new(scenario)
        found = scenario.stored(names.GROUP, names.PLURAL) + scenario.stored("batch", "jobs")
    return [_without_managed_fields(obj) for obj in found]


def _without_managed_fields(obj: Manifest) -> Manifest:
    return {**obj, "metadata": {key: value for key, value in obj["metadata"].items() if key != "managedFields"}}


def main() -> None:
    """Writes stored-<version>.yaml beside this file."""
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(record(Path(folder)))
        text = yaml.safe_dump(found, width=120).replace(folder, FOLDER)
    path = Path(__file__).with_name(f"stored-{version('lora-operator')}.yaml")
    with path.open("x") as file:
        file.write(text)


if __name__ == "__main__":
    main()
