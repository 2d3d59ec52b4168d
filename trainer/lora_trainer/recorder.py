"""What happens beside the steps: progress is told, adapters are published, pictures drawn, states kept.

Made by `run`; `loop` calls it after steps and epochs.
"""

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lora_api.run_manifest import ManifestFile
from lora_api.spec import LoraTraining
from lora_api.status import Artifacts, Checkpoint, Progress
from lora_trainer.compute import DTYPES, OUTPUT_TOLERANCE, peak_memory_bytes
from lora_trainer.drawing import Painter
from lora_trainer.loop import Trainer
from lora_trainer.lora.formats import content_hashes, read_adapter, to_diffusers, to_kohya, write_adapter
from lora_trainer.lora.inject import Adapters
from lora_trainer.lora.metadata import RunFacts, adapter_metadata
from lora_trainer.lora.verify import Probe, verify_adapter
from lora_trainer.metrics import TrainingMetrics
from lora_trainer.output import METRICS_PATH, RunOutput, SavedState
from lora_trainer.progress import ProgressTracker
from lora_trainer.samples import picture_name, pictures_of, sheet_name, write_picture, write_sheet

logger = logging.getLogger(__name__)

_MOST_STEPS_BETWEEN_REPORTS = 10
_EXTENSION = ".safetensors"


@dataclass(frozen=True)
class Audience:
    """Who is told how the training goes."""

    tracker: ProgressTracker
    metrics: TrainingMetrics
    on_progress: Callable[[Progress], None]
    """Called after every report, such as by a progress bar."""


@dataclass(frozen=True)
class Product:
    """What is made: the spec, what the metadata needs, the live adapters and how to try them."""

    training: LoraTraining
    facts: RunFacts
    adapters: Adapters
    probe: Probe
    painter: Painter


