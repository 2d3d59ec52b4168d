"""The operator's metrics, in a registry of their own. Filled by `controller`, served by `server`."""

import threading
import time
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client import Gauge as GaugeMetric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from lora_api import ProgressReport
from lora_api.status import Phase
from lora_operator.figures import FIGURES, Figure, Figures
from lora_operator.subject import Key

RECONCILE_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
Labelled = tuple[dict[str, str], Figures]
"""The labels of a training, and its numbers."""


class TrainingCollector(Collector):
    """The trainings that exist now: their phases, and each one in numbers. A series ends with its object."""

    def __init__(self) -> None:
        # Written on the event loop, read by the server's threads.
        self._lock = threading.Lock()
        self._figures: dict[Key, Figures] = {}

    def set(self, key: Key, figures: Figures) -> None:
        """The training is so far."""
        with self._lock:
            before = self._figures.get(key)
            self._figures[key] = figures if before is None else figures.following(before)

    def hear(self, key: Key, report: ProgressReport) -> None:
        """The pod that trains says so; of a training that nobody has looked at yet it is told after the first look."""
        with self._lock:
            if key in self._figures:
                self._figures[key] = self._figures[key].with_report(report)

    def remove(self, key: Key) -> None:
        """The training is gone."""
        with self._lock:
            self._figures.pop(key, None)

    def collect(self) -> Iterator[Metric]:
        """All series, as prometheus_client asks for them."""
        with self._lock:
            known = dict(self._figures)
        tally = Tally(figures.phase for figures in known.values())
        trainings = GaugeMetricFamily("lora_operator_trainings", "Trainings by phase.", labels=["phase"])
        for phase in Phase:
            trainings.add_metric([phase.value], tally[phase])
        yield trainings
        labelled = [({"namespace": key.namespace, "name": key.name}, figures) for key, figures in known.items()]
        yield _states(labelled)
        yield _ended_pods(labelled)
        for index, figure in enumerate(FIGURES):
            yield _family(figure, index, labelled)


def _states(labelled: Iterable[Labelled]) -> Metric:
    """The phase of each training with the reason for it, as the labels of one series that is 1."""
    family = Metric("lora_training_state", "1 for the phase that the training is in, with the reason for it.", "gauge")
    for labels, figures in labelled:
        family.add_sample(family.name, {**labels, "phase": figures.phase.value, "reason": figures.reason}, 1)
    return family


def _ended_pods(labelled: Iterable[Labelled]) -> Metric:
    family = Metric(
        "lora_training_ended_pods", "Pods that can be seen and ended without completing, by reason.", "gauge"
    )
    for labels, figures in labelled:
        for reason, count in figures.ended_pods.items():
            family.add_sample(family.name, {**labels, "reason": reason}, count)
    return family


def _family(figure: Figure[Any], index: int, labelled: Iterable[Labelled]) -> Metric:
    family = Metric(figure.name, figure.help, figure.kind)
    name = f"{figure.name}_total" if figure.kind == "counter" else figure.name
    for labels, figures in labelled:
        value = figures.values[index]
        if value is not None:
            family.add_sample(name, labels, value)
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
        ProcessCollector(registry=self.registry)
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
        # A series that begins at 1 has not increased: without its 0 the alert would miss the first bug.
        self.errors.labels("bug")
        self.api_requests = Counter(
            "lora_operator_api_requests",
            "Requests to the API server by verb, resource and status code, watches aside.",
            ["verb", "resource", "code"],
            registry=self.registry,
        )

    def count_request(self, verb: str, resource: str, code: str) -> None:
        """One request to the API server was answered."""
        self.api_requests.labels(verb, resource, code).inc()
