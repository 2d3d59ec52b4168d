"""Trainings whose turn is decided by Kueue: waiting, admission, preemption, pause; and clusters without Kueue."""

from typing import Any

import pytest

from lora_api import names
from lora_devcluster.kueue import QueueController, QueueSetting
from lora_devcluster.requests import RequestInfo
from lora_operator import workloads
from tests.support.scenario import JOBS, Scenario, condition

QUEUED = ("scheduling.queueName", "main")
NO_ROOM = (
    "queue main: Pending: couldn't assign flavors to pod set main: insufficient unused quota for pods in flavor "
    "default-flavor, 1 more needed"
)
Manifest = dict[str, Any]


def install(scenario: Scenario, room: int = 1, **changes: Any) -> QueueController:
    return scenario.cluster.install_queue(QueueSetting(quotas={"main": {"pods": str(room)}}, **changes))


def set_room(queue: QueueController, room: int) -> None:
    queue.set_quota("main", {"pods": str(room)})


def preempt(queue: QueueController, job: str = "hina-a1") -> None:
    set_room(queue, 0)
    queue.preempt("ml", job)


def job_writes(scenario: Scenario) -> list[RequestInfo]:
    """What operators changed of Jobs."""
    return [
        r
        for r in scenario.cluster.requests
        if r.target == "jobs" and r.verb not in {"get", "list", "watch"} and r.user_agent.startswith("lora-operator/")
    ]


def the_job(scenario: Scenario) -> Manifest:
    (job,) = scenario.stored("batch", "jobs")
    return job


def owned_by_operator(job: Manifest) -> set[str]:
    """Fields of the Job's spec that the operator wrote last."""
    entries = [e for e in job["metadata"]["managedFields"] if e["manager"] == names.MANAGER]
    return {field for entry in entries for field in entry["fieldsV1"].get("f:spec", {})}


def label_node(scenario: Scenario, **labels: str) -> None:
    store = scenario.cluster.store
    key = store.key_of(store.objects("", "nodes")[0]["metadata"]["uid"])
    assert key is not None
    scenario.cluster.api.modify(key, lambda node: node["metadata"]["labels"].update(labels))


async def until_no_pod_is_left(scenario: Scenario) -> None:
    await scenario.until(lambda: scenario.pod_count() == 0)


async def until_queue_says(scenario: Scenario, reason: str, *, words: str = "") -> Manifest:
    def look() -> Manifest | None:
        body = scenario.training() or {}
        queue = body.get("status", {}).get("queue") or {}
        return body if queue.get("reason") == reason and words in queue.get("message", "") else None

    return await scenario.until(look)


async def test_a_training_waits_runs_is_preempted_and_goes_on_in_the_same_job(scenario: Scenario) -> None:
    gate, queue = scenario.folder / "gate", install(scenario, room=0)
    await scenario.start_operator()

    await scenario.create(QUEUED, env={"FAKE_GATE": gate})
    await until_queue_says(scenario, "Pending", words="insufficient")
    waiting = await scenario.until_phase("Queued")
    set_room(queue, 1)
    await scenario.until_phase("Running")
    preempt(queue)
    preempted = await scenario.until_condition("Suspended", "Preempted")
    await until_no_pod_is_left(scenario)
    gate.touch()
    set_room(queue, 1)
    body = await scenario.until_phase("Succeeded")

    assert condition(waiting, "Scheduled")["message"] == NO_ROOM
    assert condition(waiting, "Suspended")["status"] == preempted["status"] == "False"
    assert scenario.jobs() == ["hina-a1"]
    attempts = body["status"]["attempts"]
    assert (attempts["number"], attempts["preemptions"], attempts["failures"]) == (1, 1, 0)
    assert [r.verb for r in job_writes(scenario)] == ["create"]


async def test_the_workload_carries_queue_and_rank(scenario: Scenario) -> None:
    queue = install(scenario, room=0, priorities={"urgent": 100})
    await scenario.start_operator()

    await scenario.create(QUEUED, ("scheduling.queuePriorityClass", "urgent"))
    body = await until_queue_says(scenario, "Pending", words="insufficient")

    workload = queue.workload("ml", "hina-a1")
    assert workload is not None
    assert (workload["spec"]["queueName"], workload["spec"]["priority"]) == ("main", 100)
    assert body["status"]["queue"]["workload"] == workload["metadata"]["name"]


@pytest.mark.parametrize("version", ["v1beta1", "v1beta2"])
async def test_every_version_of_the_workload_is_understood(scenario: Scenario, version: str) -> None:
    install(scenario, room=1, version=version)
    await scenario.start_operator()

    await scenario.create(QUEUED)

    await scenario.until_phase("Succeeded")


