"""How often the operator writes to the API server in the life of one training, progress aside."""

from typing import Any

import pytest

from lora_api import ProgressReport
from lora_api.status import Progress
from lora_operator.profiles import load_profiles
from lora_operator.reconcile import decide
from tests.support.observations import make_job, make_subject, moment, observed, running_pod
from tests.support.scenario import Scenario

MOST_WRITES = 6
ALWAYS = 3600.0
"""Progress is not written in the time of a test."""

LIVES: dict[str, tuple[tuple[str, Any], ...]] = {
    "plain": (),
    "with a check of the data": (("parallelism.gpusPerNode", 1),),
    "with a check in the pod": (("parallelism.gpusPerNode", 1), ("profile", "inside")),
}


def writes(scenario: Scenario) -> list[str]:
    """All requests of operators that changed something, in order."""
    return [
        f"{request.verb} {request.target}"
        for request in scenario.cluster.requests
        if request.user_agent.startswith("lora-operator/")
        and request.verb in {"create", "patch", "update", "delete"}
        and request.target != "leases"
    ]


@pytest.mark.parametrize("changes", LIVES.values(), ids=LIVES)
async def test_a_life_takes_few_writes(scenario: Scenario, changes: tuple[tuple[str, Any], ...]) -> None:
    gate = scenario.folder / "gate"
    operator = await scenario.start_operator(status_interval_seconds=ALWAYS, progress_interval_seconds=0.05)

    await scenario.create(*changes, env={"FAKE_GATE": gate})
    await scenario.until(lambda: _is_ready(scenario))
    await scenario.until_told(lambda: 'lora_training_step{name="hina"' in scenario.metrics(operator))
    gate.touch()
    await scenario.until_phase("Succeeded")
    await scenario.until(lambda: "Completed" in scenario.events())

    assert len(writes(scenario)) <= MOST_WRITES, writes(scenario)


def _is_ready(scenario: Scenario) -> bool:
    body = scenario.training()
    conditions = {c["type"]: c["status"] for c in (body or {}).get("status", {}).get("conditions", ())}
    return conditions.get("DatasetReady") == "True" and any(
        pod["status"].get("phase") == "Running" for pod in scenario.stored("", "pods")
    )


async def test_progress_waits_for_its_turn_and_the_end_does_not(scenario: Scenario) -> None:
    gate = scenario.folder / "gate"
    await scenario.start_operator(status_interval_seconds=ALWAYS)
    await scenario.create(env={"FAKE_GATE": gate})
    await scenario.until(lambda: _is_ready(scenario))
    before = scenario.training()

    gate.touch()
    after = await scenario.until_phase("Succeeded")

    assert before is not None
    assert after["status"]["progress"]["step"] == 10
    assert after["status"]["summary"]["progress"] == "100%"


@pytest.mark.parametrize("interval_seconds", [5, 10, 30])
def test_progress_is_written_once_per_interval_however_often_it_changes(interval_seconds: int) -> None:
    profiles, subject, written = load_profiles("{default: {image: 'trainer:1', preflight: Off}}"), make_subject(), None
    times = []

    for second in range(120):
        report = ProgressReport(reason="Training", progress=Progress(step=second, total_steps=1000))
        seen = observed(make_job(), running_pod(), report=report, written=written)
        now = moment(second)
        decision = decide(subject, seen, profiles=profiles, now=now, status_interval_seconds=interval_seconds)
        if decision.status is not None:
            times.append(second)
            subject, written = make_subject(status=decision.status.to_document()), now

    assert times == list(range(0, 120, interval_seconds))
