"""Opens a base model of any family: what it is and its digests, without loading it and without torch.

Used by `prepare`, `catalogue` and `run`.
"""

from pathlib import Path

from lora_api.model_spec import BaseModelSpec
from lora_trainer.families.detect import identify
from lora_trainer.families.diffusers_folder import FILES, DiffusersFolder
from lora_trainer.families.model_files import ModelFiles, old_hash_of
from lora_trainer.families.replacement_vae import WithVae
from lora_trainer.families.single_file import SingleFile

__all__ = ["FILES", "VAE_FILES", "ModelFiles", "hashes_of_model", "hashes_of_vae", "open_model"]

_VAE_FILES = ("config.json", "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors")
VAE_FILES = (*_VAE_FILES, *(f"vae/{name}" for name in _VAE_FILES))
"""Patterns of the files that are worth fetching of `spec.baseModel.vaeUri`."""


def open_model(path: Path, spec: BaseModelSpec | None = None, *, vae: Path | None = None) -> ModelFiles:
    """The files of a model: what it is, and its digests; nothing is loaded yet.

    Args:
        path: a diffusers folder or a `.safetensors` checkpoint.
        spec: what the model is asked to be.
        vae: replaces the model's own VAE: a diffusers folder or a `.safetensors` file.

    Raises:
        BaseModelUnavailable: it is no model that can be trained.
        InvalidConfiguration: it is not what `spec` says.
    """
    identity = identify(path, spec)
    form = DiffusersFolder if path.is_dir() else SingleFile
    files: ModelFiles = form(path, identity.family, identity.prediction)
    return files if vae is None else WithVae(files, vae)


def hashes_of_model(files: ModelFiles) -> tuple[str, str]:
    """Old hash (8 hex digits) and SHA-256 of a model, whatever its VAE was replaced by, as adapters tell them.

    Those of its file; a folder, which has none, is told by the digest of its files.
    """
    if isinstance(files, WithVae):
        return hashes_of_model(files.files)
    if isinstance(files, SingleFile):
        return old_hash_of(files.path), files.digest
    return files.digest[:8], files.digest


def hashes_of_vae(files: ModelFiles) -> tuple[str, str] | tuple[None, None]:
    """The same of a replacing VAE, if there is one."""
    if not isinstance(files, WithVae):
        return None, None
    if files.vae.is_dir():
        return files.vae_digest[:8], files.vae_digest
    return old_hash_of(files.vae), files.vae_digest
