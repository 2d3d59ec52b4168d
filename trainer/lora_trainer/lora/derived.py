"""The metadata of an adapter that was made of others; used by `lora merge` and `lora resize`."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from lora_trainer.lora.adapter import AdapterModule

_NOT_INHERITED = ("ss_network_args", "ss_network_dropout", "ss_session_id", "ss_epoch", "ss_steps")


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
    """Rank and alpha of most modules; those of 3x3 convolutions apart, as sd-scripts says them."""
    plain = [module for module in modules if module.type == "lora"]
    convolutions = [module for module in modules if module.type == "locon"]
    rank, alpha = _most_common(plain or convolutions)
    values = {"ss_network_module": "networks.lora", "ss_network_dim": str(rank), "ss_network_alpha": str(alpha)}
    if convolutions:
        conv_rank, conv_alpha = _most_common(convolutions)
        values["ss_network_args"] = json.dumps({"conv_dim": str(conv_rank), "conv_alpha": str(conv_alpha)})
    return values


def _most_common(modules: Sequence[AdapterModule]) -> tuple[int, float]:
    return Counter((module.rank, module.alpha) for module in modules).most_common(1)[0][0]
