"""The life of a training with several nodes on the laptop-sized cluster, as a user sees it."""

from typing import Any

import pytest

from lora_api import names
from lora_devcluster.kueue import QueueSetting
from lora_operator import gang
from tests.support.scenario import Manifest, Scenario, condition

TWO_NODES = ("parallelism", {"nodes": 2, "gpusPerNode": 0})
SERVICES = "/api/v1/namespaces/ml/services"


def pods_by_index(scenario: Scenario, attempt: int = 1) -> list[Manifest]:
    """The running pods of an attempt."""
    found = [
        pod
        for pod in scenario.stored("", "pods")
        if pod["metadata"]["labels"][names.LABEL_ATTEMPT] == str(attempt) and pod["status"].get("phase") == "Running"
    ]
    return sorted(found, key=lambda pod: str(pod["spec"]["hostname"]))


async def both_running(scenario: Scenario, attempt: int = 1) -> list[Manifest]:
    await scenario.until(lambda: len(pods_by_index(scenario, attempt)) == 2)
    return pods_by_index(scenario, attempt)


def attempts(body: Manifest) -> dict[str, int]:
    return {name: body["status"]["attempts"].get(name, 0) for name in ("number", "failures", "preemptions")}


async def create(scenario: Scenario, *changes: tuple[str, Any], **env: Any) -> None:
    await scenario.create(TWO_NODES, *changes, env=env)


async def test_two_nodes_train_together_to_the_end(scenario: Scenario) -> None:
    gate = scenario.folder / "gate"
    await scenario.start_operator()

    await create(scenario, FAKE_GATE=gate)
    first, second = await both_running(scenario)
    running = await scenario.until_phase("Running")
    gate.touch()
    body = await scenario.until_phase("Succeeded")

    (service,) = scenario.stored("", "services")
    assert service["metadata"]["ownerReferences"][0]["name"] == "hina"
    assert (first["spec"]["hostname"], second["spec"]["hostname"]) == ("hina-a1-0", "hina-a1-1")
    assert condition(running, "Scheduled")["message"].startswith("all 2 pods")
    assert running["status"]["summary"]["epoch"] == "1/2"
    assert attempts(body) == {"number": 1, "failures": 0, "preemptions": 0}
    assert scenario.jobs() == ["hina-a1"]


async def test_when_one_node_is_lost_all_start_again_and_it_counts_once(scenario: Scenario) -> None:
    gate = scenario.folder / "gate"
    await scenario.start_operator()
    await create(scenario, FAKE_GATE=gate)
    _, second = await both_running(scenario)
    await scenario.until_phase("Running")

    scenario.cluster.disruptions.preempt("ml", second["metadata"]["name"])
    again = await both_running(scenario, attempt=2)
    gate.touch()
    body = await scenario.until_phase("Succeeded")

    assert [pod["spec"]["hostname"] for pod in again] == ["hina-a2-0", "hina-a2-1"]
    assert attempts(body) == {"number": 2, "failures": 0, "preemptions": 1}


async def test_a_failure_on_any_node_counts_once_and_all_start_again(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gang, "RETRY_SECONDS", 0.01)
    await scenario.start_operator()

    await create(scenario, FAKE_EXIT_ONCE=69, FAKE_MARKS=scenario.folder / "mark", FAKE_NODE=1)
    body = await scenario.until_phase("Succeeded")

    assert attempts(body) == {"number": 2, "failures": 1, "preemptions": 0}
    assert scenario.stored("batch", "jobs")[-1]["metadata"]["annotations"]["lora-operator.io/failures-before"] == "1"


async def test_what_only_a_person_can_cure_ends_the_training_on_whatever_node_it_shows(scenario: Scenario) -> None:
    await scenario.start_operator()

    await create(scenario, ("ttlSecondsAfterFinished", 0), FAKE_EXIT=65, FAKE_NODE=1)
    body = await scenario.until_phase("Failed")
    await scenario.until(lambda: not (scenario.jobs() or scenario.stored("", "services")))

    assert condition(body, "Succeeded")["reason"] == "InvalidDataset"
    assert "of node 1: TrainData/50_hina/broken.png does not decode" in body["status"]["failure"]["message"]
    assert attempts(body) == {"number": 1, "failures": 1, "preemptions": 0}


async def test_a_pause_stops_all_nodes_and_is_no_interruption(scenario: Scenario) -> None:
    gate = scenario.folder / "gate"
    await scenario.start_operator()
    await create(scenario, FAKE_GATE=gate)
    await both_running(scenario)
    await scenario.until_phase("Running")

    await scenario.change({"spec": {"suspend": True}})
    await scenario.until_phase("Suspended")
    paused = (scenario.jobs(), scenario.pod_count())
    gate.touch()
    await scenario.change({"spec": {"suspend": False}})
    body = await scenario.until_phase("Succeeded")

    assert paused == ([], 0)
    assert attempts(body) == {"number": 2, "failures": 0, "preemptions": 0}


async def test_a_service_of_that_name_which_is_not_ours_is_left_alone_and_told_of(scenario: Scenario) -> None:
    foreign = {"metadata": {"name": "hina-nodes"}, "spec": {"ports": [{"port": 80}]}}
    await scenario.send("POST", SERVICES, {"apiVersion": "v1", "kind": "Service", **foreign})
    await scenario.start_operator()

    await create(scenario)
    told = await scenario.until_condition("Scheduled", "JobRefused")

    assert "Service hina-nodes exists already" in told["message"]
    assert scenario.jobs() == []


async def test_a_queue_lets_all_nodes_in_at_once_and_takes_them_all(scenario: Scenario) -> None:
    gate = scenario.folder / "gate"
    queue = scenario.cluster.install_queue(QueueSetting(quotas={"main": {"pods": "1"}}))
    await scenario.start_operator()

    await create(scenario, ("scheduling.queueName", "main"), FAKE_GATE=gate)
    waiting = await scenario.until_condition("Scheduled", "Queued")
    queue.set_quota("main", {"pods": "2"})
    await both_running(scenario)
    await scenario.until_phase("Running")
    queue.set_quota("main", {"pods": "0"})
    queue.preempt("ml", "hina-a1")
    await scenario.until(lambda: scenario.pod_count() == 0)
    await scenario.until(lambda: (scenario.training() or {})["status"]["attempts"]["pods"]["paused"] == 1)
    gate.touch()
    queue.set_quota("main", {"pods": "2"})
    body = await scenario.until_phase("Succeeded")

    assert waiting["status"] == "False"
    assert attempts(body) == {"number": 1, "failures": 0, "preemptions": 1}
