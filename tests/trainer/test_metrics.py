"""The names of the metrics are a promise to dashboards and alerts."""

import math

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from lora_api.status import Progress, SavedState
from lora_trainer.metrics import TrainingMetrics
from tests.support.prometheus import check_metrics

NAMES = {
    "lora_trainer_step": "gauge",
    "lora_trainer_total_steps": "gauge",
    "lora_trainer_epoch": "gauge",
    "lora_trainer_total_epochs": "gauge",
    "lora_trainer_loss": "gauge",
    "lora_trainer_learning_rate": "gauge",
    "lora_trainer_steps_per_second": "gauge",
    "lora_trainer_images_per_second": "gauge",
    "lora_trainer_remaining_seconds": "gauge",
    "lora_trainer_device_memory_bytes": "gauge",
    "lora_trainer_fetched_bytes": "counter",
    "lora_trainer_stored_bytes": "counter",
    "lora_trainer_storage_retries": "counter",
    "lora_trainer_resumed_from_step": "gauge",
    "lora_trainer_state_bytes": "gauge",
    "lora_trainer_state_timestamp_seconds": "gauge",
    "lora_trainer_state_save_duration_seconds": "histogram",
    "lora_trainer_validation_loss": "gauge",
    "lora_trainer_training_loss": "gauge",
    "lora_trainer_drift": "gauge",
    "lora_trainer_best_epoch": "gauge",
    "lora_trainer_overfit": "gauge",
    "lora_trainer_stalls": "counter",
    "lora_trainer_stop_requested": "gauge",
}


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> TrainingMetrics:
    return TrainingMetrics(registry)


def test_the_names_and_kinds_are_those_promised(metrics: TrainingMetrics, registry: CollectorRegistry) -> None:
    families = {
        family.name: family.type
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        if not family.name.endswith("_created")
    }

    assert families == NAMES


def test_every_metric_says_what_it_is(metrics: TrainingMetrics, registry: CollectorRegistry) -> None:
    families = list(text_string_to_metric_families(generate_latest(registry).decode()))

    assert all(family.documentation.endswith(".") for family in families)


def test_promtool_finds_nothing_to_complain_about(metrics: TrainingMetrics, registry: CollectorRegistry) -> None:
    metrics.observe(Progress(step=1, loss=0.5), learning_rates={"unet": 1e-4}, images_per_step=1.0)
    metrics.observe_state(SavedState(step=1, uri="s3://b/state", size_bytes=1, save_seconds=0.5))

    assert check_metrics(generate_latest(registry).decode()) == ""


def test_a_report_sets_all_values(metrics: TrainingMetrics, registry: CollectorRegistry) -> None:
    progress = Progress(
        step=10, total_steps=50, epoch=1, total_epochs=5, loss=0.25, steps_per_second=2.0, remaining_seconds=20
    )

    metrics.observe(progress, learning_rates={"unet": 1e-4, "text_encoder": 5e-5}, images_per_step=4.0)
    metrics.set_device_memory(1 << 30)

    value = registry.get_sample_value
    assert value("lora_trainer_step") == 10
    assert value("lora_trainer_total_steps") == 50
    assert value("lora_trainer_epoch") == 1
    assert value("lora_trainer_total_epochs") == 5
    assert value("lora_trainer_loss") == 0.25
    assert value("lora_trainer_learning_rate", {"group": "unet"}) == 1e-4
    assert value("lora_trainer_learning_rate", {"group": "text_encoder"}) == 5e-5
    assert value("lora_trainer_steps_per_second") == 2.0
    assert value("lora_trainer_images_per_second") == 8.0
    assert value("lora_trainer_remaining_seconds") == 20
    assert value("lora_trainer_device_memory_bytes") == 1 << 30


def test_the_loss_is_not_a_number_until_there_is_one(metrics: TrainingMetrics, registry: CollectorRegistry) -> None:
    assert math.isnan(registry.get_sample_value("lora_trainer_loss") or 0.0)


def test_requests_that_are_made_again_are_counted(metrics: TrainingMetrics, registry: CollectorRegistry) -> None:
    metrics.add_storage_retry()

    assert registry.get_sample_value("lora_trainer_storage_retries_total") == 1


def test_bytes_are_counted(metrics: TrainingMetrics, registry: CollectorRegistry) -> None:
    metrics.add_fetched(10)
    metrics.add_fetched(5)
    metrics.add_stored(7)

    assert registry.get_sample_value("lora_trainer_fetched_bytes_total") == 15
    assert registry.get_sample_value("lora_trainer_stored_bytes_total") == 7


def test_a_stored_state_tells_its_size_and_how_long_it_took(
    metrics: TrainingMetrics, registry: CollectorRegistry
) -> None:
    for step, seconds in ((10, 0.5), (20, 2.0)):
        metrics.observe_state(SavedState(step=step, uri="s3://b/state", size_bytes=100 * step, save_seconds=seconds))

    value = registry.get_sample_value
    assert value("lora_trainer_state_bytes") == 2000
    assert value("lora_trainer_state_save_duration_seconds_count") == 2
    assert value("lora_trainer_state_save_duration_seconds_sum") == 2.5
    assert value("lora_trainer_state_save_duration_seconds_bucket", {"le": "1.0"}) == 1
    assert (value("lora_trainer_state_timestamp_seconds") or 0) > 1.7e9


def test_what_disturbed_the_training_is_told(metrics: TrainingMetrics, registry: CollectorRegistry) -> None:
    metrics.add_stall()
    metrics.set_stop_requested()
    metrics.set_resumed_from(7)

    value = registry.get_sample_value
    assert value("lora_trainer_stalls_total") == 1
    assert value("lora_trainer_stop_requested") == 1
    assert value("lora_trainer_resumed_from_step") == 7
