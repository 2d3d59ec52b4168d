"""What the operator's /metrics tells of trainings in a cluster, and for how long."""

from pathlib import Path

from lora_api import ExitCode
from tests.support.scenario import Scenario

WHO = 'name="hina",namespace="ml"'


async def test_the_last_values_of_an_ended_training_stay_also_after_a_restart(scenario: Scenario) -> None:
    unavailable = int(ExitCode.STORAGE_UNAVAILABLE)
    first = await scenario.start_operator()
    await scenario.create(("retry.maxFailures", 1), env={"FAKE_EXIT": unavailable})

    await scenario.until_phase("Failed")
    await scenario.until_told(lambda: 'phase="Failed"' in _line(scenario.metrics(first), "lora_training_state"))
    told = scenario.metrics(first)
    await scenario.stop_operators()
    second = await scenario.start_operator()
    await scenario.until_told(lambda: _line(scenario.metrics(second), "lora_training_state"))

    state = f'lora_training_state{{{WHO},phase="Failed",reason="StorageUnavailable"}} 1.0'
    assert _line(told, "lora_training_state") == state
    for name in ("state", "failures", "loss", "step", "attempts", "gpu_seconds_total", "completion_timestamp_seconds"):
        series = f"lora_training_{name}"
        assert _line(scenario.metrics(second), series) == _line(told, series) != ""


async def test_pods_that_ended_are_told_by_reason_while_the_next_one_works(scenario: Scenario, tmp_path: Path) -> None:
    gate, marks = tmp_path / "gate", tmp_path / "marks"
    operator = await scenario.start_operator()
    once = {"FAKE_EXIT_ONCE": int(ExitCode.STORAGE_UNAVAILABLE), "FAKE_MARKS": marks}
    await scenario.create(env={**once, "FAKE_GATE": gate})

    gate.touch()
    await scenario.until_told(marks.exists)
    gate.unlink()

    ended = 'lora_training_ended_pods{name="hina",namespace="ml",reason="StorageUnavailable"} 1.0'
    await scenario.until_told(lambda: ended in scenario.metrics(operator))
    gate.touch()
    await scenario.until_phase("Succeeded")
    assert _line(scenario.metrics(operator), "lora_training_failures").endswith(" 1.0")


def _line(page: str, series: str) -> str:
    """The line of a training's series, or nothing."""
    return next((line for line in page.splitlines() if line.startswith(f"{series}{{{WHO}")), "")
