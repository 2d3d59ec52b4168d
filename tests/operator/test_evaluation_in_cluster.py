"""A finished training that is evaluated again, on the laptop-sized cluster, as a user sees it."""

from typing import Any

from tests.support.scenario import Manifest, Scenario, condition

WISH: Manifest = {"spec": {"evaluation": {"grid": {"weights": [0.5, 1]}}}}
OTHER: Manifest = {"spec": {"evaluation": {"grid": {"weights": [0.75]}}}}


def evaluated(scenario: Scenario, status: str) -> Manifest | None:
    body = scenario.training()
    found = condition(body, "Evaluated")
    return body if found is not None and found["status"] == status and _is_seen(body) else None


def _is_seen(body: Manifest | None) -> bool:
    return body is not None and body["status"]["observedGeneration"] == body["metadata"]["generation"]


async def trained(scenario: Scenario, *changes: tuple[str, Any], **env: object) -> Manifest:
    """A training that has succeeded, and was told of."""
    await scenario.create(*changes, env={key: str(value) for key, value in env.items()})
    body = await scenario.until_phase("Succeeded")
    await scenario.until(lambda: "Completed" in scenario.events())
    return body


async def test_a_changed_evaluation_of_a_finished_training_is_made_and_nothing_is_trained(scenario: Scenario) -> None:
    await scenario.start_operator()
    before = await trained(scenario)

    await scenario.change(WISH)
    after = await scenario.until(lambda: evaluated(scenario, "True"))
    await scenario.until(lambda: "Evaluated" in scenario.events())

    assert condition(before, "Evaluated")["reason"] == "NotRequested"
    assert scenario.jobs() == ["hina-a1", "hina-e2"]
    assert after["status"]["evaluation"]["bestEpoch"] == 2
    assert after["status"]["summary"]["best"] == "2"
    assert after["status"]["artifacts"] == {
        "gridUri": "s3://lora/runs/hina/evaluation/grid.png",
        "manifestUri": "s3://lora/runs/hina/manifest.json",
    }
    kept = ("phase", "completionTime", "plan", "progress", "checkpoints", "attempts")
    assert {name: after["status"][name] for name in kept} == {name: before["status"][name] for name in kept}
    for kind in ("Succeeded", "Finished"):
        assert condition(after, kind) == condition(before, kind)


async def test_what_the_evaluation_does_is_told_and_the_phase_stays(scenario: Scenario) -> None:
    gate = scenario.folder / "gate"
    await scenario.start_operator()
    await trained(scenario, FAKE_EVALUATION_GATE=gate)

    await scenario.change(WISH)
    doing = await scenario.until_condition("Evaluated", "Evaluating")
    meanwhile = scenario.training()
    gate.touch()
    await scenario.until(lambda: evaluated(scenario, "True"))

    assert (doing["status"], doing["message"]) == ("Unknown", "grid 1 of 2")
    assert meanwhile is not None
    assert meanwhile["status"]["phase"] == "Succeeded"
    assert meanwhile["status"]["progress"]["step"] == 10


async def test_an_evaluation_that_fails_is_told_once_and_not_made_again(scenario: Scenario) -> None:
    await scenario.start_operator()
    await trained(scenario, ("retry.maxFailures", 1), FAKE_EVALUATION_EXIT=69)

    await scenario.change(WISH)
    body = await scenario.until(lambda: evaluated(scenario, "False"))
    await scenario.until(lambda: "EvaluationFailed" in scenario.events())
    await scenario.change({"spec": {"ttlSecondsAfterFinished": 3600}})
    await scenario.until(lambda: _is_seen(scenario.training()))

    found = condition(body, "Evaluated")
    assert found["reason"] == "StorageUnavailable"
    assert "ended with 69" in found["message"] and "It is tried again when spec.evaluation changes" in found["message"]
    assert (body["status"]["phase"], body["status"]["evaluation"]["reason"]) == ("Succeeded", "Failed")
    assert scenario.jobs() == ["hina-a1", "hina-e2"]


