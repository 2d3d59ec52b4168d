"""The life of a training on the laptop-sized cluster, as a user sees it."""

import re
from typing import Any

import pytest

from lora_api import names
from tests.support.scenario import JOBS, Scenario, condition


async def test_a_training_runs_to_its_end_and_tells_so(scenario: Scenario) -> None:
    gate = scenario.folder / "gate"
    await scenario.start_operator()

    await scenario.create(env={"FAKE_GATE": gate})
    running = await scenario.until_phase("Running")
    gate.touch()
    body = await scenario.until_phase("Succeeded")
    await scenario.until(lambda: "Completed" in scenario.events())

    assert running["status"]["summary"]["epoch"] == "1/2"
    assert running["status"]["summary"]["progress"] == "50%"
    assert running["status"]["summary"]["left"] == "5h 25m"
    assert condition(body, "Succeeded")["reason"] == "Completed"
    assert body["status"]["artifacts"]["manifestUri"] == "s3://lora/runs/hina/manifest.json"
    assert body["status"]["observedGeneration"] == body["metadata"]["generation"]
    assert body["status"]["completionTime"]
    assert scenario.jobs() == ["hina-a1"]
    assert set(scenario.events()) == {"Completed"}
    assert all(event["count"] == 1 for event in scenario.events().values())


async def test_the_pod_reads_the_very_training_that_was_applied(scenario: Scenario) -> None:
    await scenario.start_operator()

    await scenario.create(("optimizer.arguments", {"weight_decay": "1e-2"}))
    await scenario.until_phase("Succeeded")

    (pod,) = scenario.stored("", "pods")
    assert '"1e-2"' in pod["metadata"]["annotations"][names.ANNOTATION_TRAINING]


async def test_what_pods_say_is_not_written_again_while_nothing_changes(scenario: Scenario) -> None:
    gate = scenario.folder / "gate"
    application = await scenario.start_operator(progress_interval_seconds=0.05)
    await scenario.create(env={"FAKE_GATE": gate})
    await scenario.until_phase("Running")
    before = scenario.writes("loratrainings/status")
    looks = _looks(scenario.metrics(application))

    # The fake trainer tells a new time with every answer, and the same step.
    await scenario.until_told(lambda: _looks(scenario.metrics(application)) > looks + 5)

    assert scenario.writes("loratrainings/status") == before
    gate.touch()
    await scenario.until_phase("Succeeded")


async def test_applying_a_finished_training_again_trains_nothing(scenario: Scenario) -> None:
    await scenario.start_operator()
    await scenario.create()
    await scenario.until_phase("Succeeded")

    await scenario.change({"metadata": {"labels": {"touched": "yes"}}, "spec": {"limits": {"activeSeconds": 600}}})
    body = await scenario.until(lambda: (b := scenario.training()) and _is_seen(b) and b)

    assert body["status"]["phase"] == "Succeeded"
    assert scenario.jobs() == ["hina-a1"]


async def test_after_its_time_to_live_the_children_go_and_never_come_back(scenario: Scenario) -> None:
    await scenario.start_operator()
    await scenario.create(("ttlSecondsAfterFinished", 0))
    await scenario.until_phase("Succeeded")
    await scenario.until(lambda: not scenario.jobs())

    await scenario.stop_operators()
    await scenario.start_operator()
    await scenario.change({"spec": {"ttlSecondsAfterFinished": 5}})
    body = await scenario.until(lambda: (b := scenario.training()) and _is_seen(b) and b)

    assert body["status"]["phase"] == "Succeeded"
    assert scenario.jobs() == []


async def test_a_suspended_training_frees_its_pod_and_goes_on_when_resumed(scenario: Scenario) -> None:
    gate = scenario.folder / "gate"
    await scenario.start_operator()
    await scenario.create(("limits.activeSeconds", 3600), env={"FAKE_GATE": gate})
    await scenario.until_phase("Running")

    await scenario.change({"spec": {"suspend": True}})
    suspended = await scenario.until_phase("Suspended")
    gate.touch()
    await scenario.change({"spec": {"suspend": False}})
    body = await scenario.until_phase("Succeeded")

    assert condition(suspended, "Suspended")["reason"] == "UserRequested"
    assert suspended["status"]["summary"]["epoch"] == "1/2"
    assert scenario.jobs() == ["hina-a1"]
    assert body["status"]["attempts"]["failures"] == 0