class Recorder:
    """Reports, publishes, draws and saves for one run."""

    def __init__(self, product: Product, trainer: Trainer, output: RunOutput, audience: Audience) -> None:
        self._product, self._trainer, self._output, self._audience = product, trainer, output, audience
        self._name = product.training.output_name
        self._pictures = pictures_of(product.training.spec)
        self._metrics_lines: list[str] = []
        self._saved_position: tuple[int, int] | None = None
        steps = trainer.plan.steps_per_epoch
        self._report_every = max(1, min(_MOST_STEPS_BETWEEN_REPORTS, steps // 10))

    def resume(self, saved: SavedState) -> None:
        """Takes over from an earlier attempt: position, files, lines of the metrics."""
        self._trainer.restore(saved.training)
        self._metrics_lines = list(saved.metrics)
        self._saved_position = (saved.training.step, saved.training.epoch)
        self._audience.tracker.set_resumed_from(saved.training.step)
        for file in saved.files:
            if is_checkpoint(file, self._name):
                self._audience.tracker.add_checkpoint(self._checkpoint(file))

    def begin(self) -> None:
        """Draws the base model's pictures, unless an earlier attempt did, and starts the clock."""
        if 0 in self._trainer.plan.sample_epochs and not self._drawn_epochs():
            self._draw(0)
        self._audience.tracker.set_reason("Training")
        self._audience.tracker.start_steps(self._trainer.step, epoch=self._trainer.epoch)

    def after_step(self, epoch: int) -> None:
        """Reports every few steps, so that the device is rarely waited for."""
        step = self._trainer.step
        if step % self._report_every and step != self._trainer.plan.total_steps:
            return
        loss, rates = self._trainer.mean_loss(), self._trainer.learning_rates()
        line = {"step": step, "epoch": epoch, "loss": loss, "learningRates": rates}
        self._metrics_lines.append(json.dumps(line, sort_keys=True) + "\n")
        self._report(loss, rates)

    def after_epoch(self, epoch: int) -> None:
        """Publishes the epoch's adapter and pictures, then the state; only then the epoch is done."""
        plan, tracker = self._trainer.plan, self._audience.tracker
        loss = self._trainer.epoch_loss()
        if epoch in plan.save_epochs:
            tracker.set_reason("Saving", f"adapter of epoch {epoch}")
            file = self._publish_adapter(epoch, self._adapter_path(epoch), loss)
            tracker.add_checkpoint(self._checkpoint(file))
        if epoch in plan.sample_epochs:
            self._draw(epoch)
        self._trainer.epoch = epoch
        self.save_state()
        self._report(self._trainer.mean_loss(), self._trainer.learning_rates())
        logger.info("epoch %s of %s is done, mean loss %.5f", epoch, plan.epochs, loss)
        tracker.set_reason("Training")

    def save_state(self) -> None:
        """Stores the state, unless it is stored already or there is nothing to keep. Raises Diverged."""
        position = (self._trainer.step, self._trainer.epoch)
        if self._trainer.step == 0 or position == self._saved_position:
            return
        self._trainer.mean_loss()
        self._audience.tracker.set_reason("Saving", f"state of step {self._trainer.step}")
        self._output.publish_state(self._trainer.state(), self._metrics_lines)
        self._saved_position = position

    def finish(self) -> Artifacts:
        """Publishes the final adapter, sheet and metrics, and the manifest last."""
        plan = self._trainer.plan
        self._audience.tracker.set_reason("Saving", "final adapter and manifest")
        self._publish_adapter(plan.epochs, self._adapter_path(None), self._trainer.epoch_loss())
        if self._drawn_epochs():
            self._publish_sheet(sheet_name(self._name), epoch=plan.epochs)
        self._output.write(METRICS_PATH, lambda path: path.write_text("".join(self._metrics_lines)))
        self._output.publish(METRICS_PATH, "metrics", step=self._trainer.step)
        self._output.finish(epoch=plan.epochs, step=self._trainer.step)
        artifacts = self.artifacts()
        self._audience.tracker.set_artifacts(artifacts)
        return artifacts

    def artifacts(self) -> Artifacts:
        """Where the results lie."""
        return artifacts_of(self._output, self._name)

    def _report(self, loss: float, rates: Mapping[str, float]) -> None:
        trainer, audience = self._trainer, self._audience
        progress = audience.tracker.step(
            trainer.step, epoch=trainer.epoch, loss=loss, learning_rate=rates.get("unet", next(iter(rates.values())))
        )
        images = trainer.plan.samples_per_epoch / trainer.plan.steps_per_epoch
        audience.metrics.observe(progress, learning_rates=rates, images_per_step=images)
        audience.metrics.set_device_memory(peak_memory_bytes(trainer.device))
        audience.on_progress(progress)

    def _publish_adapter(self, epoch: int, path: str, loss: float) -> ManifestFile:
        """Publishes the adapter in every format; gives what the manifest says of kohya's, or of the only one."""
        published = []
        with self._trainer.result():
            for name in self._product.training.spec.output.formats:
                place = path if name == "kohya" else path.removesuffix(_EXTENSION) + f"-diffusers{_EXTENSION}"
                local = self._output.write(place, partial(self._write_adapter, format_name=name, epoch=epoch))
                published.append(
                    self._output.publish(place, "adapter", epoch=epoch, step=self._trainer.step, loss=loss)
                )
                local.unlink()
        return published[0]

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

    def _draw(self, epoch: int) -> None:
        product = self._product
        self._audience.tracker.set_reason("Sampling", f"{len(self._pictures)} pictures of epoch {epoch}")
        clip_skip = product.training.spec.base_model.clip_skip
        with self._trainer.result():
            images = product.painter.draw(self._pictures)
        for place, image in enumerate(images):
            path = f"samples/{picture_name(self._name, epoch, place)}"
            parameters = self._pictures[place].parameters(clip_skip)
            self._output.write(path, partial(write_picture, image, parameters=parameters))
            self._output.publish(path, "sample", epoch=epoch, step=self._trainer.step)
        if epoch > 0:
            self._publish_sheet(sheet_name(self._name, epoch), epoch=epoch)

    def _publish_sheet(self, name: str, *, epoch: int) -> None:
        self._output.fetch_back("sample")
        columns = {
            drawn: [self._output.local(self._picture_path(drawn, place)) for place in range(len(self._pictures))]
            for drawn in self._drawn_epochs()
            if drawn <= epoch
        }
        self._output.write(f"samples/{name}", partial(write_sheet, self._pictures, columns))
        self._output.publish(f"samples/{name}", "sheet", epoch=epoch, step=self._trainer.step)

    def _drawn_epochs(self) -> list[int]:
        """Epochs of which every picture is published."""
        published = {file.path for file in self._output.files}
        places = range(len(self._pictures))
        return [
            epoch
            for epoch in self._trainer.plan.sample_epochs
            if all(self._picture_path(epoch, place) in published for place in places)
        ]

    def _picture_path(self, epoch: int, place: int) -> str:
        return f"samples/{picture_name(self._name, epoch, place)}"

    def _adapter_path(self, epoch: int | None) -> str:
        return adapter_path(self._name, epoch)

    def _checkpoint(self, file: ManifestFile) -> Checkpoint:
        return checkpoint_of(file, self._output)


def adapter_path(name: str, epoch: int | None) -> str:
    """Where the adapter of an epoch, or the final one, lies in the output."""
    return f"adapters/{name}.safetensors" if epoch is None else f"adapters/{name}-{epoch:06d}.safetensors"


def is_checkpoint(file: ManifestFile, name: str) -> bool:
    """Whether it is the adapter of an epoch; the final one, and other formats, hold the same weights once more."""
    return bool(file.kind == "adapter" and file.epoch and file.path == adapter_path(name, file.epoch))


def checkpoint_of(file: ManifestFile, output: RunOutput) -> Checkpoint:
    """An adapter of the manifest as the status shows it."""
    return Checkpoint(
        epoch=file.epoch or 0,
        step=file.step or 0,
        uri=output.uri_of(file.path),
        sha256=file.sha256,
        size_bytes=file.size_bytes,
        loss=file.loss,
    )


def artifacts_of(output: RunOutput, name: str) -> Artifacts:
    """Where the results of a run lie, as far as they are published."""
    published = {file.path for file in output.files}
    sheet = f"samples/{sheet_name(name)}"
    return Artifacts(
        adapter_uri=output.uri_of(adapter_path(name, None)),
        samples_uri=output.uri_of(sheet) if sheet in published else None,
        manifest_uri=output.uri_of("manifest.json"),
    )
