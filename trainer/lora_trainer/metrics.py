"""The trainer's Prometheus metrics: names, units, and help as users see them.

Set by `run` and `loop`, served by `progress`. Labels are bounded: `group` is `unet` or `text_encoder`.
"""

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from lora_api.status import EvaluationStatus, Progress, SavedState

_PREFIX = "lora_trainer"
_SAVE_SECONDS = (0.1, 0.3, 1, 3, 10, 30, 60, 120, 300, 600)


class TrainingMetrics:
    """All metrics of one run, registered at `registry`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, documentation: str, labels: tuple[str, ...] = ()) -> Gauge:
            return Gauge(name, documentation, labels, namespace=_PREFIX, registry=registry)

        def counter(name: str, documentation: str) -> Counter:
            return Counter(name, documentation, namespace=_PREFIX, registry=registry)

        self._step = gauge("step", "Updates of the weights made so far.")
        self._total_steps = gauge("total_steps", "Updates of the weights planned.")
        self._epoch = gauge("epoch", "Epochs completed.")
        self._total_epochs = gauge("total_epochs", "Epochs planned.")
        self._loss = gauge("loss", "Mean loss of the last epoch's worth of steps; NaN until there is one.")
        self._loss.set(float("nan"))
        self._learning_rate = gauge("learning_rate", "Learning rate of the last step.", ("group",))
        self._steps_per_second = gauge("steps_per_second", "Speed over the last steps.")
        self._images_per_second = gauge("images_per_second", "Pictures trained per second over the last steps.")
        self._remaining_seconds = gauge("remaining_seconds", "Estimated time left in seconds.")
        self._device_memory = gauge("device_memory_bytes", "Most memory of the device in use at once, in bytes.")
        self._fetched = counter("fetched_bytes", "Bytes read from object stores and hubs.")
        self._stored = counter("stored_bytes", "Bytes written to the output.")
        self._storage_retries = counter("storage_retries", "Requests to object stores that failed and were made again.")
        self._resumed_from_step = gauge("resumed_from_step", "Step of the state that this process went on from.")
        self._state_bytes = gauge("state_bytes", "Size of the newest stored state in bytes.")
        self._state_time = gauge("state_timestamp_seconds", "When the newest state was stored, in seconds since 1970.")
        self._state_saves = Histogram(
            "state_save_duration_seconds",
            "Time that writing, storing and reading back a state took.",
            namespace=_PREFIX,
            registry=registry,
            buckets=_SAVE_SECONDS,
        )
        self._validation_loss = gauge("validation_loss", "Loss on held-out pictures; 1 is the base model's.")
        self._training_loss = gauge("training_loss", "Loss on as many training pictures, measured in the same way.")
        self._drift = gauge("drift", "How far unrelated captions have moved from the base model; 0 is not at all.")
        self._best_epoch = gauge("best_epoch", "Best epoch by what was measured so far; 0 until there is one.")
        self._overfit = gauge("overfit", "1 once held-out pictures got worse while trained ones got better, else 0.")
        for measured in (self._validation_loss, self._training_loss, self._drift):
            measured.set(float("nan"))
        self._stalls = counter("stalls", "Times that there was no sign of life for too long.")
        self._stop_requested = gauge("stop_requested", "1 from when the process was told to stop, else 0.")

    def observe(self, progress: Progress, *, learning_rates: Mapping[str, float], images_per_step: float) -> None:
        """Takes over `progress`; `learning_rates` by group; `images_per_step` turns the rate into pictures."""
        self._step.set(progress.step)
        self._total_steps.set(progress.total_steps)
        self._epoch.set(progress.epoch)
        self._total_epochs.set(progress.total_epochs)
        for group, rate in learning_rates.items():
            self._learning_rate.labels(group).set(rate)
        if progress.loss is not None:
            self._loss.set(progress.loss)
        if progress.steps_per_second is not None:
            self._steps_per_second.set(progress.steps_per_second)
            self._images_per_second.set(progress.steps_per_second * images_per_step)
        if progress.remaining_seconds is not None:
            self._remaining_seconds.set(progress.remaining_seconds)

    def observe_measure(self, held_out: float | None, training: float | None, drift: float | None) -> None:
        """Takes over what was measured of the last saved epoch; None: that is not measured."""
        measured = {self._validation_loss: held_out, self._training_loss: training, self._drift: drift}
        for gauge, value in measured.items():
            if value is not None:
                gauge.set(value)

    def observe_choice(self, status: EvaluationStatus) -> None:
        """Takes over which epoch is best by now, and whether it was over-trained since."""
        self._best_epoch.set(status.best_epoch or 0)
        self._overfit.set(status.overfit_from is not None)

    def set_device_memory(self, peak_bytes: int) -> None:
        """Most memory of the device that was in use at once."""
        self._device_memory.set(peak_bytes)

    def add_fetched(self, count_bytes: int) -> None:
        """Counts bytes read from a store or hub."""
        self._fetched.inc(count_bytes)

    def add_stored(self, count_bytes: int) -> None:
        """Counts bytes written to the output."""
        self._stored.inc(count_bytes)

    def add_storage_retry(self) -> None:
        """Counts a request to a store that failed and is made again."""
        self._storage_retries.inc()

    def observe_state(self, saved: SavedState) -> None:
        """Takes over that a state lies verified in the store: its size, and how long that took."""
        self._state_bytes.set(saved.size_bytes)
        self._state_saves.observe(saved.save_seconds or 0.0)
        self._state_time.set_to_current_time()

    def set_resumed_from(self, step: int) -> None:
        """Step of the state that this process went on from."""
        self._resumed_from_step.set(step)

    def add_stall(self) -> None:
        """Counts a silence that was too long."""
        self._stalls.inc()

    def set_stop_requested(self) -> None:
        """Says that the process was told to stop."""
        self._stop_requested.set(1)
