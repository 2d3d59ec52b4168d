"""lora_operator.metrics"""

import pytest
from prometheus_client import generate_latest

from lora_api.status import Phase, Progress
from lora_operator.metrics import TRAINING_GAUGES, Metrics, Numbers
from lora_operator.subject import Key
from tests.support.prometheus import check_metrics

KEY = Key("ml", "hina")
LABELS = {"namespace": "ml", "name": "hina"}
PROGRESS = Progress(
    step=310, total_steps=1000, epoch=3, total_epochs=10, percent=31, loss=0.09, learning_rate=1e-4,
    steps_per_second=2.4, remaining_seconds=290, updated_time="2026-11-22T12:00:00Z",
)  # fmt: skip
EXPECTED = {
    "lora_training_step": 310,
    "lora_training_total_steps": 1000,
    "lora_training_epoch": 3,
    "lora_training_total_epochs": 10,
    "lora_training_progress_ratio": 0.31,
    "lora_training_loss": 0.09,
    "lora_training_learning_rate": 1e-4,
    "lora_training_steps_per_second": 2.4,
    "lora_training_remaining_seconds": 290,
    "lora_training_updated_timestamp_seconds": 1795348800,
    "lora_training_best_epoch": 7,
    "lora_training_validation_loss": 0.12,
}


def filled() -> Metrics:
    metrics = Metrics()
    metrics.trainings.set_phase(KEY, Phase.RUNNING)
    metrics.trainings.set_numbers(KEY, Numbers(PROGRESS, best_epoch=7, validation_loss=0.12))
    metrics.loop.note_event("job")
    metrics.loop.queue_length = lambda: 4
    metrics.reconciles.labels("success").inc()
    metrics.reconcile_duration.observe(0.01)
    metrics.errors.labels("refused").inc()
    metrics.count_request("patch", "jobs", "200")
    return metrics


def test_promtool_finds_nothing_to_complain_about() -> None:
    assert check_metrics(generate_latest(filled().registry).decode()) == ""


def test_every_gauge_of_a_training_is_tested() -> None:
    assert set(EXPECTED) == {gauge.name for gauge in TRAINING_GAUGES}


@pytest.mark.parametrize(("name", "value"), EXPECTED.items())
def test_a_training_is_told_in_numbers(name: str, value: float) -> None:
    assert filled().registry.get_sample_value(name, LABELS) == pytest.approx(value)


def test_what_is_not_known_has_no_series() -> None:
    metrics = Metrics()

    metrics.trainings.set_numbers(KEY, Numbers(Progress()))

    assert metrics.registry.get_sample_value("lora_training_loss", LABELS) is None
    assert metrics.registry.get_sample_value("lora_training_progress_ratio", LABELS) is None


def test_series_end_with_the_training() -> None:
    metrics = filled()

    metrics.trainings.remove(KEY)

    assert 'name="hina"' not in generate_latest(metrics.registry).decode()


def test_trainings_are_counted_by_phase() -> None:
    counts = {
        phase: filled().registry.get_sample_value("lora_operator_trainings", {"phase": phase.value}) for phase in Phase
    }

    assert counts == {phase: float(phase is Phase.RUNNING) for phase in Phase}


def test_the_loop_is_read_at_the_moment_of_the_scrape() -> None:
    registry = filled().registry

    assert registry.get_sample_value("lora_operator_queue_depth") == 4
    age = registry.get_sample_value("lora_operator_last_event_age_seconds", {"kind": "job"})
    assert age is not None
    assert 0 <= age < 60
