"""A whole training on the tiny pipeline: pictures, spec, session; small enough to run many times."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image
from prometheus_client import CollectorRegistry

from lora_api import LoraTraining, parse_training
from lora_api.model_spec import BlockName
from lora_trainer.audience import Audience
from lora_trainer.metrics import TrainingMetrics
from lora_trainer.prepare import Session
from lora_trainer.progress import ProgressTracker
from lora_trainer.settings import Settings

_COLOURS = ("red", "green", "blue")
_LEFT_OUT: tuple[BlockName, ...] = (
    "IN02", "IN04", "IN05", "IN07", "IN08",
    "OUT03", "OUT04", "OUT05", "OUT06", "OUT07", "OUT08", "OUT09", "OUT10",
)  # fmt: skip

FEW_BLOCKS: tuple[dict[str, Any], ...] = tuple({"name": name, "rank": 0} for name in _LEFT_OUT)
"""`network.blocks` that leave three of the 16 blocks with attention: for tests that are not about the network."""


def write_pictures(folder: Path) -> Path:
    """Three captioned pictures of 64 px, repeated twice, and two regularisation pictures."""
    concept, ordinary = folder / "2_zwx shape", folder / "reg" / "1_shape"
    for place in (concept, ordinary):
        place.mkdir(parents=True)
    for index, colour in enumerate(_COLOURS):
        Image.new("RGB", (64, 64), colour).save(concept / f"{index}.png")
        (concept / f"{index}.txt").write_text(f"zwx {colour} shape, plain")
    for index in range(2):
        Image.new("RGB", (64, 64), (40 * index, 90, 90)).save(ordinary / f"{index}.png")
    return folder


def make_training(base: Path, data: Path, output: Path, /, **changes: Any) -> LoraTraining:
    """Two epochs of 6 steps at batch size 2, with a sample prompt; `changes` are sections merged into the spec."""
    spec: dict[str, Any] = {
        "baseModel": {"uri": base.as_uri()},
        "dataset": {"uri": data.as_uri(), "resolution": 64, "buckets": {"enabled": False}, "workers": 0},
        "network": {"rank": 4, "alpha": 2.0},
        "optimizer": {"name": "adamw", "learningRate": 1e-2},
        "training": {"epochs": 2, "batchSize": 2, "precision": "fp32", "seed": 3},
        "samples": {"prompts": [{"prompt": "zwx red shape", "steps": 2, "seed": 1}]},
        "output": {"uri": output.as_uri(), "name": "tiny"},
        "parallelism": {"gpusPerNode": 0},
    }
    for section, fields in changes.items():
        spec[section] = spec.get(section, {}) | fields
    return parse_training(
        {"apiVersion": "lora-operator.io/v1alpha1", "kind": "LoraTraining", "metadata": {"name": "tiny"}, "spec": spec}
    )


@dataclass(frozen=True)
class Observed:
    """A session and what it noted."""

    session: Session
    tracker: ProgressTracker
    registry: CollectorRegistry


def make_session(work_dir: Path, *, should_stop: Callable[[], bool] = lambda: False) -> Observed:
    """A session without server, signals or terminal."""
    tracker, registry = ProgressTracker(), CollectorRegistry()
    audience = Audience(tracker, TrainingMetrics(registry), lambda _: None)
    return Observed(Session(Settings(work_dir=work_dir), audience, should_stop), tracker, registry)


def make_session_until(work_dir: Path, *, step: int) -> Observed:
    """A session that is told to stop when `step` steps are made."""
    observed = make_session(work_dir)

    def should_stop() -> bool:
        progress = observed.tracker.snapshot().progress
        return progress is not None and progress.step >= step

    return replace(observed, session=replace(observed.session, should_stop=should_stop))
