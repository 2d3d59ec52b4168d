"""Adapters from one format to another, bit for bit; used by `lora convert`."""

from pathlib import Path

import torch

from lora_api.model_spec import Family
from lora_trainer.lora.adapter import AdapterFile, AdapterModule, FileFormat, keyed
from lora_trainer.lora.formats import read_adapter, save_adapter


def convert(
    source: Path, target: Path, *, to: FileFormat, family: Family | None = None, dtype: torch.dtype | None = None
) -> AdapterFile:
    """Writes the adapter in `source` to `target` and returns it.

    Args:
        source: a file in kohya's or diffusers' format, or a folder in PEFT's.
        target: what is written, which must not exist.
        to: format of `target`.
        family: what the adapter is for, if its modules and metadata say something else.
        dtype: number format of the tensors; None: as they are.

    Raises:
        InvalidAdapterFile: `source` cannot be read, or `to` cannot hold it.
    """
    adapter = read_adapter(source)
    modules = [module if dtype is None else _cast(module, dtype) for module in adapter.modules.values()]
    family = family or adapter.family
    converted = AdapterFile(keyed(modules, family), adapter.metadata, family, to)
    save_adapter(target, converted, to=to)
    return converted


def _cast(module: AdapterModule, dtype: torch.dtype) -> AdapterModule:
    return AdapterModule(module.name, {name: tensor.to(dtype) for name, tensor in module.tensors.items()}, module.alpha)
