"""Placed pictures without a scan: what the tests of latents, batches and augmentation begin with."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lora_api.dataset_spec import Dataset
from lora_trainer.data.example import Example
from lora_trainer.data.placed import PlacedExample, place_examples


def make_dataset(**fields: Any) -> Dataset:
    """Settings for pictures of 64 px without buckets; `fields` by their YAML names."""
    return Dataset.model_validate(
        {"uri": "s3://lora/data", "resolution": 64, "buckets": {"enabled": False}, "workers": 0} | fields
    )


def make_example(path: Path, index: int = 0, size: tuple[int, int] = (64, 64), **fields: Any) -> Example:
    """An example under the settings of `make_dataset`; `fields` replaces some of its own."""
    dataset = make_dataset()
    content = path.read_bytes() if path.exists() else str(path).encode()
    known: dict[str, Any] = {
        "index": index,
        "path": path,
        "key": f"1_x/{path.name}",
        "width_px": size[0],
        "height_px": size[1],
        "caption": f"caption {index}",
        "caption_lines": (f"caption {index}",),
        "caption_source": "file",
        "captions": dataset.captions,
        "augmentation": dataset.augmentation,
        "repeats": 1,
        "is_regularization": False,
        "folder": "1_x",
        "class_tokens": "x",
        "sha256": hashlib.sha256(content).hexdigest(),
        "mask": "None",
        "mask_path": None,
        "mask_sha256": None,
    }
    return Example(**known | fields)


def place(dataset: Dataset, *examples: Example) -> tuple[PlacedExample, ...]:
    """The examples in the buckets of `dataset`."""
    return place_examples(examples, dataset)


def write_noise(path: Path, size: tuple[int, int] = (64, 64), *, seed: int = 0) -> Path:
    """A picture of noise, every pixel of its own colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path
