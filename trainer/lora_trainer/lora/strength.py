"""How strongly live adapters take part in the forward pass; used for sample pictures and the grid.

As AUTOMATIC1111 and LoRA Block Weight do it: the weight in `<lora:name:0.8>` scales the change in UNet and text
encoders alike, and the weight of a module's block multiplies it.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from torch import Tensor, nn

from lora_api.model_spec import BlockName, Family
from lora_trainer.conditioning import Part
from lora_trainer.lora.block_weights import BlockVector
from lora_trainer.lora.blocks import block_of
from lora_trainer.lora.keys import ModuleName
from lora_trainer.lora.layer import AdaptedLayer


@dataclass(frozen=True)
class Strength:
    """A weight for the whole adapter, and one for each block."""

    weight: float = 1.0
    """As in `<lora:name:0.8>`; may be negative."""
    blocks: BlockVector | None = None
    """None: every block at `weight`."""

    def of(self, part: Part, block: BlockName | None) -> float:
        """Factor on the change of a module in a block of a part."""
        return self.weight if self.blocks is None else self.weight * self.blocks.of(part, block)

    def scale_of(self, name: ModuleName, family: Family) -> float:
        """Factor on the change of a module that a file of the family names."""
        return self.of(name.part, block_of(name.path, family) if name.part == "unet" else None)


@contextmanager
def scaled(layers: Sequence[AdaptedLayer], strength: Strength) -> Iterator[None]:
    """Scales what the layers change by `strength`, relative to how they are; afterwards they are as they were."""
    with ExitStack() as undo:
        for layer in layers:
            factor = strength.of(layer.part, layer.block)
            if factor != 1.0:
                undo.enter_context(_scaled(layer, factor))
        yield


@contextmanager
def _scaled(layer: AdaptedLayer, factor: float) -> Iterator[None]:
    was_enabled, scale, hooks = layer.enabled, layer.scale, ExitStack()
    try:
        if factor == 0.0:
            layer.enable(False)
        elif layer.type == "dora":
            hooks.callback(layer.layer.register_forward_hook(_interpolated(layer.base, factor)).remove)
        else:
            layer.set_scale(scale * factor)
        yield
    finally:
        hooks.close()
        layer.set_scale(scale)
        layer.enable(was_enabled)


def _interpolated(base: nn.Module, factor: float) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
    """A DoRA's change is no multiple of its tensors, but what it adds to the output can be scaled."""

    def interpolate(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        plain: Tensor = base(inputs[0])
        return plain + factor * (output - plain)

    return interpolate