async def test_preemptions_of_an_old_kueue_are_counted_without_statistics(scenario: Scenario) -> None:
    gate, queue = scenario.folder / "gate", install(scenario, statistics=False)
    await scenario.start_operator()
    await scenario.create(QUEUED, env={"FAKE_GATE": gate})
    await scenario.until_phase("Running")

    preempt(queue)
    await scenario.until_condition("Suspended", "Preempted")
    await until_no_pod_is_left(scenario)
    gate.touch()
    set_room(queue, 1)
    body = await scenario.until_phase("Succeeded")

    assert body["status"]["attempts"]["preemptions"] == 1


async def test_pausing_gives_the_quota_back_and_resuming_is_the_next_attempt(scenario: Scenario) -> None:
    gate, queue = scenario.folder / "gate", install(scenario)
    await scenario.start_operator()
    await scenario.create(QUEUED, env={"FAKE_GATE": gate})
    await scenario.until_phase("Running")

    await scenario.change({"spec": {"suspend": True}})
    paused = await scenario.until_phase("Suspended")
    left = scenario.jobs(), scenario.stored("kueue.x-k8s.io", "workloads"), scenario.pod_count()
    gate.touch()
    await scenario.change({"spec": {"suspend": False}})
    body = await scenario.until_phase("Succeeded")

    assert condition(paused, "Suspended")["reason"] == "UserRequested"
    assert left == ([], [], 0)
    assert scenario.jobs() == ["hina-a2"]
    attempts = body["status"]["attempts"]
    assert (attempts["number"], attempts["preemptions"], attempts["failures"]) == (2, 0, 0)
    assert [r.verb for r in job_writes(scenario)] == ["create", "delete", "create"]
    assert queue.workload("ml", "hina-a2") is not None


async def test_a_training_created_paused_does_not_enter_its_queue(scenario: Scenario) -> None:
    install(scenario)
    await scenario.start_operator()

    await scenario.create(QUEUED, ("suspend", True))
    await scenario.until_phase("Suspended")
    before = scenario.jobs()
    await scenario.change({"spec": {"suspend": False}})
    await scenario.until_phase("Succeeded")

    assert before == []
    assert scenario.jobs() == ["hina-a1"]


async def test_a_training_that_waits_can_be_paused(scenario: Scenario) -> None:
    install(scenario, room=0)
    await scenario.start_operator()
    await scenario.create(QUEUED)
    await scenario.until_phase("Queued")

    await scenario.change({"spec": {"suspend": True}})
    await scenario.until_phase("Suspended")

    assert scenario.jobs() == []


async def test_without_kueue_a_queued_training_waits_and_says_why_until_kueue_comes(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workloads, "PROBE_SECONDS", 0.1)
    await scenario.start_operator()
    await scenario.create(QUEUED)
    missing = await scenario.until_condition("Scheduled", "KueueNotFound")
    waiting = await scenario.until_phase("Queued")
    await scenario.until(lambda: "KueueNotFound" in scenario.events())

    install(scenario)
    await scenario.until_phase("Succeeded")

    assert "Kueue is not installed, or its CRD is not there" in missing["message"]
    assert scenario.events()["KueueNotFound"]["type"] == "Warning"
    assert waiting["status"]["queue"]["name"] == "main"


async def test_trainings_without_queue_never_ask_for_workloads(scenario: Scenario) -> None:
    await scenario.start_operator()

    await scenario.create()
    await scenario.until_phase("Succeeded")

    assert not [r for r in scenario.cluster.requests if "kueue" in r.group]


async def test_the_operator_restarts_in_every_phase_and_the_end_is_the_same(scenario: Scenario) -> None:
    gate, queue = scenario.folder / "gate", install(scenario, room=0)

    async def restart() -> None:
        await scenario.stop_operators()
        await scenario.start_operator()

    await scenario.start_operator()
    await scenario.create(QUEUED, env={"FAKE_GATE": gate})
    await until_queue_says(scenario, "Pending")
    await restart()
    set_room(queue, 1)
    await scenario.until_phase("Running")
    await restart()
    preempt(queue)
    await scenario.until_condition("Suspended", "Preempted")
    await restart()
    await scenario.change({"spec": {"suspend": True}})
    await scenario.until_phase("Suspended")
    await restart()
    gate.touch()
    set_room(queue, 1)
    await scenario.change({"spec": {"suspend": False}})
    body = await scenario.until_phase("Succeeded")

    attempts = body["status"]["attempts"]
    assert (attempts["number"], attempts["preemptions"], attempts["failures"]) == (2, 1, 0)
    assert {r.verb for r in job_writes(scenario)} == {"create", "delete"}


async def test_an_eviction_while_the_operator_was_down_is_counted(scenario: Scenario) -> None:
    gate, queue = scenario.folder / "gate", install(scenario)
    await scenario.start_operator()
    await scenario.create(QUEUED, env={"FAKE_GATE": gate})
    await scenario.until_phase("Running")
    await scenario.stop_operators()

    preempt(queue)
    await until_no_pod_is_left(scenario)
    gate.touch()
    set_room(queue, 1)
    await scenario.until(lambda: any(c["type"] == "Complete" for c in the_job(scenario)["status"]["conditions"]))
    await scenario.start_operator()
    body = await scenario.until_phase("Succeeded")

    assert body["status"]["attempts"]["preemptions"] == 1


