"""What happens beside the steps: progress is told, adapters are published, pictures drawn, states kept.

Made by `run`; `loop` calls it after steps and epochs.
"""

import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lora_api.run_manifest import ManifestFile, RunManifest
from lora_api.spec import LoraTraining
from lora_api.status import Artifacts, SavedState
from lora_trainer.audience import Audience
from lora_trainer.compute import DTYPES, OUTPUT_TOLERANCE, peak_memory_bytes
from lora_trainer.drawing import Painter
from lora_trainer.evaluation.bench import Bench
from lora_trainer.gallery import Exhibits, Gallery
from lora_trainer.loop import Trainer
from lora_trainer.lora.formats import content_hashes, read_adapter, to_diffusers, to_kohya, write_adapter
from lora_trainer.lora.inject import Adapters
from lora_trainer.lora.metadata import RunFacts, adapter_metadata
from lora_trainer.lora.verify import Probe, verify_adapter
from lora_trainer.output import RunOutput
from lora_trainer.results import METRICS_PATH, adapter_path, artifacts_of, checkpoint_of, is_checkpoint
from lora_trainer.run_documents import Document
from lora_trainer.samples import model_name, pictures_of
from lora_trainer.states import ResumableState
from lora_trainer.validation import Validation

logger = logging.getLogger(__name__)

_MOST_STEPS_BETWEEN_REPORTS = 10
_EXTENSION = ".safetensors"


@dataclass(frozen=True)
class Product:
    """What is made: the spec, what the metadata needs, the live adapters and how to try them."""

    training: LoraTraining
    facts: RunFacts
    adapters: Adapters
    probe: Probe
    painter: Painter
    documents: tuple[Document, ...] = ()
    """What the run says of itself."""


