"""What the panels whose queries decide something show, of series that are made up."""

from pathlib import Path

import pytest

from lora_monitoring.__main__ import dashboards
from tests.support.panels import filled_in
from tests.support.promtool import evaluate

PAGES = dashboards()
HINA = '{namespace="ml", name="hina"}'


def query_of(page: str, panel: str) -> str:
    """The first query of a panel, as Grafana sends it."""
    return next(filled_in(found.queries[0].expression) for found in PAGES[page].panels if found.title == panel)


def series(name: str, values: str, *, training: str = "hina", **labels: str) -> dict[str, str]:
    named = {"namespace": "ml", "name": training, **labels}
    text = ", ".join(f'{label}="{value}"' for label, value in named.items())
    return {f"{name}{{{text}}}": values}


def state(phase: str, *, training: str = "hina", reason: str = "x", **labels: str) -> dict[str, str]:
    return series("lora_training_state", "1x100", training=training, phase=phase, reason=reason, **labels)


ACTIVE = series("lora_training_active_seconds_total", "0+60x100")
SAVED = series("lora_training_saved_state_timestamp_seconds", "480x100")
TWO = state("Running", training="a") | state("Succeeded", training="b")
RATES = {**series("lora_training_images_per_second", "3x100", training="a")} | series(
    "lora_training_images_per_second", "5x100", training="b"
)
GPUS = series("lora_training_gpus", "4x100", training="a") | series("lora_training_gpus", "8x100", training="b")
FAILED = state("Failed", training="a", reason="OutOfMemory") | state("Failed", training="b", reason="Cancelled")
ENDS = series("lora_training_completion_timestamp_seconds", "60x100", training="a") | series(
    "lora_training_completion_timestamp_seconds", "60x100", training="b"
)


@pytest.mark.parametrize(
    ("page", "panel", "exported", "samples"),
    [
        ("runs", "Age of the newest state", state("Running") | ACTIVE, {HINA: 600}),
        ("runs", "Age of the newest state", state("Running") | ACTIVE | SAVED, {HINA: 120}),
        ("runs", "Age of the newest state", state("Succeeded") | ACTIVE | SAVED, {HINA: 0}),
        ("runs", "Over-trained since epoch", state("Running"), {HINA: 0}),
        ("runs", "Pods that ended early, by reason", {}, {'{reason="none"}': 0}),
        ("fleet", "Pictures per second", TWO | RATES, {"{}": 3}),
        ("fleet", "GPUs at work", TWO | GPUS, {"{}": 4}),
        ("fleet", "GPUs at work", {}, {"{}": 0}),
        ("fleet", "Failed in 24 hours", FAILED | ENDS, {"{}": 1}),
        ("operator", "Looks that failed", {}, {"{}": 0}),
    ],
    ids=[
        "no state yet", "newest state", "ended", "not over-trained", "none ended", "only what runs", "at work",
        "nothing at work", "cancelled did not fail", "nothing done",
    ],
)  # fmt: skip
def test_a_panel_shows(
    page: str, panel: str, exported: dict[str, str], samples: dict[str, float], tmp_path: Path
) -> None:
    found = evaluate(query_of(page, panel), exported, minutes=10, samples=samples, folder=tmp_path)

    assert found == ""


def test_a_training_that_two_operators_tell_of_counts_once(tmp_path: Path) -> None:
    told_twice = state("Running", pod="old") | state("Running", pod="new")

    assert evaluate(query_of("fleet", "Running"), told_twice, minutes=10, samples={"{}": 1}, folder=tmp_path) == ""
