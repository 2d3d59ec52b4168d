"""Adapter files in every format: what is trained is written, what lies there is read.

Used by `run` to publish, by `lora.verify` to check, and by the commands on adapter files.
"""

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lora_api.model_spec import Family
from lora_trainer.lora.adapter import (
    DORA_SCALE,
    UP,
    AdapterFile,
    AdapterModule,
    FileFormat,
    InvalidAdapterFile,
    family_of,
    keyed,
)
from lora_trainer.lora.diffusers_format import CONFIG_KEY, diffusers_modules, diffusers_tensors
from lora_trainer.lora.keys import ModuleName, canonical_path
from lora_trainer.lora.kohya_format import kohya_modules, kohya_tensors
from lora_trainer.lora.peft_format import PEFT_PREFIX, read_peft, write_peft
from lora_trainer.lora.tensor_file import UnreadableTensorFile, content_hashes, read_tensors, write_tensors

if TYPE_CHECKING:
    # Reading a file needs no PEFT, and `lora inspect` should not wait for it.
    from lora_trainer.lora.layer import AdaptedLayer

_DIFFUSERS_PARTS = ("unet.", "text_encoder.", "text_encoder_2.")
_OF_ONE_FILE = ("sshs_model_hash", "sshs_legacy_hash", CONFIG_KEY)
"""Metadata that says something about the bytes of one file and is made anew for each."""


def to_kohya(layers: "Iterable[AdaptedLayer]", dtype: torch.dtype, family: Family) -> dict[str, Tensor]:
    """The tensors of a file in kohya's format for live adapters, on the CPU in `dtype`."""
    return kohya_tensors([_module(layer, dtype) for layer in layers], family)


def to_diffusers(layers: "Iterable[AdaptedLayer]", dtype: torch.dtype) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a file in diffusers' format for live adapters, and the metadata that goes with them.

    Raises:
        InvalidAdapterFile: LoHa and LoKr, which diffusers does not load.
    """
    return diffusers_tensors([_module(layer, dtype) for layer in layers])


def _module(layer: "AdaptedLayer", dtype: torch.dtype) -> AdapterModule:
    tensors = {name: tensor.detach().to("cpu", torch.float32) for name, tensor in layer.tensors().items()}
    if DORA_SCALE in tensors:
        # One column, so that readers take it for the norms of the outputs, not of the inputs.
        up = tensors[UP]
        tensors[DORA_SCALE] = tensors[DORA_SCALE].reshape(up.shape[0], *[1] * (up.dim() - 1))
    tensors = {name: tensor.to(dtype) for name, tensor in tensors.items()}
    return AdapterModule(ModuleName(layer.part, canonical_path(layer.path)), tensors, layer.alpha)


def write_adapter(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Writes a `.safetensors` file whose bytes depend on `tensors` and `metadata` only."""
    write_tensors(path, tensors, metadata)


def save_adapter(path: Path, adapter: AdapterFile, *, to: FileFormat = "kohya") -> None:
    """Writes an adapter in a format to `path`, which must not exist: a file, or for `peft` a folder.

    Raises:
        InvalidAdapterFile: the format cannot hold this type of adapter, or `path` exists.
    """
    try:
        _save_whole(path, adapter, to)
    except OSError as error:
        raise InvalidAdapterFile(f"{path} cannot be written: {error.strerror}; choose another place") from error


def _save_whole(path: Path, adapter: AdapterFile, to: FileFormat) -> None:
    if path.exists():
        raise InvalidAdapterFile(f"{path} exists; remove it or choose another name")
    partial = path.with_name(path.name + ".partial")
    try:
        _save(partial, adapter, to)
        partial.rename(path)
    finally:
        if partial.is_dir():
            shutil.rmtree(partial)
        partial.unlink(missing_ok=True)


def _save(path: Path, adapter: AdapterFile, to: FileFormat) -> None:
    metadata = {key: value for key, value in adapter.metadata.items() if key not in _OF_ONE_FILE}
    modules = adapter.modules.values()
    if to == "peft":
        write_peft(path, modules, metadata)
        return
    if to == "kohya":
        tensors = kohya_tensors(modules, adapter.family)
        config: dict[str, str] = {}
    else:
        tensors, config = diffusers_tensors(modules)
    hashes = content_hashes(tensors, {key: value for key, value in metadata.items() if key.startswith("ss_")})
    write_adapter(path, tensors, metadata | config | hashes)


def read_adapter(path: Path) -> AdapterFile:
    """The adapter in a file of kohya's or diffusers' format or in a folder of PEFT's.

    Raises:
        InvalidAdapterFile: no safetensors file, or one that does not hold whole modules of a known kind.
    """
    if path.is_dir():
        modules, metadata = read_peft(path)
        return _adapter(modules, metadata, family_of(modules, metadata), "peft")
    try:
        tensors, metadata = read_tensors(path)
    except UnreadableTensorFile as error:
        raise InvalidAdapterFile(str(error)) from error
    if any(name.startswith(_DIFFUSERS_PARTS) for name in tensors):
        modules = diffusers_modules(tensors, metadata, path.name)
        return _adapter(modules, metadata, family_of(modules, metadata), "diffusers")
    if any(name.startswith(PEFT_PREFIX) for name in tensors):
        raise InvalidAdapterFile(
            f"{path.name} has PEFT's names, but its strength stands in adapter_config.json beside it; put both into a "
            "folder unet/ (or text_encoder/, text_encoder_2/) and name the folder around it in `lora convert`"
        )
    modules = kohya_modules(tensors, path.name)
    return _adapter(modules, metadata, family_of(modules, metadata, tensors), "kohya")


def _adapter(
    modules: list[AdapterModule], metadata: Mapping[str, str], family: Family, origin: FileFormat
) -> AdapterFile:
    return AdapterFile(keyed(modules, family), metadata, family, origin)


__all__ = [
    "AdapterFile",
    "AdapterModule",
    "FileFormat",
    "InvalidAdapterFile",
    "content_hashes",
    "read_adapter",
    "save_adapter",
    "to_diffusers",
    "to_kohya",
    "write_adapter",
]