async def test_the_limit_of_running_time_follows_the_spec_without_touching_what_is_the_queues(
    scenario: Scenario,
) -> None:
    gate = scenario.folder / "gate"
    install(scenario, node_labels={"flavor": "a100"})
    label_node(scenario, flavor="a100")
    await scenario.start_operator()
    await scenario.create(QUEUED, ("limits.activeSeconds", 3600), env={"FAKE_GATE": gate})
    await scenario.until_phase("Running")

    await scenario.change({"spec": {"limits": {"activeSeconds": 7200}}})
    await scenario.until(lambda: the_job(scenario)["spec"]["activeDeadlineSeconds"] > 3600)

    job = the_job(scenario)
    assert job["spec"]["suspend"] is False
    assert job["spec"]["template"]["spec"]["nodeSelector"] == {"flavor": "a100"}
    assert "f:suspend" not in owned_by_operator(job)
    gate.touch()
    await scenario.until_phase("Succeeded")


async def test_a_job_of_no_queue_that_kueue_holds_is_left_alone(scenario: Scenario) -> None:
    queue = install(scenario, manages_all=True)
    await scenario.start_operator()

    await scenario.create()
    held = await scenario.until_phase("Queued")
    await scenario.change({"metadata": {"labels": {"kueue.x-k8s.io/queue-name": "main"}}}, name="hina-a1", path=JOBS)
    await scenario.until_phase("Succeeded")

    assert "also manages Jobs that name no queue" in condition(held, "Scheduled")["message"]
    assert [r.verb for r in job_writes(scenario)] == ["create"]
    assert queue.workload("ml", "hina-a1") is not None


async def test_a_job_that_somebody_else_suspended_is_set_going_again(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = scenario.folder / "gate"
    monkeypatch.setattr(workloads, "YOUNG_SECONDS", 0.0)
    install(scenario)
    await scenario.start_operator()
    await scenario.create(env={"FAKE_GATE": gate})
    await scenario.until_phase("Running")

    await scenario.change({"spec": {"suspend": True}}, name="hina-a1", path=JOBS)
    await scenario.until(lambda: any(r.verb == "patch" for r in job_writes(scenario)))
    gate.touch()
    await scenario.until_phase("Succeeded")

    assert scenario.jobs() == ["hina-a1"]


async def test_a_deactivated_workload_is_told_and_waited_for(scenario: Scenario) -> None:
    queue = install(scenario)
    await scenario.start_operator()
    await scenario.create(QUEUED, env={"FAKE_GATE": scenario.folder / "never"})
    await scenario.until_phase("Running")
    workload = queue.workload("ml", "hina-a1")
    assert workload is not None

    path = "/apis/kueue.x-k8s.io/v1beta2/namespaces/ml/workloads"
    await scenario.change({"spec": {"active": False}}, name=workload["metadata"]["name"], path=path)
    await until_queue_says(scenario, "Deactivated", words="The workload is deactivated")
    body = await scenario.until_phase("Queued")

    assert condition(body, "Finished")["status"] == "False"
    assert scenario.jobs() == ["hina-a1"]


async def test_the_check_of_the_data_waits_where_kueue_manages_every_job(scenario: Scenario) -> None:
    install(scenario, manages_all=True)
    await scenario.start_operator()

    await scenario.create(("parallelism.gpusPerNode", 1), QUEUED)
    await scenario.until_phase("Queued")
    held = scenario.jobs()
    await scenario.change({"metadata": {"labels": {"kueue.x-k8s.io/queue-name": "main"}}}, name="hina-data", path=JOBS)
    await scenario.until_phase("Succeeded")

    assert held == ["hina-data"]
    assert scenario.jobs() == ["hina-a1", "hina-data"]
    assert [r.verb for r in job_writes(scenario)] == ["create", "create"]


async def test_the_data_are_checked_before_the_queue_is_asked_for_a_gpu(scenario: Scenario) -> None:
    queue = install(scenario, room=0)
    await scenario.start_operator()

    await scenario.create(("parallelism.gpusPerNode", 1), QUEUED)
    body = await scenario.until_phase("Queued")

    assert condition(body, "DatasetReady")["status"] == "True"
    assert queue.workload("ml", "hina-data") is None
    assert queue.workload("ml", "hina-a1") is not None


async def test_an_evaluation_of_a_finished_training_waits_for_its_turn(scenario: Scenario) -> None:
    queue = install(scenario)
    await scenario.start_operator()
    await scenario.create(QUEUED)
    await scenario.until_phase("Succeeded")
    set_room(queue, 0)

    await scenario.change({"spec": {"evaluation": {}}})
    waiting = await scenario.until_condition("Evaluated", "Queued")
    set_room(queue, 1)
    await scenario.until_condition("Evaluated", "Completed")

    assert waiting["message"].startswith("queue main: ")
    assert scenario.jobs() == ["hina-a1", "hina-e2"]
