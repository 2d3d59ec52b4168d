"""What is known of a training in numbers; pure. Read by `controller` and `poller`, exported by `metrics`."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Generic, Literal, TypeVar

from lora_api import ProgressReport
from lora_api.status import Attempts, Condition, ConditionType, LoraTrainingStatus, Phase, Progress
from lora_operator.diagnosis import diagnose
from lora_operator.observed import Pod
from lora_operator.timestamps import parse_time

Told = LoraTrainingStatus | ProgressReport
_ACTIVITIES = {
    "Starting", "Downloading", "CheckingData", "Captioning", "LoadingModel", "EncodingLatents", "Resuming", "Training",
    "Measuring", "Sampling", "Saving", "Evaluating", "Stalled", "NodeLost", "Evicted", "Preempted",
}  # fmt: skip
"""What may become the value of a label: a pod may say anything."""


@dataclass(frozen=True)
class Known:
    """A training as its status tells of it, and what the status leaves out."""

    status: LoraTrainingStatus
    created: str
    gpus: int
    now: datetime


Source = TypeVar("Source")


@dataclass(frozen=True)
class Figure(Generic[Source]):
    """One number of a training, as Prometheus is told of it."""

    name: str
    help: str
    read: Callable[[Source], float | None]
    kind: Literal["gauge", "counter"] = "gauge"


def _of_progress(read: Callable[[Progress], float | None]) -> Callable[[Told], float | None]:
    return lambda told: None if told.progress is None else read(told.progress)


def _ratio(progress: Progress) -> float | None:
    if progress.percent == 100:
        # Also of a training that stopped early.
        return 1.0
    return progress.step / progress.total_steps if progress.total_steps else None


def _time(text: str | None) -> float | None:
    return parse_time(text).timestamp() if text else None


def _images_per_second(told: Told) -> float | None:
    plan, rate = told.plan, told.progress.steps_per_second if told.progress else None
    if plan is None or rate is None or not plan.steps_per_epoch:
        return None
    return rate * plan.samples_per_epoch / plan.steps_per_epoch


def _validation_loss(told: Told) -> float | None:
    losses = (checkpoint.validation_loss for checkpoint in reversed(told.checkpoints))
    return next((loss for loss in losses if loss is not None), None)


def _of_attempts(read: Callable[[Attempts], float]) -> Callable[[Known], float]:
    return lambda known: read(known.status.attempts or Attempts())


def _active_seconds(known: Known) -> float:
    attempts = known.status.attempts or Attempts()
    since = attempts.active_since
    running = (known.now - parse_time(since)).total_seconds() if since else 0.0
    return attempts.active_seconds + max(0.0, running)


TOLD: tuple[Figure[Told], ...] = (
    Figure("lora_training_step", "Updates of the weights made.", _of_progress(lambda p: p.step)),
    Figure("lora_training_total_steps", "Updates of the weights planned.", _of_progress(lambda p: p.total_steps)),
    Figure("lora_training_epoch", "Epochs completed.", _of_progress(lambda p: p.epoch)),
    Figure("lora_training_total_epochs", "Epochs planned.", _of_progress(lambda p: p.total_epochs)),
    Figure("lora_training_progress_ratio", "Share of the steps that is done, 0 to 1.", _of_progress(_ratio)),
    Figure("lora_training_loss", "Mean loss of the last epoch's worth of steps.", _of_progress(lambda p: p.loss)),
    Figure(
        "lora_training_learning_rate",
        "Learning rate of the UNet's adapters.",
        _of_progress(lambda p: p.learning_rate),
    ),
    Figure("lora_training_steps_per_second", "Speed over the last steps.", _of_progress(lambda p: p.steps_per_second)),
    Figure("lora_training_images_per_second", "Pictures trained per second over the last steps.", _images_per_second),
    Figure(
        "lora_training_remaining_seconds",
        "Estimated time left in seconds.",
        _of_progress(lambda p: p.remaining_seconds),
    ),
    Figure(
        "lora_training_device_memory_bytes",
        "Most memory of the device in use at once, in bytes.",
        _of_progress(lambda p: p.device_memory_bytes),
    ),
    Figure(
        "lora_training_updated_timestamp_seconds",
        "When the trainer last told its progress.",
        _of_progress(lambda p: _time(p.updated_time)),
    ),
    Figure(
        "lora_training_best_epoch",
        "Epoch that does best on held-out pictures.",
        lambda told: told.evaluation.best_epoch if told.evaluation else None,
    ),
    Figure(
        "lora_training_overfit_epoch",
        "Epoch from which held-out pictures got worse while trained ones got better.",
        lambda told: told.evaluation.overfit_from if told.evaluation else None,
    ),
    Figure("lora_training_validation_loss", "Newest loss on held-out pictures.", _validation_loss),
    Figure(
        "lora_training_training_loss",
        "Newest loss on as many training pictures, measured in the same way.",
        lambda told: told.evaluation.training_loss if told.evaluation else None,
    ),
    Figure(
        "lora_training_drift",
        "How far unrelated captions have moved from the base model; 0 is not at all.",
        lambda told: told.evaluation.drift if told.evaluation else None,
    ),
    Figure(
        "lora_training_saved_state_timestamp_seconds",
        "When the newest state was stored.",
        lambda told: _time(told.saved_state.saved_time) if told.saved_state else None,
    ),
    Figure(
        "lora_training_memory_rungs",
        "What was given up because the GPU's memory was too small.",
        lambda told: len(told.memory_rungs),
    ),
)
KNOWN: tuple[Figure[Known], ...] = (
    Figure(
        "lora_training_attempts",
        "Attempts so far; each is a Job.",
        _of_attempts(lambda a: a.number),
    ),
    Figure(
        "lora_training_failures",
        "Failures that count against retry.maxFailures.",
        _of_attempts(lambda a: a.failures),
    ),
    Figure(
        "lora_training_preemptions",
        "Interruptions, which count against nothing.",
        _of_attempts(lambda a: a.preemptions),
    ),
    Figure(
        "lora_training_lost_steps",
        "Steps that had to be made again.",
        _of_attempts(lambda a: a.lost_steps),
    ),
    Figure("lora_training_active_seconds", "Running time of all attempts, in seconds.", _active_seconds, "counter"),
    Figure(
        "lora_training_gpu_seconds",
        "Running time of all attempts, times the GPUs that were asked for.",
        lambda k: k.gpus * _active_seconds(k),
        "counter",
    ),
    Figure("lora_training_gpus", "GPUs that are asked for.", lambda k: k.gpus),
    Figure("lora_training_created_timestamp_seconds", "When the object was made.", lambda k: _time(k.created)),
    Figure(
        "lora_training_start_timestamp_seconds",
        "When the first Job was made.",
        lambda k: _time(k.status.start_time),
    ),
    Figure(
        "lora_training_completion_timestamp_seconds",
        "When the training ended.",
        lambda k: _time(k.status.completion_time),
    ),
)
FIGURES: tuple[Figure[Told] | Figure[Known], ...] = (*TOLD, *KNOWN)
"""All of them, in the order of `Figures.values`."""
_CREATED = next(at for at, figure in enumerate(FIGURES) if figure.name == "lora_training_created_timestamp_seconds")


@dataclass(frozen=True)
class Figures:
    """A training in numbers, and what it is at."""

    phase: Phase
    reason: str
    values: tuple[float | None, ...]
    """One for each of `FIGURES`; None: not known, or not yet."""
    ended_pods: Mapping[str, int] = field(default_factory=dict)
    """Reason -> pods that can be seen and ended for it."""

    def following(self, before: "Figures") -> "Figures":
        """With counters not below what was told of the same object: an end is often dated before it was seen, and to
        Prometheus a counter that falls has started anew."""
        if self.values[_CREATED] != before.values[_CREATED]:
            return self
        told = zip(FIGURES, self.values, before.values, strict=True)
        values = (
            old if figure.kind == "counter" and new is not None and old is not None and old > new else new
            for figure, new, old in told
        )
        return replace(self, values=tuple(values))

    def with_report(self, report: ProgressReport) -> "Figures":
        """With what the pod that trains says now."""
        told, known = read(report), self.values[: len(TOLD)]
        newest = (known if value is None else value for value, known in zip(told, known, strict=True))
        return replace(self, values=(*newest, *self.values[len(TOLD) :]))


def read(told: Told) -> tuple[float | None, ...]:
    """The numbers that the trainer tells."""
    return tuple(figure.read(told) for figure in TOLD)


def derive_figures(known: Known, pods: Iterable[Pod] = ()) -> Figures:
    """The numbers of a training by its status and its pods."""
    status = known.status
    values = (*read(status), *(figure.read(known) for figure in KNOWN))
    return Figures(status.phase or Phase.PENDING, derive_reason(status), values, _count_ends(pods))


def derive_reason(status: LoraTrainingStatus) -> str:
    """The word that says why the training is in its phase, of those in docs/errors.md."""
    found = {condition.type: condition for condition in status.conditions}
    if status.phase in (Phase.SUCCEEDED, Phase.FAILED):
        return _reason(found.get(ConditionType.SUCCEEDED))
    if status.phase is Phase.SUSPENDED:
        return _reason(found.get(ConditionType.SUSPENDED))
    accepted, running = found.get(ConditionType.ACCEPTED), found.get(ConditionType.RUNNING)
    if accepted is not None and accepted.status == "False":
        return accepted.reason
    if running is not None and running.reason != "NotStarted":
        return running.reason if running.reason in _ACTIVITIES else "Other"
    return _reason(found.get(ConditionType.SCHEDULED))


def _reason(condition: Condition | None) -> str:
    return condition.reason if condition is not None else "Unknown"


def _count_ends(pods: Iterable[Pod]) -> Mapping[str, int]:
    """Of pods that train together a reason counts once: their Job ends with the first of them."""
    causes = ((pod.job_uid if pod.has_peers else pod.uid, diagnose(pod)) for pod in pods if pod.phase == "Failed")
    ends = {(who, cause.reason) for who, cause in causes if cause is not None}
    return Counter(reason for _, reason in ends)
