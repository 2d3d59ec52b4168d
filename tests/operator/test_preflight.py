"""Data are checked before a GPU is asked for, on the laptop-sized cluster."""

import pytest

from lora_api import names
from tests.support.scenario import JOBS, Scenario, condition

GPU = ("parallelism.gpusPerNode", 1)


def gpus_asked_for(scenario: Scenario) -> list[str]:
    """Jobs whose pods ask for a GPU."""
    return [
        job["metadata"]["name"]
        for job in scenario.stored("batch", "jobs")
        if any(
            "nvidia.com/gpu" in (container["resources"].get("limits") or {})
            for container in job["spec"]["template"]["spec"]["containers"]
        )
    ]


async def test_a_gpu_is_asked_for_when_the_data_can_train(scenario: Scenario) -> None:
    await scenario.start_operator()

    await scenario.create(GPU)
    body = await scenario.until_phase("Succeeded")

    assert scenario.jobs() == ["hina-a1", "hina-data"]
    assert gpus_asked_for(scenario) == ["hina-a1"]
    assert condition(body, "DatasetReady")["status"] == "True"
    assert body["status"]["plan"]["totalSteps"] == 10


async def test_data_that_cannot_train_cost_no_gpu(scenario: Scenario) -> None:
    await scenario.start_operator()

    await scenario.create(GPU, env={"FAKE_CHECK": 65})
    body = await scenario.until_phase("Failed")

    assert scenario.jobs() == ["hina-data"]
    assert body["status"]["failure"]["reason"] == "InvalidDataset"
    assert body["status"]["failure"]["exitCode"] == 65
    assert "no GPU was asked for" in body["status"]["failure"]["message"]


async def test_a_result_that_is_there_costs_no_gpu(scenario: Scenario) -> None:
    await scenario.start_operator()

    await scenario.create(GPU, env={"FAKE_CHECK_REASON": "AlreadyTrained"})
    body = await scenario.until_phase("Succeeded")

    assert scenario.jobs() == ["hina-data"]
    assert condition(body, "Succeeded")["reason"] == "AlreadyTrained"


@pytest.mark.parametrize(("changes", "jobs"), [((), ["hina-a1"]), ((GPU, ("profile", "inside")), ["hina-a1"])])
async def test_there_is_no_job_for_the_check_where_it_makes_no_sense(
    scenario: Scenario, changes: tuple[tuple[str, object], ...], jobs: list[str]
) -> None:
    await scenario.start_operator()

    await scenario.create(*changes)
    await scenario.until_phase("Succeeded")

    assert scenario.jobs() == jobs


async def test_an_init_container_that_refuses_the_data_ends_the_training(scenario: Scenario) -> None:
    await scenario.start_operator()

    await scenario.create(GPU, ("profile", "inside"), env={"FAKE_CHECK": 65})
    body = await scenario.until_phase("Failed")

    assert body["status"]["failure"]["reason"] == "InvalidDataset"
    assert body["status"]["attempts"]["failures"] == 1


async def test_what_was_checked_is_never_checked_again(scenario: Scenario) -> None:
    gate = scenario.folder / "gate"
    await scenario.start_operator()
    await scenario.create(GPU, env={"FAKE_GATE": gate})
    await scenario.until_phase("Running")
    await scenario.stop_operators()

    await scenario.delete("hina-data", path=JOBS)
    await scenario.delete("hina-a1", path=JOBS)
    gate.touch()
    await scenario.start_operator()
    await scenario.until_phase("Succeeded")

    assert scenario.jobs() == ["hina-a2"]


async def test_a_paused_check_goes_on_when_the_training_is_resumed(scenario: Scenario) -> None:
    await scenario.start_operator()
    await scenario.create(GPU, ("suspend", True))
    await scenario.until_phase("Suspended")
    paused = scenario.jobs(), scenario.pod_count()

    await scenario.change({"spec": {"suspend": False}})
    await scenario.until_phase("Succeeded")

    assert paused == (["hina-data"], 0)
    assert scenario.jobs() == ["hina-a1", "hina-data"]


async def test_the_check_goes_with_the_other_children(scenario: Scenario) -> None:
    await scenario.start_operator()

    await scenario.create(GPU, ("ttlSecondsAfterFinished", 0))
    await scenario.until_phase("Succeeded")

    await scenario.until(lambda: not scenario.jobs())


async def test_pods_tell_what_they_are_for(scenario: Scenario) -> None:
    await scenario.start_operator()

    await scenario.create(GPU)
    await scenario.until_phase("Succeeded")

    stages = [pod["metadata"]["labels"][names.LABEL_STAGE] for pod in scenario.stored("", "pods")]
    assert sorted(stages) == [names.STAGE_PREFLIGHT, names.STAGE_TRAINING]
