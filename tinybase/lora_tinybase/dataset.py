"""Writes the example LoRA dataset in kohya layout: `python -m lora_tinybase.dataset --out examples/demo/data/train`.

Twenty emblems, which the base model cannot draw, and twenty ordinary shapes as regularisation pictures.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from lora_tinybase import drawings

SEED = 7
COUNT = 20
CONCEPT_FOLDER = f"5_{drawings.TRIGGER}"
REGULARISATION_FOLDER = "reg/1_shape"
SIZES = ((128, 128), (128, 128), (128, 128), (160, 112), (112, 160))  # width, height: three buckets


@dataclass(frozen=True)
class Example:
    """One picture of the dataset. `path` is relative to the dataset and has no suffix."""

    path: Path
    picture: drawings.Pixels
    caption: str


def examples() -> list[Example]:
    """The whole dataset, the same each time."""
    rng = np.random.default_rng(SEED)
    found = []
    for i in range(COUNT):
        # Five sizes and four backgrounds: every pair once.
        scene = drawings.place_emblem(drawings.EMBLEM_BACKGROUNDS[i % len(drawings.EMBLEM_BACKGROUNDS)], rng)
        width, height = SIZES[i % len(SIZES)]
        found.append(_example(Path(CONCEPT_FOLDER) / f"emblem-{i + 1:02}", scene, width, height))
    for i, scene in enumerate(drawings.scenes(COUNT, SEED)):
        width, height = SIZES[i % len(SIZES)]
        found.append(_example(Path(REGULARISATION_FOLDER) / f"shape-{i + 1:02}", scene, width, height))
    return found


def _example(path: Path, scene: drawings.Scene, width: int, height: int) -> Example:
    return Example(path, drawings.render(scene, width, height), drawings.describe(scene))


def write(folder: Path) -> None:
    """Writes every picture as PNG with its caption as .txt beside it."""
    for example in examples():
        path = folder / example.path
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(example.picture).save(path.with_suffix(".png"), optimize=True)
        path.with_suffix(".txt").write_text(example.caption + "\n", encoding="utf-8")


def main() -> None:
    """Writes the dataset into a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="dataset root to write")
    write(parser.parse_args().out)


if __name__ == "__main__":
    main()
