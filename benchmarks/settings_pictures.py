"""Trains the tiny base with one setting changed at a time, and draws what comes of it, for docs/settings.md.

    python -m benchmarks.settings_pictures --work /tmp/settings

About ten minutes on one thread. What lies in the work folder is not made again. Training and drawing are those of the
`lora` command, with fixed seeds, so the same machine makes the same pictures.
"""

import argparse
import copy
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
BASE = ROOT / "tinybase" / "model"
PICTURES = ROOT / "docs" / "images" / "settings"
NEW, ORDINARY = "a zwx emblem on a blue background", "a red square on a blue background"
EPOCHS = 6

USUAL: dict[str, Any] = {
    "baseModel": {"uri": BASE.as_uri()},
    "dataset": {
        "uri": (ROOT / "examples" / "demo" / "data" / "train").as_uri(),
        "resolution": 128,
        "buckets": {"minPx": 96, "maxPx": 192, "stepPx": 16},
    },
    "network": {"rank": 16, "alpha": 16},
    "optimizer": {
        "learningRate": 1.5e-3,
        "textEncoderLearningRate": 5e-4,
        "schedule": {"name": "cosine", "warmupSteps": 10},
    },
    "parallelism": {"gpusPerNode": 0},
    "training": {"epochs": EPOCHS, "batchSize": 4, "precision": "fp32", "seed": 7},
    "checkpoints": {"saveState": False},
}
"""The demo's training, without pictures and evaluation on the way."""

RUNS: dict[str, dict[str, dict[str, Any]]] = {
    "usual": {},
    "rank-1": {"network": {"rank": 1, "alpha": 1}},
    "alpha-1": {"network": {"alpha": 1}},
    "rate-too-high": {"optimizer": {"learningRate": 1.5e-2, "textEncoderLearningRate": 5e-3}},
    "no-regularisation": {"dataset": {"regularization": {"lossWeight": 0}}},
}
"""What each training changes."""

FIGURES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "epoch-weight": (("usual/adapters",), ("--epochs", "1,2,3,4,6", "--weights", "0.4,0.7,1,1.4", "--prompt", NEW)),
    "runs-new": (tuple(f"{run}/adapters/{run}.safetensors" for run in RUNS), ("--weights", "1", "--prompt", NEW)),
    "runs-ordinary": (
        tuple(f"{run}/adapters/{run}.safetensors" for run in RUNS),
        ("--weights", "1", "--prompt", ORDINARY),
    ),
    "block-weights": (
        ("usual/adapters/usual.safetensors",),
        ("--weights", "1", "--prompt", NEW, *(w for name in ("ALL", "INALL", "MIDD", "OUTALL") for w in ("-b", name))),
    ),
    "clip-skip": (("usual/adapters/usual.safetensors",), ("--weights", "1", "--prompt", NEW, "--clip-skip", "2")),
}
"""What each figure shows: adapters, and how `lora grid` draws them."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains what is missing and writes every figure."""
    parser = argparse.ArgumentParser(description="Draws the pictures of docs/settings.md.")
    parser.add_argument("--work", type=Path, required=True, help="folder for the trainings; kept")
    work: Path = parser.parse_args(arguments).work.resolve()
    for name in RUNS:
        train(name, work)
    for name in FIGURES:
        draw(name, work)


def train(name: str, work: Path) -> None:
    """The adapters of one run; a run that is complete is left as it is."""
    spec = copy.deepcopy(USUAL)
    for part, changes in RUNS[name].items():
        spec[part] |= changes
    spec["output"] = {"uri": (work / name).as_uri(), "name": name}
    document = {
        "apiVersion": "lora-operator.io/v1alpha1",
        "kind": "LoraTraining",
        "metadata": {"name": name},
        "spec": spec,
    }
    work.mkdir(parents=True, exist_ok=True)
    path = work / f"{name}.yaml"
    path.write_text(yaml.safe_dump(document))
    _lora("run", path, "--work-dir", work / f"{name}-work", "--no-serve")


def draw(name: str, work: Path) -> None:
    """One figure, as a WebP picture beside the page."""
    adapters, options = FIGURES[name]
    _lora(
        "grid", *(work / place for place in adapters), "--base", BASE, "--out", work / f"grid-{name}",
        "--steps", "16", "--guidance", "6", "--seed", "1", *options,
    )  # fmt: skip
    PICTURES.mkdir(parents=True, exist_ok=True)
    with Image.open(work / f"grid-{name}" / "grid.png") as picture:
        picture.convert("RGB").save(PICTURES / f"{name}.webp", quality=85, method=6)


def _lora(*arguments: str | Path) -> None:
    words = [sys.executable, "-m", "lora_trainer", *(str(argument) for argument in arguments)]
    subprocess.run(words, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True)


if __name__ == "__main__":
    main()
