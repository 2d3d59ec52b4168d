"""What earlier versions left in the API server is valid today, is read, and comes to its end."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml

from lora_api import names
from lora_api.status import LoraTrainingStatus
from lora_devcluster.api import key_for
from lora_devcluster.kueue import QueueSetting
from lora_operator.subject import parse_subject
from tests.compat.record import FOLDER, GATE
from tests.support.scenario import Manifest, Scenario, condition, open_scenario

STORED = sorted(Path(__file__).parent.glob("stored-*.yaml"))
ENDED = {"succeeded": "Succeeded", "evaluated": "Succeeded", "failed": "Failed"}
ACTIVE = ("pending", "created-suspended", "unschedulable", "queued", "running", "suspended", "failed-once")

each_version = pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)


def read(path: Path, folder: Path) -> list[Manifest]:
    found: list[Manifest] = yaml.safe_load(path.read_text().replace(FOLDER, str(folder)))
    return found


def trainings(found: list[Manifest]) -> list[Manifest]:
    return [obj for obj in found if obj["kind"] == names.KIND]


def restore(scenario: Scenario, found: list[Manifest]) -> None:
    """Puts objects into the store as they were, with uid and status, as a database under a new version has them."""
    for obj in found:
        resource = scenario.cluster.api.registry.of_kind(obj["apiVersion"], obj["kind"])
        assert resource is not None
        scenario.cluster.store.put(key_for(resource, "ml", obj["metadata"]["name"]), obj)


@pytest.fixture
async def scenario(tmp_path: Path) -> AsyncIterator[Scenario]:
    async with open_scenario(tmp_path) as found:
        yield found


@each_version
async def test_stored_trainings_can_be_changed_and_keep_what_they_said(path: Path, scenario: Scenario) -> None:
    before = trainings(read(path, scenario.folder))
    restore(scenario, before)

    for obj in before:
        await scenario.change({"metadata": {"labels": {"touched": "yes"}}}, name=obj["metadata"]["name"])

    assert len(before) > 12
    for obj in before:
        after = scenario.training(obj["metadata"]["name"])
        assert after is not None
        assert without_new_defaults(after["spec"], obj["spec"]) == obj["spec"]
        status = obj.get("status", {})
        assert without_new_defaults(after["status"], status) == status


def without_new_defaults(now: Manifest, then: Manifest) -> Manifest:
    """What `now` says of the fields that there were then."""
    kept = {key: value for key, value in now.items() if key in then}
    return {
        key: without_new_defaults(value, then[key])
        if isinstance(value, dict) and isinstance(then[key], dict)
        else value
        for key, value in kept.items()
    }


@each_version
def test_stored_trainings_are_read(path: Path, tmp_path: Path) -> None:
    found = trainings(read(path, tmp_path))

    for obj in found:
        assert parse_subject(obj).key.name == obj["metadata"]["name"]
        LoraTrainingStatus.model_validate_json(json.dumps(obj.get("status", {})))


@each_version
async def test_stored_trainings_go_on_and_end(path: Path, scenario: Scenario) -> None:
    found = read(path, scenario.folder)
    ended = {name: obj for obj in trainings(found) if (name := obj["metadata"]["name"]) in ENDED}
    scenario.cluster.install_queue(QueueSetting(quotas={"main": {"pods": "1"}}))
    (scenario.folder / GATE).touch()
    (scenario.folder / "marks").touch()
    restore(scenario, [obj for obj in found if training_of(obj) in (*ENDED, *ACTIVE)])
    await scenario.start_operator()

    for name in ("created-suspended", "suspended"):
        await scenario.change({"spec": {"suspend": False}}, name=name)
    find_the_cellar(scenario)
    finished = {name: await scenario.until_phase("Succeeded", name) for name in ACTIVE}

    assert set(ended) == set(ENDED)
    for name, before in ended.items():
        after = scenario.training(name)
        assert after is not None
        assert after["status"]["phase"] == ENDED[name]
        assert condition(after, "Finished") == condition(before, "Finished")
    assert finished["failed-once"]["status"]["attempts"]["failures"] == 1
    assert {name for name in scenario.jobs() if not name.endswith("-a1")} == {"evaluated-e2"}


def find_the_cellar(scenario: Scenario) -> None:
    """Gives the node the label that a training waits for."""
    (node,) = scenario.cluster.store.objects("", "nodes")
    key = scenario.cluster.store.key_of(node["metadata"]["uid"])
    assert key is not None
    scenario.cluster.api.modify(key, lambda found: found["metadata"]["labels"].update(room="cellar"))


def training_of(obj: Manifest) -> str:
    labels: Manifest = obj["metadata"].get("labels", {})
    return str(labels.get(names.LABEL_TRAINING, obj["metadata"]["name"]))


def test_the_first_version_is_among_them() -> None:
    assert STORED[0].name == "stored-0.1.0.yaml"
