"""What a training took, counted on the laptop-sized cluster while pods and Jobs come and go."""

from typing import Any

from lora_operator.observed import ANNOTATION_FAILURES_BEFORE
from tests.support.scenario import JOBS, Scenario

PODS = "/api/v1/namespaces/ml/pods"


def running_pods(scenario: Scenario) -> list[str]:
    """Uids of the pods that run and are not told to stop."""
    return [
        pod["metadata"]["uid"]
        for pod in scenario.stored("", "pods")
        if pod["status"].get("phase") == "Running" and "deletionTimestamp" not in pod["metadata"]
    ]


async def until_counted(scenario: Scenario) -> None:
    """Waits until the status tells of the pod that runs: one that is gone before it was seen was nothing."""

    def is_counted() -> bool:
        status = (scenario.training() or {}).get("status") or {}
        newest = ((status.get("attempts") or {}).get("pods") or {}).get("newest") or []
        return any(uid in newest for uid in running_pods(scenario))

    await scenario.until(is_counted)


async def interrupt(scenario: Scenario) -> None:
    """Deletes the pod that runs, and waits for its successor."""
    (uid,) = await scenario.until(lambda: running_pods(scenario))
    (name,) = [pod["metadata"]["name"] for pod in scenario.stored("", "pods") if pod["metadata"]["uid"] == uid]
    await scenario.delete(name, path=PODS)
    await scenario.until(lambda: (found := running_pods(scenario)) and found != [uid])


def attempts(body: dict[str, Any]) -> tuple[int, int, int]:
    found = body["status"]["attempts"]
    return found["number"], found["failures"], found["preemptions"]


async def test_every_interruption_is_counted_once(scenario: Scenario) -> None:
    gate = scenario.folder / "gate"
    await scenario.start_operator()
    await scenario.create(env={"FAKE_GATE": gate})

    for expected in (1, 2, 3):
        await until_counted(scenario)
        await interrupt(scenario)
        await scenario.until(lambda n=expected: attempts(scenario.training() or {})[2] == n)
    gate.touch()
    body = await scenario.until_phase("Succeeded")

    assert attempts(body) == (1, 0, 3)


async def test_interruptions_that_no_operator_saw_are_known_by_the_trainers_starts(scenario: Scenario) -> None:
    gate, starts = scenario.folder / "gate", scenario.folder / "starts"
    await scenario.start_operator()
    await scenario.create(env={"FAKE_GATE": gate, "FAKE_STARTS": starts})
    await scenario.until_phase("Running")
    await scenario.stop_operators()

    for number in (2, 3):
        await interrupt(scenario)
        await scenario.until_told(lambda n=number: len(starts.read_text().splitlines()) == n)
    await scenario.start_operator()
    await scenario.until(lambda: attempts(scenario.training() or {})[2] == 2)
    gate.touch()

    assert attempts(await scenario.until_phase("Succeeded")) == (1, 0, 2)


async def test_a_pause_costs_neither_a_failure_nor_an_interruption(scenario: Scenario) -> None:
    gate = scenario.folder / "gate"
    await scenario.start_operator()
    await scenario.create(env={"FAKE_GATE": gate})
    await scenario.until_phase("Running")

    await scenario.change({"spec": {"suspend": True}})
    await scenario.until_phase("Suspended")
    await scenario.until(lambda: scenario.pod_count() == 0)
    await scenario.change({"spec": {"suspend": False}})
    await until_counted(scenario)
    await interrupt(scenario)
    gate.touch()

    assert attempts(await scenario.until_phase("Succeeded")) == (1, 0, 1)


async def test_a_job_deleted_by_hand_gets_no_fresh_budget(scenario: Scenario) -> None:
    gate, mark, starts = scenario.folder / "gate", scenario.folder / "mark", scenario.folder / "starts"
    await scenario.start_operator()
    gate.touch()
    env = {"FAKE_GATE": gate, "FAKE_EXIT_ONCE": 69, "FAKE_MARKS": mark, "FAKE_STARTS": starts}
    await scenario.create(("retry.maxFailures", 3), env=env)
    await scenario.until(mark.exists)
    gate.unlink()
    await scenario.until(lambda: attempts(scenario.training() or {})[1] == 1 and running_pods(scenario))
    # A pod that is gone before the operator saw it and before its trainer began was nothing that could be interrupted.
    await scenario.until_told(lambda: len(starts.read_text().splitlines()) == 2)

    await scenario.delete("hina-a1", path=JOBS)
    await scenario.until(lambda: scenario.jobs() == ["hina-a2"])
    (job,) = scenario.stored("batch", "jobs")
    gate.touch()
    body = await scenario.until_phase("Succeeded")

    assert job["spec"]["backoffLimit"] == 2
    assert job["metadata"]["annotations"][ANNOTATION_FAILURES_BEFORE] == "1"
    assert attempts(body) == (2, 1, 1)
