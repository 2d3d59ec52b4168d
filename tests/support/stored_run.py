"""A finished run as it lies in a folder, made without training: adapters, samples, measures, plan, manifests."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

from lora_api.run_manifest import (
    EVALUATION_MANIFEST_NAME,
    MANIFEST_NAME,
    EvaluationManifest,
    FileKind,
    ManifestFile,
    RunManifest,
    evaluation_digest,
    result_settings,
    spec_digest,
)
from lora_api.spec import LoraTraining
from lora_api.status import MemoryRung
from lora_trainer.evaluation.choice import choose
from lora_trainer.evaluation.measures import Measure, to_line
from lora_trainer.provenance import Provenance
from lora_trainer.results import METRICS_PATH, PLAN_PATH, PROVENANCE_PATH, TRAINING_PATH
from lora_trainer.run_documents import to_yaml
from lora_trainer.state_places import StatePlace
from lora_trainer.storage import Store, describe
from lora_trainer.storage.directory_store import DirectoryStore
from tests.support.tiny_run import make_training

STEPS_PER_EPOCH = 20
TIME = "2026-01-02T03:04:05Z"
U_SHAPED = (1.0, 0.82, 0.7, 0.62, 0.6, 0.63, 0.69, 0.76)
"""Held-out losses of epoch 0 and on, of an over-trained run: the fourth epoch is best."""


@dataclass(frozen=True)
class StoredRun:
    """What the run is like."""

    losses: Sequence[float] = U_SHAPED
    """Held-out losses of epoch 0 and on."""
    is_complete: bool = True
    """Else it is still going on, and its newest state is that after its last epoch."""
    is_measured: bool = True
    is_evaluated: bool = True
    has_grid: bool = True
    """A grid, and similarities of the samples."""
    rungs: Sequence[MemoryRung] = ()
    tags: Mapping[str, int] | None = None
    prompts: Sequence[str] = ("zwx emblem", "a red shape")
    warnings: Sequence[str] = ("2 of 20 pictures are held out.",)
    side: int = 32
    """Of sample pictures in px."""
    is_noisy: bool = False
    """Sample pictures that can hardly be compressed."""
    changes: Mapping[str, Any] | None = None
    """Sections of the spec."""

    @property
    def epochs(self) -> int:
        """How many were trained."""
        return len(self.losses) - 1

    def training(self, folder: Path) -> LoraTraining:
        """The object."""
        prompts = {"prompts": [{"prompt": prompt, "steps": 2, "seed": 1} for prompt in self.prompts]}
        return make_training(
            Path("/base"), Path("/data"), folder, samples=prompts, evaluation={}, **dict(self.changes or {})
        )


def store_run(folder: Path, run: StoredRun = StoredRun()) -> Store:
    """Writes the run to `folder`, as a training and its evaluation leave it."""
    training = run.training(folder)
    writer = _Writer(folder)
    _write_adapters(writer, run)
    _write_samples(writer, run)
    measures = _measures(run) if run.is_measured else ()
    metrics = "".join((*_step_lines(run), *map(to_line, measures)))
    if not run.is_complete:
        _write_state(folder, training, run, metrics=metrics, published=writer.taken())
        return DirectoryStore(folder, folder.as_uri(), on_bytes=lambda _: None)
    writer.text(METRICS_PATH, "metrics", metrics)
    writer.text(TRAINING_PATH, "training", to_yaml(training))
    writer.text(PLAN_PATH, "plan", json.dumps(_plan(run)))
    writer.text(PROVENANCE_PATH, "provenance", Provenance(result_settings(training.spec), {}, {}).to_json())
    manifest = _manifest(training, run, writer.taken())
    text = manifest.model_dump_json(by_alias=True, exclude_none=True)
    (folder / MANIFEST_NAME).write_text(text)
    if run.is_evaluated:
        if run.has_grid:
            _write_grid(writer, run)
        evaluation = EvaluationManifest(
            run_sha256=hashlib.sha256(text.encode()).hexdigest(),
            evaluation_digest=evaluation_digest(training.spec),
            created_time=TIME,
            status=choose(measures),
            files=writer.taken(),
        )
        (folder / EVALUATION_MANIFEST_NAME).write_text(evaluation.model_dump_json(by_alias=True, exclude_none=True))
    return DirectoryStore(folder, folder.as_uri(), on_bytes=lambda _: None)


def _write_state(
    folder: Path, training: LoraTraining, run: StoredRun, *, metrics: str, published: tuple[ManifestFile, ...]
) -> None:
    place = folder / StatePlace(start=1, step=run.epochs * STEPS_PER_EPOCH, epoch=run.epochs).folder
    writer = _Writer(place)
    writer.text("files.json", "state", json.dumps([file.model_dump(mode="json", by_alias=True) for file in published]))
    writer.text("metrics.jsonl", "state", metrics)
    writer.text(PROVENANCE_PATH, "state", Provenance(result_settings(training.spec), {}, {}).to_json())
    manifest = _manifest(training, run, writer.taken()).model_copy(update={"complete": False})
    (place / MANIFEST_NAME).write_text(manifest.model_dump_json(by_alias=True, exclude_none=True))


class _Writer:
    """Writes files and describes them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: list[ManifestFile] = []

    def taken(self) -> tuple[ManifestFile, ...]:
        """What was written since the last time."""
        files, self._files = self._files, []
        return tuple(sorted(files, key=lambda file: file.path))

    def path(self, path: str) -> Path:
        """Where to write a file."""
        target = self._folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        return target

    def describe(self, path: str, kind: FileKind, *, epoch: int | None = None) -> None:
        """Notes a written file."""
        step = None if epoch is None else epoch * STEPS_PER_EPOCH
        self._files.append(describe(self._folder / path, path, kind, epoch=epoch, step=step))

    def text(self, path: str, kind: FileKind, text: str, *, epoch: int | None = None) -> None:
        """Writes and notes a text."""
        self.path(path).write_text(text)
        self.describe(path, kind, epoch=epoch)


