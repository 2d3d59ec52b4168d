"""Opens and loads a base model of any family; used by `run` and the commands."""

from collections.abc import Mapping
from pathlib import Path

import torch

from lora_api.model_spec import BaseModelSpec, Family
from lora_trainer.families import sd2, sd15, sdxl
from lora_trainer.families.base import BaseModel
from lora_trainer.families.clip import CHUNK_TOKENS, Reading
from lora_trainer.families.detect import check_asked, family_of_folder
from lora_trainer.families.diffusers_folder import FILES, DiffusersFolder
from lora_trainer.families.model_files import ModelFiles
from lora_trainer.families.stable_diffusion import StableDiffusion

__all__ = ["CLASSES", "FILES", "ModelFiles", "load", "open_model"]

CLASSES: Mapping[Family, type[StableDiffusion]] = {
    "sd15": sd15.StableDiffusion15,
    "sd2": sd2.StableDiffusion2,
    "sdxl": sdxl.StableDiffusionXL,
}


def open_model(path: Path, spec: BaseModelSpec | None = None) -> ModelFiles:
    """The files of the model at `path`, a diffusers folder: what it is, its digests; nothing is loaded yet.

    Raises:
        BaseModelUnavailable: it is no model that can be trained.
        InvalidConfiguration: it is not what `spec` says.
    """
    files = DiffusersFolder(path, family_of_folder(path))
    if spec is not None:
        check_asked(spec, family=files.family, prediction=files.prediction)
    return files


def load(
    files: ModelFiles | Path,
    device: torch.device,
    *,
    precision: torch.dtype,
    clip_skip: int = 1,
    max_tokens: int = CHUNK_TOKENS,
    weighted: bool = False,
) -> BaseModel:
    """The model of `files`, or at a path, on `device`, frozen, in evaluation mode.

    Raises:
        BaseModelUnavailable: a file is missing or cannot be read, or weights are missing in it.
        InvalidConfiguration: clip skip goes beyond the text encoder's layers.
    """
    opened = open_model(files) if isinstance(files, Path) else files
    reading = Reading(clip_skip, max_tokens, weighted)
    return CLASSES[opened.family].load(opened, device, precision=precision, reading=reading)
