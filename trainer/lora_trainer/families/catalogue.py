"""Loads a base model of any family; used by `assembly`, the tests and the benchmarks."""

from collections.abc import Mapping
from pathlib import Path

import torch

from lora_api.model_spec import Family
from lora_trainer.families import sd2, sd15, sdxl
from lora_trainer.families.clip import CHUNK_TOKENS, Reading
from lora_trainer.families.opening import ModelFiles, open_model
from lora_trainer.families.stable_diffusion import StableDiffusion

__all__ = ["CLASSES", "load", "open_model"]

CLASSES: Mapping[Family, type[StableDiffusion]] = {
    "sd15": sd15.StableDiffusion15,
    "sd2": sd2.StableDiffusion2,
    "sdxl": sdxl.StableDiffusionXL,
}


def load(
    files: ModelFiles | Path,
    device: torch.device,
    *,
    precision: torch.dtype,
    clip_skip: int = 1,
    max_tokens: int = CHUNK_TOKENS,
    weighted: bool = False,
) -> StableDiffusion:
    """The model of `files`, or at a path, on `device`, frozen, in evaluation mode.

    Raises:
        BaseModelUnavailable: a file is missing or cannot be read, or weights are missing in it.
        InvalidConfiguration: clip skip goes beyond the text encoder's layers.
    """
    opened = open_model(files) if isinstance(files, Path) else files
    reading = Reading(clip_skip, max_tokens, weighted)
    return CLASSES[opened.family].load(opened, device, precision=precision, reading=reading)