async def test_a_wish_that_changes_meanwhile_stops_the_job_for_the_old_one_first(scenario: Scenario) -> None:
    gate = scenario.folder / "gate"
    await scenario.start_operator()
    await trained(scenario, FAKE_EVALUATION_GATE=gate)
    await scenario.change(WISH)
    await scenario.until_condition("Evaluated", "Evaluating")

    await scenario.change(OTHER)
    await scenario.until(lambda: "hina-e3" in scenario.jobs())
    at_once = scenario.jobs()
    gate.touch()
    await scenario.until(lambda: evaluated(scenario, "True"))

    assert at_once == ["hina-a1", "hina-e3"]
    assert scenario.jobs() == ["hina-a1", "hina-e3"]


async def test_an_evaluation_is_paused_and_goes_on(scenario: Scenario) -> None:
    gate = scenario.folder / "gate"
    await scenario.start_operator()
    await trained(scenario, FAKE_EVALUATION_GATE=gate)
    await scenario.change(WISH)
    await scenario.until_condition("Evaluated", "Evaluating")

    await scenario.change({"spec": {"suspend": True}})
    await scenario.until_condition("Evaluated", "UserRequested")
    gate.touch()
    await scenario.change({"spec": {"suspend": False}})

    assert (await scenario.until(lambda: evaluated(scenario, "True")))["status"]["phase"] == "Succeeded"


async def test_after_its_time_to_live_the_job_goes_and_is_not_made_again(scenario: Scenario) -> None:
    await scenario.start_operator()
    await trained(scenario, ("ttlSecondsAfterFinished", 0))
    await scenario.until(lambda: not scenario.jobs())

    await scenario.change(WISH)
    await scenario.until(lambda: evaluated(scenario, "True"))
    await scenario.until(lambda: not scenario.jobs())
    await scenario.change({"spec": {"ttlSecondsAfterFinished": 5}})
    body = await scenario.until(lambda: evaluated(scenario, "True"))

    assert body["status"]["evaluation"]["bestEpoch"] == 2
    assert scenario.jobs() == []


async def test_an_operator_that_starts_again_goes_on_and_writes_nothing_twice(scenario: Scenario) -> None:
    gate = scenario.folder / "gate"
    await scenario.start_operator()
    await trained(scenario, FAKE_EVALUATION_GATE=gate)
    await scenario.change(WISH)
    await scenario.until_condition("Evaluated", "Evaluating")

    await scenario.stop_operators()
    gate.touch()
    await scenario.start_operator()
    await scenario.until(lambda: evaluated(scenario, "True"))
    await scenario.until(lambda: "Evaluated" in scenario.events())
    await scenario.stop_operators()
    before = _writes(scenario)
    operator = await scenario.start_operator()
    await scenario.until_told(lambda: 'result="success"' in scenario.metrics(operator))

    assert scenario.jobs() == ["hina-a1", "hina-e2"]
    assert _writes(scenario) == before
    assert 'lora_training_best_epoch{name="hina",namespace="ml"} 2.0' in scenario.metrics(operator)


async def test_two_operators_make_one_job(scenario: Scenario) -> None:
    await scenario.start_operator()
    await scenario.start_operator()
    await trained(scenario)

    await scenario.change(WISH)
    await scenario.until(lambda: evaluated(scenario, "True"))

    assert scenario.jobs() == ["hina-a1", "hina-e2"]


async def test_a_mutable_field_of_a_settled_training_changes_nothing_of_its_status(scenario: Scenario) -> None:
    await scenario.start_operator()
    before = await trained(scenario)

    await scenario.change({"spec": {"ttlSecondsAfterFinished": 3600}})
    after = await scenario.until(lambda: (body := scenario.training()) and _is_seen(body) and body)

    assert after["status"] == {**before["status"], "observedGeneration": 2}


def _writes(scenario: Scenario) -> int:
    return sum(scenario.writes(target) for target in ("jobs", "loratrainings/status", "events"))
