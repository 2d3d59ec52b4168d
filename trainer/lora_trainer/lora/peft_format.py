"""PEFT's format for adapters: a folder for each part, as `PeftModel.from_pretrained` and `load_adapter` open it.

`unet/`, `text_encoder/` and `text_encoder_2/`, each with `adapter_config.json` and `adapter_model.safetensors`.
Used by `lora.formats`.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from lora_trainer.conditioning import PARTS, Part
from lora_trainer.lora.adapter import AdapterModule, InvalidAdapterFile
from lora_trainer.lora.diffusers_format import lora_config, peft_modules, peft_tensors
from lora_trainer.lora.keys import text_model_path
from lora_trainer.lora.tensor_file import UnreadableTensorFile, read_tensors, write_tensors

_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PEFT_PREFIX = "base_model.model."
"""What PEFT puts before every name of a tensor."""


def write_peft(folder: Path, modules: Iterable[AdapterModule], metadata: Mapping[str, str]) -> None:
    """Writes the folders below `folder`, which must not exist.

    Raises:
        InvalidAdapterFile: LoHa and LoKr modules.
    """
    members = list(modules)
    files = {part: _part_tensors(part, members) for part in PARTS}
    folder.mkdir(parents=True)
    for part, tensors in files.items():
        if tensors:
            target = folder / part
            target.mkdir()
            config = {"peft_type": "LORA", **lora_config([m for m in members if m.name.part == part])}
            (target / _CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
            write_tensors(target / _WEIGHTS, tensors, metadata)


def _part_tensors(part: Part, modules: Iterable[AdapterModule]) -> dict[str, Tensor]:
    """Under the names of transformers' modules: only the second text encoder has `text_model.`."""
    return {
        f"{PEFT_PREFIX}{text_model_path(path) if part == 'text_encoder_2' else path}.{name}": tensor
        for module in modules
        if module.name.part == part
        for path in (module.name.path,)
        for name, tensor in peft_tensors(module).items()
    }


def read_peft(folder: Path) -> tuple[list[AdapterModule], dict[str, str]]:
    """Modules and metadata of a folder with one folder for each part. Raises InvalidAdapterFile."""
    modules: list[AdapterModule] = []
    metadata: dict[str, str] = {}
    for part in PARTS:
        if (folder / part / _CONFIG).is_file():
            own, found = _read_part(folder / part, part)
            modules += own
            metadata |= found
    if not modules:
        raise InvalidAdapterFile(
            f"{folder.name} holds no {' nor '.join(f'{part}/{_CONFIG}' for part in PARTS)}; name an adapter file or a "
            "folder with a PEFT adapter for each part"
        )
    return modules, metadata


def _read_part(folder: Path, part: Part) -> tuple[list[AdapterModule], dict[str, str]]:
    name = f"{part}/{_WEIGHTS}"
    try:
        config: dict[str, Any] = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
        tensors, metadata = read_tensors(folder / _WEIGHTS)
    except (OSError, UnreadableTensorFile, ValueError) as error:
        raise InvalidAdapterFile(f"{part}/ is no PEFT adapter: {error}") from error
    if not isinstance(config, dict):
        raise InvalidAdapterFile(f"{part}/{_CONFIG} is no JSON object; take the one that PEFT wrote")
    if config.get("peft_type") != "LORA":
        raise InvalidAdapterFile(f"{part}/{_CONFIG} has peft_type {config.get('peft_type')}; only LORA can be read")
    own = {key.removeprefix(PEFT_PREFIX): tensor for key, tensor in tensors.items()}
    return peft_modules(part, own, config, name), metadata
