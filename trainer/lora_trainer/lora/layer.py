"""One adapted module as the rest of the package sees it, whatever its type; made by `lora.inject`."""

from dataclasses import dataclass
from typing import Any

from torch import nn

from lora_api.model_spec import BlockName, NetworkType
from lora_trainer.conditioning import Part
from lora_trainer.lora.keys import ModuleName, canonical_path

ADAPTER = "default"
"""PEFT's name of the one adapter."""

STARTS_AT_ZERO = frozenset({"lora_up.weight", "hada_w2_a", "lokr_w2", "lokr_w2_b"})
"""Tensors that are zero at the start, so that a new adapter changes nothing."""

_MODULES = {"lora_down.weight": "lora_A", "lora_up.weight": "lora_B", "dora_scale": "lora_magnitude_vector"}
"""Name in the file -> PEFT's container of modules with one weight each."""
_TENSORS = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "lokr_w1", "lokr_w2", "lokr_w2_a", "lokr_w2_b")
"""PEFT's containers of tensors, named as in the file."""


@dataclass(frozen=True)
class AdaptedLayer:
    """One module of the base model with its adapter, live: training changes what the tensors hold."""

    part: Part
    path: str
    """Module path in its part."""
    block: BlockName | None
    """Block of the UNet, such as `IN04`; None in a text encoder."""
    type: NetworkType
    rank: int
    alpha: float
    rate_factor: float
    """Factor on the learning rate, from the layer's block."""
    layer: Any
    """PEFT's layer, which holds the base model's module."""

    @property
    def name(self) -> str:
        """Name in the run: part and path."""
        return f"{self.part}.{self.path}"

    @property
    def module_name(self) -> ModuleName:
        """The module as a file that was read names it."""
        return ModuleName(self.part, canonical_path(self.path))

    def tensors(self) -> dict[str, nn.Parameter]:
        """The trained tensors, named as in kohya's and LyCORIS' files, without the module's name.

        - `lora_down.weight` (r, in) or (r, in, k, k), `lora_up.weight` (out, r) or (out, r, 1, 1);
        - `dora_scale` (out,) or (1, out, 1, 1);
        - `hada_w1_a`, `hada_w2_a` (out, r), `hada_w1_b`, `hada_w2_b` (r, in k k);
        - `lokr_w1` (o1, i1), `lokr_w2` (o2, i2) or (o2, i2, k, k), or instead `lokr_w2_a` (o2, r) and `lokr_w2_b`
          (r, i2 k k), where o1 o2 = out and i1 i2 = in.
        """
        layer = self.layer
        found = {
            name: getattr(layer, container)[ADAPTER].weight
            for name, container in _MODULES.items()
            if ADAPTER in getattr(layer, container, ())
        }
        found |= {name: getattr(layer, name)[ADAPTER] for name in _TENSORS if ADAPTER in getattr(layer, name, ())}
        return found

    def ups(self) -> frozenset[str]:
        """Names of the tensors that LoRA+ trains faster: those that start at zero."""
        return STARTS_AT_ZERO & self.tensors().keys()

    @property
    def base(self) -> nn.Module:
        """The module of the base model; frozen."""
        base: nn.Module = self.layer.get_base_layer()
        return base

    @property
    def scale(self) -> float:
        """Factor on the adapter's output, as the forward pass uses it."""
        return float(self.layer.scaling[ADAPTER])

    def set_scale(self, scale: float) -> None:
        """Changes that factor; files are written with the scale that `alpha` and `rank` give."""
        self.layer.scaling[ADAPTER] = scale

    @property
    def enabled(self) -> bool:
        """Whether the adapter takes part in the forward pass."""
        return not self.layer._disable_adapters

    def enable(self, enabled: bool) -> None:
        """Switches the adapter in the forward pass; the weights stay trainable."""
        self.layer._disable_adapters = not enabled
