"""The operator's metrics, in a registry of their own. Filled by `controller`, served by `server`."""

import threading
import time
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client import Gauge as GaugeMetric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from lora_api import ProgressReport
from lora_api.status import LoraTrainingStatus, Phase, Progress
from lora_operator.subject import Key
from lora_operator.timestamps import parse_time

RECONCILE_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


@dataclass(frozen=True)
class Numbers:
    """What is told of a training in numbers."""

    progress: Progress
    best_epoch: int | None = None
    validation_loss: float | None = None
    """That of the newest checkpoint that was measured."""


@dataclass(frozen=True)
class Gauge:
    """One number of a training."""

    name: str
    help: str
    read: Callable[[Numbers], float | None]


def read_numbers(told: LoraTrainingStatus | ProgressReport) -> Numbers | None:
    """The numbers of a training; None before there are any."""
    if told.progress is None:
        return None
    losses = (checkpoint.validation_loss for checkpoint in reversed(told.checkpoints))
    best = told.evaluation.best_epoch if told.evaluation else None
    return Numbers(told.progress, best, next((loss for loss in losses if loss is not None), None))


def _timestamp(numbers: Numbers) -> float | None:
    updated = numbers.progress.updated_time
    return parse_time(updated).timestamp() if updated else None


def _ratio(numbers: Numbers) -> float | None:
    progress = numbers.progress
    return progress.step / progress.total_steps if progress.total_steps else None


TRAINING_GAUGES = (
    Gauge("lora_training_step", "Updates of the weights made.", lambda n: n.progress.step),
    Gauge("lora_training_total_steps", "Updates of the weights planned.", lambda n: n.progress.total_steps),
    Gauge("lora_training_epoch", "Epochs completed.", lambda n: n.progress.epoch),
    Gauge("lora_training_total_epochs", "Epochs planned.", lambda n: n.progress.total_epochs),
    Gauge("lora_training_progress_ratio", "Share of the steps that is done, 0 to 1.", _ratio),
    Gauge("lora_training_loss", "Mean loss of the last epoch's worth of steps.", lambda n: n.progress.loss),
    Gauge("lora_training_learning_rate", "Learning rate of the UNet's adapters.", lambda n: n.progress.learning_rate),
    Gauge("lora_training_steps_per_second", "Speed over the last steps.", lambda n: n.progress.steps_per_second),
    Gauge("lora_training_remaining_seconds", "Estimated time left in seconds.", lambda n: n.progress.remaining_seconds),
    Gauge("lora_training_updated_timestamp_seconds", "When the trainer last told its progress.", _timestamp),
    Gauge("lora_training_best_epoch", "Epoch that does best on held-out pictures.", lambda n: n.best_epoch),
    Gauge("lora_training_validation_loss", "Newest loss on held-out pictures.", lambda n: n.validation_loss),
)


class TrainingCollector(Collector):
    """The trainings that exist now: how many in each phase, and how far each is. A series ends with its object."""

    def __init__(self) -> None:
        # Written on the event loop, read by the server's threads.
        self._lock = threading.Lock()
        self._phases: dict[Key, Phase] = {}
        self._numbers: dict[Key, Numbers] = {}

    def set_phase(self, key: Key, phase: Phase) -> None:
        """The training is in this phase."""
        with self._lock:
            self._phases[key] = phase

    def set_numbers(self, key: Key, numbers: Numbers) -> None:
        """The training is so far."""
        with self._lock:
            self._numbers[key] = numbers

    def remove(self, key: Key) -> None:
        """The training is gone."""
        with self._lock:
            self._phases.pop(key, None)
            self._numbers.pop(key, None)

    def collect(self) -> Iterable[Metric]:
        """All series, as prometheus_client asks for them."""
        with self._lock:
            tally, numbers = Tally(self._phases.values()), dict(self._numbers)
        trainings = GaugeMetricFamily("lora_operator_trainings", "Trainings by phase.", labels=["phase"])
        for phase in Phase:
            trainings.add_metric([phase.value], tally[phase])
        yield trainings
        for gauge in TRAINING_GAUGES:
            yield _family(gauge, numbers)


def _family(gauge: Gauge, numbers: dict[Key, Numbers]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(gauge.name, gauge.help, labels=["namespace", "name"])
    for key, told in numbers.items():
        value = gauge.read(told)
        if value is not None:
            family.add_metric([key.namespace, key.name], value)
    return family


class LoopCollector(Collector):
    """How the operator's own loop does, read at the moment of the scrape."""

    def __init__(self) -> None:
        self.queue_length: Callable[[], int] = lambda: 0
        self._last_events: dict[str, float] = {}

    def note_event(self, kind: str) -> None:
        """The watch of this kind delivered something."""
        self._last_events[kind] = time.monotonic()

    def collect(self) -> Iterator[Metric]:
        """All series, as prometheus_client asks for them."""
        depth = GaugeMetricFamily("lora_operator_queue_depth", "Trainings that wait for a look.")
        depth.add_metric([], self.queue_length())
        yield depth
        age = GaugeMetricFamily(
            "lora_operator_last_event_age_seconds",
            "Time since the watch of a kind delivered something, in seconds.",
            labels=["kind"],
        )
        now = time.monotonic()
        for kind, moment in dict(self._last_events).items():
            age.add_metric([kind], now - moment)
        yield age


class Metrics:
    """Every metric of one operator."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.trainings = TrainingCollector()
        self.loop = LoopCollector()
        self.registry.register(self.trainings)
        self.registry.register(self.loop)
        self.reconciles = Counter(
            "lora_operator_reconciles",
            "Looks at a training, by result: success, requeue or error.",
            ["result"],
            registry=self.registry,
        )
        self.reconcile_duration = Histogram(
            "lora_operator_reconcile_duration_seconds",
            "Time that one look takes, in seconds.",
            buckets=RECONCILE_BUCKETS,
            registry=self.registry,
        )
        self.leader = GaugeMetric(
            "lora_operator_leader", "1 where this operator acts, 0 where it stands by.", registry=self.registry
        )
        self.errors = Counter("lora_operator_errors", "Errors by kind.", ["kind"], registry=self.registry)
        self.api_requests = Counter(
            "lora_operator_api_requests",
            "Requests to the API server by verb, resource and status code, watches aside.",
            ["verb", "resource", "code"],
            registry=self.registry,
        )

    def count_request(self, verb: str, resource: str, code: str) -> None:
        """One request to the API server was answered."""
        self.api_requests.labels(verb, resource, code).inc()
