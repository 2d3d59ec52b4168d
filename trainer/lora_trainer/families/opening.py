"""Opens a base model of any family: what it is and its digests, without loading it and without torch.

Used by `prepare`, `catalogue` and `run`.
"""

from pathlib import Path

from lora_api.model_spec import BaseModelSpec
from lora_trainer.families.configurations import CONFIGS
from lora_trainer.families.detect import identify
from lora_trainer.families.diffusers_folder import FILES, DiffusersFolder, read_json
from lora_trainer.families.model_files import ModelFiles, old_hash_of
from lora_trainer.families.replacement_vae import WithVae
from lora_trainer.families.single_file import SingleFile

__all__ = ["FILES", "VAE_FILES", "ModelFiles", "hashes_of_model", "hashes_of_vae", "open_model", "side_px_of"]

_VAE_FILES = ("config.json", "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors")
VAE_FILES = (*_VAE_FILES, *(f"vae/{name}" for name in _VAE_FILES))
"""Patterns of the files that are worth fetching of `spec.baseModel.vaeUri`."""
_LEAST_SIDE_PX = 64
"""Smaller ones are not drawn."""


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


def side_px_of(files: ModelFiles) -> int:
    """Side of the pictures that the model was made for: what its UNet's configuration says, else its family's.

    Raises:
        BaseModelUnavailable: a configuration is missing or damaged.
    """
    if isinstance(files, WithVae):
        return side_px_of(files.files)
    own = [files.folder] if isinstance(files, DiffusersFolder) else []
    return next(side for folder in (*own, CONFIGS / files.family) if (side := _side_px(folder)) is not None)


def _side_px(folder: Path) -> int | None:
    """None where nothing usable is said."""
    unet, vae = (read_json(folder, f"{part}/config.json", field="the base model") for part in ("unet", "vae"))
    cells, levels = unet.get("sample_size"), vae.get("block_out_channels")
    if not isinstance(cells, int) or not isinstance(levels, list):
        return None
    side = cells * 2 ** (len(levels) - 1)
    return side if side >= _LEAST_SIDE_PX else None


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