class Recorder:
    """Reports, publishes, draws and saves for one run."""

    def __init__(
        self,
        product: Product,
        trainer: Trainer,
        output: RunOutput,
        audience: Audience,
        *,
        log_file: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`log_file` is kept with every state."""
        self._product, self._trainer, self._output, self._audience = product, trainer, output, audience
        self._log_file, self._clock = log_file, clock
        self._checkpoints = product.training.spec.checkpoints
        self._last_saved = clock()
        self._name = product.training.output_name
        self._gallery = Gallery(_exhibits(product, trainer), trainer.plan, output, audience)
        self._metrics_lines: list[str] = []
        evaluation = product.training.spec.evaluation
        measures = evaluation is not None and evaluation.best_epoch.by != "None"
        self._validation = Validation(evaluation, audience) if evaluation is not None and measures else None
        self._saved_position: tuple[int, int] | None = None
        steps = trainer.plan.steps_per_epoch
        self._report_every = max(1, min(_MOST_STEPS_BETWEEN_REPORTS, steps // 10))

    @property
    def saves_states(self) -> bool:
        """Whether the spec wants states at all."""
        return self._checkpoints.save_state

    @property
    def has_trained(self) -> bool:
        """Whether there is anything that could be lost."""
        return self._trainer.step > 0

    def resume(self, saved: ResumableState) -> None:
        """Takes over from an earlier attempt: position, files, lines of the metrics."""
        trainer, tracker = self._trainer, self._audience.tracker
        if saved.is_changed:
            trainer.restore_weights(saved.training)
            # Later epochs are made again, or there are fewer with these pictures: theirs are no results of this run.
            self._output.forget_after(trainer.epoch)
        else:
            trainer.restore(saved.training)
            self._saved_position = (trainer.step, trainer.epoch)
        self._metrics_lines = [line for line in saved.metrics if json.loads(line)["step"] <= trainer.step]
        if saved.is_changed:
            # What was measured is of other pictures, or of another base model.
            self._metrics_lines = [line for line in self._metrics_lines if "evaluation" not in json.loads(line)]
        if self._validation is not None:
            self._validation.take_over(self._metrics_lines)
        tracker.set_resumed_from(trainer.step)
        self._audience.metrics.set_resumed_from(trainer.step)
        tracker.set_saved_state(saved.saved)
        for file in self._output.files:
            if is_checkpoint(file, self._name):
                self._add_checkpoint(file)

    @property
    def is_over(self) -> bool:
        """Whether early stop ends the training here."""
        return self._validation is not None and self._validation.is_over

    def begin(self, bench: Bench | None = None) -> None:
        """Measures the base model and draws its pictures, unless an earlier attempt did, and starts the clock.

        `bench` measures every saved epoch; it may be left out where the spec asks for no measure.
        """
        if self._validation is not None and bench is not None:
            self._audience.tracker.set_reason("Measuring", "the base model")
            line = self._validation.begin(bench)
            self._metrics_lines += [] if line is None else [line]
        self._gallery.begin(self._trainer.step)
        self._audience.tracker.set_reason("Training")
        self._audience.tracker.start_steps(self._trainer.step, epoch=self._trainer.epoch)

    def after_step(self, epoch: int) -> None:
        """Reports every few steps, so that the device is rarely waited for, and saves the state when it is time."""
        step = self._trainer.step
        self._audience.tracker.alive()
        self._output.check()
        if step % self._report_every == 0 or step == self._trainer.plan.total_steps:
            loss, rates = self._trainer.mean_loss(), self._trainer.learning_rates()
            line = {"step": step, "epoch": epoch, "loss": loss, "learningRates": rates}
            self._metrics_lines.append(json.dumps(line, sort_keys=True) + "\n")
            self._report(loss, rates)
        if step in self._trainer.plan.sample_steps:
            self._gallery.after_step(step)
            self._audience.tracker.set_reason("Training")
        if self._is_time_to_save():
            self.save_state()

    def _is_time_to_save(self) -> bool:
        """Whether a state is due between two epochs; one at a time, as fast as the store takes them."""
        if self._output.is_saving:
            return False
        if self._is_asked_for():
            return True
        every, saved_step = self._checkpoints.every_steps, self._saved_position[0] if self._saved_position else 0
        # Also after the step itself, if the state before was still on its way then.
        in_steps = every is not None and self._trainer.step // every > saved_step // every
        return in_steps or self._clock() - self._last_saved >= self._checkpoints.every_seconds

    def _is_asked_for(self) -> bool:
        """Whether somebody wants a state now."""
        tracker = self._audience.tracker
        if tracker.open_request and not self._checkpoints.save_state:
            tracker.refuse_request("a state was asked for, but spec.checkpoints.saveState is false: none is saved")
        return bool(tracker.open_request)

    def after_epoch(self, epoch: int) -> None:
        """Publishes the epoch's adapter and pictures, then the state; only then the epoch is done."""
        plan, tracker = self._trainer.plan, self._audience.tracker
        loss = self._trainer.epoch_loss()
        if epoch in plan.save_epochs:
            self._measure(epoch)
            tracker.set_reason("Saving", f"adapter of epoch {epoch}")
            self._publish_adapter(epoch, adapter_path(self._name, epoch), loss)
        self._gallery.after_epoch(self._trainer.step, epoch, is_last=self.is_over)
        self._trainer.epoch = epoch
        self.save_state()
        self._report(self._trainer.mean_loss(), self._trainer.learning_rates())
        logger.info("epoch %s of %s is done, mean loss %.5f", epoch, plan.epochs, loss)
        tracker.set_reason("Training")

    def _measure(self, epoch: int) -> None:
        if self._validation is None or self._validation.is_measured(epoch):
            return
        self._audience.tracker.set_reason("Measuring", f"epoch {epoch}")
        with self._trainer.result():
            self._metrics_lines.append(self._validation.measure(epoch, self._trainer.step))

    def tell_position(self) -> None:
        """Tells how far the training is, whenever the last report was. Raises Diverged."""
        if self._trainer.step > 0:
            self._report(self._trainer.mean_loss(), self._trainer.learning_rates())

    def save_state(self) -> None:
        """Hands the state over to be stored, unless that was done or there is nothing to keep. Raises Diverged."""
        position = (self._trainer.step, self._trainer.epoch)
        if self._trainer.step == 0 or position == self._saved_position or not self._checkpoints.save_state:
            return
        self._trainer.mean_loss()
        on_saved = partial(self._on_saved, self._audience.tracker.open_request)
        self._output.publish_state(self._trainer.state(), self._metrics_lines, on_saved=on_saved)
        self._saved_position, self._last_saved = position, self._clock()

    def _on_saved(self, request: str, saved: SavedState) -> None:
        self._audience.tracker.set_saved_state(saved, answers=request)
        self._audience.metrics.observe_state(saved)
        self._output.publish_log(self._log_file)

    def finish(self) -> RunManifest:
        """Publishes the final adapter, sheet and metrics, and the manifest last."""
        epoch = self._trainer.epoch
        self._audience.tracker.set_reason("Saving", "final adapter and manifest")
        self._publish_adapter(epoch, adapter_path(self._name, None), self._trainer.epoch_loss())
        self._gallery.finish(self._trainer.step, epoch)
        self._output.write(METRICS_PATH, lambda path: path.write_text("".join(self._metrics_lines)))
        self._output.publish(METRICS_PATH, "metrics", step=self._trainer.step)
        for document in self._product.documents:
            self._output.write(document.path, partial(_write_text, text=document.text))
            self._output.publish(document.path, document.kind, step=self._trainer.step)
        manifest = self._output.finish(epoch=epoch, step=self._trainer.step)
        self._audience.tracker.set_artifacts(self.artifacts())
        self._audience.tracker.end_steps()
        return manifest

    def artifacts(self) -> Artifacts:
        """Where the results lie."""
        return artifacts_of(self._output.files, self._name, self._output.uri_of)

    def _report(self, loss: float, rates: Mapping[str, float]) -> None:
        trainer, audience = self._trainer, self._audience
        memory = peak_memory_bytes(trainer.device)
        audience.tracker.set_device_memory(memory)
        progress = audience.tracker.step(
            trainer.step, epoch=trainer.epoch, loss=loss, learning_rate=rates.get("unet", next(iter(rates.values())))
        )
        images = trainer.plan.samples_per_epoch / trainer.plan.steps_per_epoch
        audience.metrics.observe(progress, learning_rates=rates, images_per_step=images)
        audience.metrics.set_device_memory(memory)
        audience.on_progress(progress)

    def _publish_adapter(self, epoch: int, path: str, loss: float) -> None:
        """Publishes the adapter in every format."""
        with self._trainer.result():
            for name in self._product.training.spec.output.formats:
                place = path if name == "kohya" else path.removesuffix(_EXTENSION) + f"-diffusers{_EXTENSION}"
                self._output.write(place, partial(self._write_adapter, format_name=name, epoch=epoch))
                step = self._trainer.step
                self._output.publish(
                    place, "adapter", epoch=epoch, step=step, loss=loss, on_stored=self._on_adapter_stored
                )

    def _on_adapter_stored(self, file: ManifestFile) -> None:
        self._output.local(file.path).unlink()
        if is_checkpoint(file, self._name):
            self._add_checkpoint(file)

    def _add_checkpoint(self, file: ManifestFile) -> None:
        validation = self._validation
        loss = None if validation is None else validation.loss_of(file.epoch or 0)
        checkpoint = checkpoint_of(file, self._output.uri_of, loss)
        self._audience.tracker.add_checkpoint(checkpoint)
        if validation is not None:
            validation.stored(checkpoint)

    def _write_adapter(self, path: Path, *, format_name: str, epoch: int) -> None:
        """Writes the live adapters, reads them back and tries them on the model."""
        product, spec = self._product, self._product.training.spec
        metadata = adapter_metadata(product.training, product.facts, epoch=epoch, step=self._trainer.step)
        dtype = DTYPES[spec.output.precision]
        if format_name == "kohya":
            tensors = to_kohya(product.adapters.layers, dtype, product.adapters.family)
            settings = {key: value for key, value in metadata.items() if key.startswith("ss_")}
            metadata |= content_hashes(tensors, settings)
        else:
            tensors, config = to_diffusers(product.adapters.layers, dtype)
            metadata |= config
        write_adapter(path, tensors, metadata)
        tolerance = OUTPUT_TOLERANCE[DTYPES[spec.training.precision]]
        verify_adapter(read_adapter(path), product.adapters, product.probe, tolerance=tolerance)


def _exhibits(product: Product, trainer: Trainer) -> Exhibits:
    return Exhibits(
        name=product.training.output_name,
        base_name=model_name(product.facts.base_name),
        pictures=pictures_of(product.training.spec),
        adapters=product.adapters,
        painter=product.painter,
        result=trainer.result,
    )


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
