"""Module and arguments of the network as sd-scripts is told them, for `ss_network_module` and `ss_network_args`.

Used by `lora.metadata`. Plain adapters are those of `networks.lora`, all others those of LyCORIS.
"""

from collections.abc import Sequence
from typing import Any

from lora_api.model_spec import BlockName, Family, Network, NetworkBlock
from lora_api.optimizer_spec import LoraPlus
from lora_api.spec import LoraTrainingSpec
from lora_trainer.lora.blocks import block_names

_ALGORITHMS = {"dora": "locon", "loha": "loha", "lokr": "lokr"}


def network_module(network: Network) -> str:
    """Import path of the module."""
    return "lycoris.kohya" if network.type in _ALGORITHMS else "networks.lora"


def network_arguments(spec: LoraTrainingSpec, family: Family) -> dict[str, str]:
    """Arguments by name, as text; only those in use."""
    network = spec.network
    values = {
        **_kind(network),
        "rank_dropout": network.rank_dropout or None,
        "module_dropout": network.module_dropout or None,
        **_blocks(network, block_names(family)),
        **_lora_plus(spec.optimizer.lora_plus),
    }
    return {name: _text(value) for name, value in values.items() if value is not None}


def _kind(network: Network) -> dict[str, Any]:
    convolutions: dict[str, Any] = {}
    if network.adapts_convolutions:
        convolutions = {"conv_dim": network.effective_conv_rank, "conv_alpha": network.effective_conv_alpha}
    if network.type not in _ALGORITHMS:
        return convolutions
    decomposes = network.type == "dora"
    return {
        "algo": _ALGORITHMS[network.type],
        "preset": "full" if network.adapts_convolutions else "attn-mlp",
        **convolutions,
        "dora_wd": decomposes or None,
        "wd_on_output": decomposes or None,
        "factor": network.lokr_factor,
        "rank_dropout_scale": bool(network.rank_dropout) or None,
    }


def _lora_plus(plus: LoraPlus | None) -> dict[str, Any]:
    if plus is None:
        return {}
    return {
        "loraplus_lr_ratio": plus.ratio,
        "loraplus_unet_lr_ratio": plus.unet_ratio,
        "loraplus_text_encoder_lr_ratio": plus.text_encoder_ratio,
    }


def _blocks(network: Network, names: Sequence[BlockName]) -> dict[str, Any]:
    """Lists with a number for each block, for what at least one block has of its own.

    sd-scripts reads no list without `block_dims`, and `conv_block_alphas` only with `conv_block_dims`.
    """
    own = {block.name: block for block in network.blocks}
    blocks = [own.get(name) for name in names]
    sizes = {
        "block_dims": [_size(block, "rank", network.rank) for block in blocks],
        "block_alphas": [_alpha(block, network) for block in blocks],
        "conv_block_dims": [_size(block, "conv_rank", network.effective_conv_rank) for block in blocks],
        "conv_block_alphas": [_conv_alpha(block, network) for block in blocks],
    }
    has_own = any(block.rank is not None or block.alpha is not None for block in network.blocks)
    has_own_conv = any(block.conv_rank is not None or block.conv_alpha is not None for block in network.blocks)
    told = [*sizes] if has_own_conv else ["block_dims", "block_alphas"] if has_own else []
    # sd-scripts counts the layers before the first and after the last block of SDXL as well.
    around: list[float] = [0] if len(names) == _SDXL_BLOCKS else []
    return {name: [*around, *sizes[name], *around] for name in told} | _rate_factors(own, names)


_SDXL_BLOCKS = 21


def _size(block: NetworkBlock | None, field: str, default: float) -> float:
    value = None if block is None else getattr(block, field)
    return default if value is None else float(value)


def _alpha(block: NetworkBlock | None, network: Network) -> float:
    """A block without alpha, of its own or of the network, has its rank as alpha."""
    inherited = _size(block, "rank", network.rank) if network.alpha is None else network.alpha
    return _size(block, "alpha", inherited)


def _conv_alpha(block: NetworkBlock | None, network: Network) -> float:
    inherited = network.alpha if network.conv_alpha is None else network.conv_alpha
    rank = _size(block, "conv_rank", network.effective_conv_rank)
    return _size(block, "conv_alpha", rank if inherited is None else inherited)


def _rate_factors(own: dict[BlockName, NetworkBlock], names: Sequence[BlockName]) -> dict[str, Any]:
    factors = [own[name].learning_rate_factor if name in own else 1.0 for name in names]
    if all(factor == 1 for factor in factors):
        return {}
    parts = {"down_lr_weight": "IN", "mid_lr_weight": "M", "up_lr_weight": "OUT"}
    return {
        argument: [factor for name, factor in zip(names, factors, strict=True) if name.startswith(prefix)]
        for argument, prefix in parts.items()
    }


def _text(value: object) -> str:
    if isinstance(value, list):
        return ",".join(_text(number) for number in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
