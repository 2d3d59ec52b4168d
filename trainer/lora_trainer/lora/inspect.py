"""What an adapter file holds, in numbers; used by `lora inspect`."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_api.model_spec import Family, NetworkType
from lora_trainer.conditioning import PARTS
from lora_trainer.lora.adapter import AdapterFile, AdapterModule, FileFormat
from lora_trainer.lora.blocks import block_names, block_of
from lora_trainer.lora.formats import read_adapter

_SHOWN_TAGS = 10


@dataclass(frozen=True)
class GroupSummary:
    """Modules that belong together: those of a part of the model, or of a block of its UNet."""

    modules: int
    ranks: tuple[int, ...]
    alphas: tuple[float, ...]
    mean_norm: float
    """Mean Frobenius norm of the weight changes."""
    max_norm: float
    max_norm_module: str


@dataclass(frozen=True)
class AdapterSummary:
    """An adapter file in numbers."""

    file: str
    format: FileFormat
    type: NetworkType
    family: Family
    size_bytes: int
    dtypes: tuple[str, ...]
    parameters: int
    parts: dict[str, GroupSummary]
    blocks: dict[str, GroupSummary]
    """The UNet's blocks, from input to output."""
    trigger_phrase: str | None
    tags: tuple[tuple[str, int], ...]
    """The most frequent tags of the training captions, with their number."""
    modules: dict[str, dict[str, Any]]
    """For each module its type, rank, alpha and norm."""
    metadata: dict[str, str]


def summarise(path: Path) -> AdapterSummary:
    """The summary of the adapter in `path`, a file or a folder of PEFT's. Raises InvalidAdapterFile."""
    file = read_adapter(path)
    modules = file.modules
    norms = {key: _norm(module) for key, module in modules.items()}
    return AdapterSummary(
        file=path.name,
        format=file.format,
        type=file.type,
        family=file.family,
        size_bytes=_size_bytes(path),
        dtypes=tuple(Counter(str(module.dtype).removeprefix("torch.") for module in modules.values())),
        parameters=sum(module.parameters for module in modules.values()),
        parts=_grouped({key: module.name.part for key, module in modules.items()}, sorted(PARTS), modules, norms),
        blocks=_grouped(_blocks(file), block_names(file.family), modules, norms),
        trigger_phrase=file.metadata.get("modelspec.trigger_phrase"),
        tags=_tags(file.metadata.get("ss_tag_frequency", "{}")),
        modules={
            key: {"type": module.type, "rank": module.rank, "alpha": module.alpha, "norm": norms[key]}
            for key, module in modules.items()
        },
        metadata=dict(sorted(file.metadata.items())),
    )


def _size_bytes(path: Path) -> int:
    files = path.glob("*/*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files)


def _blocks(file: AdapterFile) -> dict[str, str | None]:
    return {
        key: block_of(module.name.path, file.family) if module.name.part == "unet" else None
        for key, module in file.modules.items()
    }


def _grouped(
    group_of: Mapping[str, str | None],
    names: Iterable[str],
    modules: Mapping[str, AdapterModule],
    norms: Mapping[str, float],
) -> dict[str, GroupSummary]:
    """The groups that have modules, in the order of `names`."""
    members = {name: [key for key, group in group_of.items() if group == name] for name in names}
    return {name: _summarise_group(keys, modules, norms) for name, keys in members.items() if keys}


def _summarise_group(
    keys: Sequence[str], modules: Mapping[str, AdapterModule], norms: Mapping[str, float]
) -> GroupSummary:
    largest = max(keys, key=lambda key: norms[key])
    return GroupSummary(
        modules=len(keys),
        ranks=tuple(sorted({modules[key].rank for key in keys})),
        alphas=tuple(sorted({modules[key].alpha for key in keys})),
        mean_norm=sum(norms[key] for key in keys) / len(keys),
        max_norm=norms[largest],
        max_norm_module=largest,
    )


def _tags(text: str) -> tuple[tuple[str, int], ...]:
    """Tags over all folders; files of others may hold anything under this key."""
    try:
        folders = json.loads(text)
        counts: Counter[str] = Counter()
        for tags in folders.values():
            counts.update({str(tag): int(number) for tag, number in tags.items()})
    except (ValueError, TypeError, AttributeError):
        return ()
    return tuple(sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:_SHOWN_TAGS])


def _norm(module: AdapterModule) -> float:
    """Frobenius norm of the weight change; of a product from two (r, r) ones: ||B A||^2 = trace((B'B)(A A'))."""
    if not (module.is_product or module.type == "dora"):
        return float(module.delta.norm())
    up, down = module.up.double().flatten(1), module.down.double().flatten(1)
    squared = ((up.T @ up) * (down @ down.T)).sum().clamp_min(0)
    return float(squared.sqrt()) * abs(module.scale)