async def test_a_training_created_suspended_starts_no_pod(scenario: Scenario) -> None:
    await scenario.start_operator()

    await scenario.create(("suspend", True))
    await scenario.until_phase("Suspended")

    assert scenario.stored("", "pods") == []


async def test_a_job_deleted_by_hand_is_followed_by_the_next_attempt(scenario: Scenario) -> None:
    gate = scenario.folder / "gate"
    await scenario.start_operator()
    await scenario.create(env={"FAKE_GATE": gate})
    await scenario.until_phase("Running")

    gate.touch()
    await scenario.delete("hina-a1", path=JOBS)
    body = await scenario.until_phase("Succeeded")

    assert scenario.jobs() == ["hina-a2"]
    assert body["status"]["attempts"]["number"] == 2


async def test_a_deleted_training_takes_its_children_along_while_the_operator_is_down(scenario: Scenario) -> None:
    await scenario.start_operator()
    await scenario.create(env={"FAKE_GATE": scenario.folder / "never"})
    await scenario.until_phase("Running")
    await scenario.stop_operators()

    await scenario.delete("hina")

    await scenario.until(lambda: not (scenario.training() or scenario.jobs() or scenario.stored("", "pods")))


async def test_a_training_created_again_under_its_name_starts_anew(scenario: Scenario) -> None:
    gate = scenario.folder / "gate"
    await scenario.start_operator()
    first = await scenario.create(env={"FAKE_GATE": gate})
    await scenario.until_phase("Running")

    await scenario.delete("hina")
    second = await scenario.create(env={"FAKE_GATE": gate})
    gate.touch()
    body = await scenario.until_phase("Succeeded")

    assert first["metadata"]["uid"] != second["metadata"]["uid"] == body["metadata"]["uid"]
    assert scenario.jobs() == ["hina-a1"]
    assert body["status"]["attempts"]["number"] == 1


async def test_series_of_a_training_end_with_it(scenario: Scenario) -> None:
    application = await scenario.start_operator()
    await scenario.create()
    await scenario.until_phase("Succeeded")
    before = scenario.metrics(application)

    await scenario.delete("hina")
    await scenario.until_told(lambda: 'name="hina"' not in scenario.metrics(application))

    assert 'lora_training_step{name="hina",namespace="ml"} 10.0' in before
    assert 'lora_operator_trainings{phase="Succeeded"} 1.0' in before
    assert 'lora_operator_trainings{phase="Succeeded"} 0.0' in scenario.metrics(application)


async def test_only_the_named_namespaces_are_served(scenario: Scenario) -> None:
    await scenario.start_operator(namespaces=("ml",))
    other = await scenario.create_in("other")

    await scenario.create()
    await scenario.until_phase("Succeeded")

    body = await scenario.send("GET", f"/apis/{names.API_VERSION}/namespaces/other/{names.PLURAL}/{other}", {})
    assert "phase" not in body["status"]


@pytest.mark.parametrize("namespaces", [(), ("ml",)], ids=["cluster-wide", "namespaced"])
async def test_the_operator_asks_only_for_what_its_rights_allow(
    scenario: Scenario, namespaces: tuple[str, ...]
) -> None:
    await scenario.start_operator(namespaces=namespaces)
    await scenario.create()
    await scenario.until_phase("Succeeded")
    await scenario.until(lambda: "Completed" in scenario.events())

    asked = {(r.target, r.verb) for r in scenario.cluster.requests if not r.user_agent.startswith("Python")}
    read = {"get", "list", "watch"}
    cluster_wide = set() if namespaces else {"namespaces", "customresourcedefinitions"}
    assert {target for target, verb in asked if verb in read} <= {"loratrainings", "jobs", "pods", *cluster_wide}
    written = {target for target, verb in asked if verb not in read}
    assert written == {"jobs", "loratrainings/status", "events"}


def _is_seen(body: dict[str, Any]) -> bool:
    return body["status"]["observedGeneration"] == body["metadata"]["generation"]


def _looks(metrics: str) -> float:
    found = re.findall(r"^lora_operator_reconciles_total{.*} (\S+)$", metrics, re.MULTILINE)
    return sum(float(value) for value in found)
