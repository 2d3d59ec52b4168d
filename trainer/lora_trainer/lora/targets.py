"""Which modules of a base model get an adapter, and of what size; used by `lora.inject`.

The modules are those that sd-scripts' `networks.lora` adapts: every linear layer and convolution below the
classes named here.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from lora_api.model_spec import BlockName, Family, Network, NetworkBlock
from lora_trainer.conditioning import Part
from lora_trainer.errors import InvalidConfiguration
from lora_trainer.lora.blocks import block_names, block_of

logger = logging.getLogger(__name__)

_ATTENTION = ("Transformer2DModel",)
_CONVOLUTIONS = ("ResnetBlock2D", "Downsample2D", "Upsample2D")
_TEXT = ("CLIPAttention", "CLIPMLP")


@dataclass(frozen=True)
class Target:
    """A module that gets an adapter."""

    path: str
    """Module path in its part."""
    block: BlockName | None
    """Block of the UNet; None in a text encoder."""
    rank: int
    alpha: float
    rate_factor: float
    """Factor on the learning rate."""


def targets(module: nn.Module, part: Part, network: Network, *, family: Family) -> tuple[Target, ...]:
    """The modules of one part that get an adapter, in the order of the model.

    Raises:
        InvalidConfiguration: `network.blocks` names a block that the family has not.
    """
    if part != "unet":
        return tuple(_target(path, child, network) for path, child in _adaptable_below(module, _TEXT))
    parents = _ATTENTION + (_CONVOLUTIONS if network.adapts_convolutions else ())
    modules = [(path, child, block_of(path, family)) for path, child in _adaptable_below(module, parents)]
    blocks = _blocks_by_name(network, family)
    filled = {name for _, _, name in modules}
    empty = [block.name for block in network.blocks if block.name not in filled]
    if empty:
        logger.warning("spec.network.blocks: type %s adapts nothing in %s", network.type, ", ".join(empty))
    found = [_target(path, child, network, name=name, block=blocks.get(name)) for path, child, name in modules]
    return tuple(target for target in found if target.rank > 0 and target.rate_factor > 0)


def _adaptable_below(model: nn.Module, parents: tuple[str, ...]) -> Iterator[tuple[str, nn.Module]]:
    inside = tuple(f"{path}." for path, module in model.named_modules() if type(module).__name__ in parents)
    for path, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d) and path.startswith(inside):
            yield path, module


def _target(
    path: str,
    module: nn.Module,
    network: Network,
    *,
    name: BlockName | None = None,
    block: NetworkBlock | None = None,
) -> Target:
    is_wide = isinstance(module, nn.Conv2d) and module.kernel_size != (1, 1)
    rank, alpha = _wide_size(network, block) if is_wide else _size(network, block)
    return Target(path, name, rank, alpha, 1.0 if block is None else block.learning_rate_factor)


def _size(network: Network, block: NetworkBlock | None) -> tuple[int, float]:
    """Rank and alpha of linear layers and 1x1 convolutions."""
    rank = network.rank if block is None or block.rank is None else block.rank
    if block is not None and block.alpha is not None:
        return rank, block.alpha
    return rank, float(rank) if network.alpha is None else network.alpha


def _wide_size(network: Network, block: NetworkBlock | None) -> tuple[int, float]:
    """Rank and alpha of 3x3 convolutions."""
    rank = network.effective_conv_rank if block is None or block.conv_rank is None else block.conv_rank
    if block is not None and block.conv_alpha is not None:
        return rank, block.conv_alpha
    alpha = network.alpha if network.conv_alpha is None else network.conv_alpha
    return rank, float(rank) if alpha is None else alpha


def _blocks_by_name(network: Network, family: Family) -> dict[BlockName | None, NetworkBlock]:
    known = block_names(family)
    for index, block in enumerate(network.blocks):
        if block.name not in known:
            raise InvalidConfiguration(
                f"spec.network.blocks[{index}].name is {block.name}, but {family} has no such block; "
                f"its blocks are {known[0]} to {known[-1]}, with {', '.join(n for n in known if n.startswith('M'))}"
            )
    return {block.name: block for block in network.blocks}
