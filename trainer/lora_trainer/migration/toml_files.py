"""TOML files of sd-scripts: `--config_file` with arguments, `--dataset_config` with subsets."""

from collections.abc import Mapping
from typing import Any

from lora_trainer.migration.arguments import ARGUMENTS
from lora_trainer.migration.source import Source

_OF_A_SUBSET = ("dataset.captions.", "dataset.augmentation.", "dataset.buckets.", "training.batchSize")
_GUI_ONLY = frozenset({"epoch", "noise_offset_type", "lowvram"})
"""Keys that only the GUI writes, and whose effect stands under other keys as well."""


def is_dataset_definition(document: Mapping[str, Any]) -> bool:
    """Whether a file lists datasets instead of arguments."""
    return isinstance(document.get("datasets"), list)


def read_config(document: Mapping[str, Any]) -> Source:
    """Arguments of `--config_file`, sections flattened, as sd-scripts and the GUI write them."""
    raw: dict[str, object] = {}
    for name, value in document.items():
        raw |= value if isinstance(value, dict) else {name: value}
    return Source("sd-scripts configuration", {name: value for name, value in raw.items() if name not in _GUI_ONLY})


def read_dataset_definition(document: Mapping[str, Any]) -> Source:
    """A dataset definition alone: sd-scripts' defaults are known for what it could have said only."""
    raw = {
        name: argument.default
        for name, argument in ARGUMENTS.items()
        if argument.default is not None and argument.fields and argument.fields[0].startswith(_OF_A_SUBSET)
    }
    return Source("sd-scripts dataset definition", raw, complete=False, dataset_config=document)
