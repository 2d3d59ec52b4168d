"""The metadata of an adapter that was made of others; used by `lora merge` and `lora resize`."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from lora_trainer.lora.adapter import AdapterModule

_NOT_INHERITED = ("ss_network_args", "ss_network_dropout", "ss_session_id", "ss_epoch", "ss_steps")
_DIFFERENT = "Dynamic"


def derived_metadata(
    sources: Sequence[Mapping[str, str]], modules: Sequence[AdapterModule], *, out: Path, origin: str
) -> dict[str, str]:
    """What all sources agree on, with the ranks and the name of the new file.

    Args:
        sources: metadata of the files that it was made of.
        modules: what was made; plain LoRA modules.
        out: the file to be written.
        origin: what it was made of, for `modelspec.merged_from`.
    """
    first, *others = sources
    common = {key: value for key, value in first.items() if all(other.get(key) == value for other in others)}
    kept = {key: value for key, value in common.items() if key not in _NOT_INHERITED}
    return kept | _network(modules) | {
        "ss_output_name": out.stem,
        "modelspec.title": out.stem,
        "modelspec.merged_from": origin,
    }  # fmt: skip


def _network(modules: Sequence[AdapterModule]) -> dict[str, str]:
    """Rank and alpha, those of 3x3 convolutions apart; `Dynamic` where modules differ, as sd-scripts says it."""
    plain = [module for module in modules if module.type == "lora"]
    convolutions = [module for module in modules if module.type == "locon"]
    rank, alpha = _size(plain or convolutions)
    values = {"ss_network_module": "networks.lora", "ss_network_dim": rank, "ss_network_alpha": alpha}
    conv_rank, conv_alpha = _size(convolutions)
    if convolutions and conv_rank != _DIFFERENT:
        values["ss_network_args"] = json.dumps({"conv_dim": conv_rank, "conv_alpha": conv_alpha})
    return values


def _size(modules: Sequence[AdapterModule]) -> tuple[str, str]:
    sizes = {(module.rank, module.alpha) for module in modules}
    if len(sizes) != 1:
        return _DIFFERENT, _DIFFERENT
    rank, alpha = sizes.pop()
    return str(rank), str(alpha)
