"""lora_operator.metrics"""

from dataclasses import replace

from prometheus_client import generate_latest

from lora_api import ProgressReport
from lora_api.status import Phase, Progress
from lora_operator.figures import FIGURES, Figures
from lora_operator.metrics import Metrics
from lora_operator.subject import Key
from tests.support.prometheus import check_metrics

KEY = Key("ml", "hina")
LABELS = {"namespace": "ml", "name": "hina"}
FIGURES_OF_HINA = Figures(Phase.RUNNING, "Training", tuple(map(float, range(len(FIGURES)))), {"StorageUnavailable": 2})


def filled() -> Metrics:
    metrics = Metrics()
    metrics.trainings.set(KEY, FIGURES_OF_HINA)
    metrics.loop.note_event("job")
    metrics.loop.queue_length = lambda: 4
    metrics.reconciles.labels("success").inc()
    metrics.reconcile_duration.observe(0.01)
    metrics.errors.labels("refused").inc()
    metrics.count_request("patch", "jobs", "200")
    return metrics


def test_promtool_finds_nothing_to_complain_about() -> None:
    assert check_metrics(generate_latest(filled().registry).decode()) == ""


def test_every_figure_of_a_training_has_a_series() -> None:
    names = [figure.name + ("_total" if figure.kind == "counter" else "") for figure in FIGURES]
    registry = filled().registry

    assert [registry.get_sample_value(name, LABELS) for name in names] == list(range(len(FIGURES)))


def test_the_first_bug_is_an_increase() -> None:
    assert Metrics().registry.get_sample_value("lora_operator_errors_total", {"kind": "bug"}) == 0


def test_what_is_not_known_has_no_series() -> None:
    metrics = Metrics()

    metrics.trainings.set(KEY, replace(FIGURES_OF_HINA, values=(None,) * len(FIGURES)))

    assert metrics.registry.get_sample_value("lora_training_loss", LABELS) is None


def test_the_phase_and_its_reason_are_labels_of_one_series() -> None:
    labels = {**LABELS, "phase": "Running", "reason": "Training"}

    assert filled().registry.get_sample_value("lora_training_state", labels) == 1


def test_pods_that_ended_are_told_by_reason() -> None:
    labels = {**LABELS, "reason": "StorageUnavailable"}

    assert filled().registry.get_sample_value("lora_training_ended_pods", labels) == 2


def test_what_a_pod_says_is_told_before_the_status_is_written() -> None:
    metrics = filled()

    metrics.trainings.hear(KEY, ProgressReport(progress=Progress(step=311)))

    assert metrics.registry.get_sample_value("lora_training_step", LABELS) == 311


def test_what_a_pod_says_of_an_unknown_training_is_no_series_that_never_ends() -> None:
    metrics = Metrics()

    metrics.trainings.hear(KEY, ProgressReport(progress=Progress(step=311)))

    assert 'name="hina"' not in generate_latest(metrics.registry).decode()


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


def test_the_process_tells_its_memory_and_processor_time() -> None:
    registry = Metrics().registry

    assert (registry.get_sample_value("process_resident_memory_bytes") or 0) > 0
    assert (registry.get_sample_value("process_cpu_seconds_total") or 0) > 0