def _write_adapters(writer: _Writer, run: StoredRun) -> None:
    for epoch in range(1, run.epochs + 1):
        writer.text(f"adapters/tiny-{epoch:06d}.safetensors", "adapter", f"adapter {epoch}", epoch=epoch)
    writer.text("adapters/tiny.safetensors", "adapter", "final", epoch=run.epochs)


def _write_samples(writer: _Writer, run: StoredRun) -> None:
    for epoch in range(run.epochs + 1):
        for place, prompt in enumerate(run.prompts):
            path = f"samples/tiny-e{epoch:06d}-{place:02d}.png"
            parameters = f"{prompt}\nSteps: 2, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 32x32"
            _draw(writer.path(path), f"e{epoch}", run.side, colour=(20 * epoch, 90 + 40 * place, 160), text=parameters)
            if run.is_noisy:
                _write_noise(writer.path(path), run.side)
            writer.describe(path, "sample", epoch=epoch)


def _write_grid(writer: _Writer, run: StoredRun) -> None:
    pictures = []
    for preset in (None, "MIDD"):
        for weight in (0.5, 1.0):
            path = f"evaluation/grid/e000004-w{weight}-{preset}.png"
            _draw(writer.path(path), f"{weight}", run.side, colour=(90, 60, 160))
            writer.describe(path, "grid", epoch=4)
            one = {"path": path, "epoch": 4, "weight": weight, "prompt": run.prompts[0], "negativePrompt": ""}
            pictures.append(one | {"seed": 42, "sampler": "euler_a", "guidance": 7.0, "blockWeights": preset})
    epochs = [{"epoch": 4, "clipText": 0.271, "dinoMean": None, "dinoNearest": 0.77}]
    writer.text("evaluation/similarity.json", "measures", json.dumps({"pictures": [], "epochs": epochs}))
    writer.text("evaluation/grid.json", "grid", json.dumps({"pictures": pictures}))
    _draw(writer.path("evaluation/grid.webp"), "grid", 3 * run.side, colour=(200, 200, 200))
    writer.describe("evaluation/grid.webp", "grid")


def _draw(path: Path, word: str, side: int, *, colour: tuple[int, int, int], text: str = "") -> None:
    image = Image.new("RGB", (side, side), colour)
    ImageDraw.Draw(image).text((4, 4), word, fill="white")
    if path.suffix == ".png":
        info = PngInfo()
        info.add_text("parameters", text)
        image.save(path, pnginfo=info)
    else:
        image.save(path)


def _write_noise(path: Path, side: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)


def _measures(run: StoredRun) -> tuple[Measure, ...]:
    """Five held-out pictures that differ by constants, so that differences between epochs have little error."""
    return tuple(
        Measure(
            epoch=epoch,
            step=epoch * STEPS_PER_EPOCH,
            held_out={f"p{number}": loss + 0.01 * (number - 2) * (1 + 0.1 * epoch) for number in range(5)},
            training={f"t{number}": 0.9**epoch for number in range(5)},
            drift=0.002 * epoch,
        )
        for epoch, loss in enumerate(run.losses)
    )


def _step_lines(run: StoredRun) -> list[str]:
    lines = []
    for step in range(2, run.epochs * STEPS_PER_EPOCH + 1, 2):
        loss = 0.1 + 0.05 * (0.99**step) + 0.02 * ((step * 7919) % 13) / 13
        rates = {"unet": 1e-3 * (1 - step / (run.epochs * STEPS_PER_EPOCH)), "text_encoder": 5e-4}
        lines.append(json.dumps({"step": step, "epoch": step // STEPS_PER_EPOCH, "loss": loss, "learningRates": rates}))
    return [f"{line}\n" for line in lines]


def _plan(run: StoredRun) -> dict[str, Any]:
    bucket = {"widthPx": 64, "heightPx": 64, "images": 20, "samples": 40, "batches": 20, "cropLossPercent": 3.2}
    plan = {"images": 20, "captionsFound": 20, "batchesPerEpoch": 20, "stepsPerEpoch": STEPS_PER_EPOCH}
    plan |= {"epochs": run.epochs, "totalSteps": run.epochs * STEPS_PER_EPOCH, "samplesPerEpoch": 40}
    tags = {"zwx emblem": 20, "blue background": 9, "pink background": 4} if run.tags is None else dict(run.tags)
    return {
        "plan": plan | {"buckets": [bucket], "warnings": list(run.warnings)},
        "folders": {"2_zwx emblem": {"n_repeats": 2, "img_count": 20}},
        "tags": {"2_zwx emblem": tags},
    }


def _manifest(training: LoraTraining, run: StoredRun, files: tuple[ManifestFile, ...]) -> RunManifest:
    return RunManifest(
        complete=True,
        name="tiny",
        spec_digest=spec_digest(training.spec),
        dataset_digest="d" * 64,
        base_digest="b" * 64,
        epoch=run.epochs,
        step=run.epochs * STEPS_PER_EPOCH,
        total_steps=run.epochs * STEPS_PER_EPOCH,
        created_time=TIME,
        memory_rungs=tuple(run.rungs),
        files=files,
    )
