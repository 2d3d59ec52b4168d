"""Puts LoRA adapters into a UNet and a text encoder; used by `run` once, before training.

Hu et al. 2021, https://arxiv.org/abs/2106.09685: y = W x + (alpha / r) B A x, A random, B zero. PEFT does the
forward pass; which modules are adapted and how A starts is decided here.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import nn

from lora_api.model_spec import Network
from lora_trainer.rng import Purpose, generator

Part = Literal["unet", "text_encoder"]

_ADAPTER = "default"
_UNET_PARENTS = ("Transformer2DModel",)
_TEXT_PARENTS = ("CLIPAttention", "CLIPMLP")


@dataclass(frozen=True)
class AdaptedLayer:
    """One module of the base model with its adapter, live: training changes what `down` and `up` hold."""

    part: Part
    path: str
    """Module path in the UNet or the text encoder."""
    layer: Any
    alpha: float

    @property
    def down(self) -> nn.Parameter:
        """A: (r, in) or (r, in, 1, 1), fp32."""
        weight: nn.Parameter = self.layer.lora_A[_ADAPTER].weight
        return weight

    @property
    def up(self) -> nn.Parameter:
        """B: (out, r) or (out, r, 1, 1), fp32."""
        weight: nn.Parameter = self.layer.lora_B[_ADAPTER].weight
        return weight

    @property
    def scale(self) -> float:
        """Factor on the adapter's output, as the forward pass uses it."""
        return float(self.layer.scaling[_ADAPTER])

    def enable(self, enabled: bool) -> None:
        """Switches the adapter in the forward pass; the weights stay trainable."""
        self.layer._disable_adapters = not enabled


@dataclass(frozen=True)
class Adapters:
    """All adapters of a run."""

    layers: tuple[AdaptedLayer, ...]
    rank: int
    alpha: float

    def of(self, part: Part) -> tuple[AdaptedLayer, ...]:
        """The adapted layers of one part."""
        return tuple(layer for layer in self.layers if layer.part == part)

    def named_parameters(self, part: Part | None = None) -> dict[str, nn.Parameter]:
        """Trainable tensors by a stable name, of one part or of all."""
        return {
            f"{layer.part}.{layer.path}.{side}": parameter
            for layer in self.layers
            if part in (None, layer.part)
            for side, parameter in (("down", layer.down), ("up", layer.up))
        }


def add_adapters(unet: nn.Module, text_encoder: nn.Module, network: Network, *, seed: int) -> Adapters:
    """Adapters in all attention blocks of `unet` and, if wanted, in `text_encoder`; their weights are fp32.

    The UNet's linear layers and 1x1 convolutions inside its transformer blocks (192 in SD 1.x), and the text
    encoder's projections and MLPs (72 at 12 layers): the modules that sd-scripts' `networks.lora` adapts.
    """
    layers = _add(unet, "unet", unet_targets(unet), network)
    if network.text_encoder:
        layers += _add(text_encoder, "text_encoder", text_encoder_targets(text_encoder), network)
    for layer in layers:
        _initialise(layer, seed)
    return Adapters(tuple(layers), network.rank, network.effective_alpha)


def unet_targets(unet: nn.Module) -> tuple[str, ...]:
    """Paths of the UNet's modules that get an adapter, in the order of the model."""
    return tuple(_adaptable_below(unet, _UNET_PARENTS))


def text_encoder_targets(text_encoder: nn.Module) -> tuple[str, ...]:
    """Paths of the text encoder's modules that get an adapter, in the order of the model."""
    return tuple(_adaptable_below(text_encoder, _TEXT_PARENTS))


def _adaptable_below(model: nn.Module, parents: tuple[str, ...]) -> Iterator[str]:
    inside = [name for name, module in model.named_modules() if type(module).__name__ in parents]
    for name, module in model.named_modules():
        is_conv1x1 = isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1)
        if (isinstance(module, nn.Linear) or is_conv1x1) and any(name.startswith(f"{p}.") for p in inside):
            yield name


def _add(model: nn.Module, part: Part, targets: Sequence[str], network: Network) -> list[AdaptedLayer]:
    config = LoraConfig(
        r=network.rank,
        lora_alpha=network.effective_alpha,
        target_modules=list(targets),
        init_lora_weights=False,
    )
    inject_adapter_in_model(config, model, adapter_name=_ADAPTER)
    found = {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}
    assert set(found) == set(targets), f"adapted other modules of the {part} than asked"
    return [AdaptedLayer(part, path, found[path], network.effective_alpha) for path in targets]


@torch.no_grad()
def _initialise(layer: AdaptedLayer, seed: int) -> None:
    """A uniform as nn.Linear starts (Kaiming, a = sqrt 5), a function of seed and module; B zero."""
    for parameter in (layer.down, layer.up):
        parameter.data = parameter.data.float()
        parameter.requires_grad_(True)
    random = generator(seed, Purpose.INIT, layer.part, layer.path)
    drawn = torch.empty(layer.down.shape)
    nn.init.kaiming_uniform_(drawn, a=math.sqrt(5), generator=random)
    layer.down.copy_(drawn)
    layer.up.zero_()
