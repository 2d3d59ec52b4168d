"""Trains the tiny base with one setting changed at a time, and draws what comes of it, for docs/settings.md.

    python -m benchmarks.settings_pictures --work /tmp/settings

About ten minutes on one thread. What lies in the work folder is not made again. Training and drawing are those of the
`lora` command, with fixed seeds, so the same machine makes the same pictures.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
BASE = ROOT / "tinybase" / "model"
PICTURES = ROOT / "docs" / "images" / "settings"
NEW, ORDINARY = "a zwx emblem on a blue background", "a red square on a blue background"
COMMON = (
    f"baseModel.uri={BASE.as_uri()}",
    f"dataset.uri={(ROOT / 'examples' / 'demo' / 'data' / 'train').as_uri()}",
    "dataset.validationFraction=0.1",
    "evaluation={bestEpoch: {by: None}, report: false}",
    "samples.prompts=[]",
    "checkpoints.saveState=false",
)
"""The demo's training on the same pictures, without measures and pictures on the way."""

RUNS: dict[str, tuple[str, ...]] = {
    "usual": (),
    "rank-1": ("network.rank=1", "network.alpha=1"),
    "alpha-1": ("network.alpha=1",),
    "rate-too-high": ("optimizer.learningRate=1.5e-2", "optimizer.textEncoderLearningRate=5e-3"),
    "no-regularisation": ("dataset.regularization.lossWeight=0",),
}
"""What each training changes."""

FIGURES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "epoch-weight": (("usual/adapters",), ("--epochs", "1,2,4,5,8", "--weights", "0.4,0.7,1", "--prompt", NEW)),
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
    places = (f"output.uri={(work / name).as_uri()}", f"output.name={name}")
    changes = [word for change in (*COMMON, *places, *RUNS[name]) for word in ("--set", change)]
    _lora("run", ROOT / "examples" / "demo.yaml", "--work-dir", work / f"{name}-work", "--no-serve", *changes)


def draw(name: str, work: Path) -> None:
    """One figure, as a WebP picture beside the page."""
    adapters, options = FIGURES[name]
    _lora(
        "grid", *(work / place for place in adapters), "--base", BASE, "--out", work / f"grid-{name}",
        "--width", "128", "--height", "128", "--steps", "16", "--guidance", "6", *options,
    )  # fmt: skip
    PICTURES.mkdir(parents=True, exist_ok=True)
    with Image.open(work / f"grid-{name}" / "grid.png") as picture:
        small = picture.convert("RGB").resize(
            (picture.width * 2 // 3, picture.height * 2 // 3), Image.Resampling.LANCZOS
        )
        small.save(PICTURES / f"{name}.webp", quality=85, method=6)


def _lora(*arguments: str | Path) -> None:
    words = [sys.executable, "-m", "lora_trainer", *(str(argument) for argument in arguments)]
    subprocess.run(words, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True)


if __name__ == "__main__":
    main()
