"""What the adapters hold before the first step; used by `lora.inject`, and by `run` for `network.initialUri`.

The random numbers are those of sd-scripts' `networks.lora` and of LyCORIS, so that learning rates carry over; each
module draws its own, as a function of seed and name.
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from lora_trainer.errors import InvalidConfiguration
from lora_trainer.generators import generator
from lora_trainer.lora.adapter import DORA_SCALE, AdapterFile, AdapterModule
from lora_trainer.lora.layer import STARTS_AT_ZERO, AdaptedLayer
from lora_trainer.rng import Purpose

_NORMAL = {"hada_w1_a": 0.1, "hada_w1_b": 1.0, "hada_w2_b": 1.0}
"""Standard deviations of the tensors that start normally distributed."""

_ALPHA_ROUNDING = 2.0**-8
"""Relative difference that an alpha may have in a file, of which bf16 is the coarsest format."""


@torch.no_grad()
def start(layers: Iterable[AdaptedLayer], *, seed: int) -> None:
    """Gives every tensor its first value; the adapted model then computes what the base model does."""
    for layer in layers:
        random = generator(seed, Purpose.INIT, layer.part, layer.path)
        for name, parameter in layer.tensors().items():
            parameter.copy_(_first_value(layer, name, parameter, random))


def _first_value(layer: AdaptedLayer, name: str, parameter: nn.Parameter, random: torch.Generator) -> Tensor:
    if name in STARTS_AT_ZERO:
        return torch.zeros(parameter.shape)
    if name == DORA_SCALE:
        return _row_norms(layer.base.get_parameter("weight").float()).view_as(parameter)
    drawn = torch.empty(parameter.shape)
    if name in _NORMAL:
        return drawn.normal_(0.0, _NORMAL[name], generator=random)
    # As nn.Linear and nn.Conv2d start: uniform in +-1/sqrt(fan in).
    return nn.init.kaiming_uniform_(drawn, a=math.sqrt(5), generator=random)


@torch.no_grad()
def start_from(layers: Iterable[AdaptedLayer], file: AdapterFile) -> None:
    """Gives every tensor its value in `file`, instead of `start`.

    Raises:
        InvalidConfiguration: the file is of another network; names the first difference. Nothing is changed then.
    """
    live = {layer.module_name: layer for layer in layers}
    stored = {module.name: module for module in file.modules.values()}
    for name in sorted(live.keys() | stored.keys()):
        difference = _difference(live.get(name), stored.get(name))
        if difference:
            where = f"{name.part} {name.path}"
            raise InvalidConfiguration(f"spec.network.initialUri is of another network: {where} {difference}")
    for name, layer in live.items():
        for suffix, parameter in layer.tensors().items():
            parameter.copy_(stored[name].tensors[suffix].view_as(parameter))


def _difference(layer: AdaptedLayer | None, module: AdapterModule | None) -> str | None:
    """What keeps the module of a file from being where the layer starts, and the cure."""
    if layer is None:
        return "is adapted in the file only; give spec.network the type, parts and blocks of the file"
    if module is None:
        return "is not adapted in the file; give spec.network the type, parts and blocks of the file"
    live = layer.tensors()
    if module.tensors.keys() != live.keys():
        return f"is a {module.type} in the file, but spec.network.type is {layer.type}; set the type of the file"
    for name, parameter in live.items():
        stored = module.tensors[name]
        if stored.numel() != parameter.numel() or (name != DORA_SCALE and stored.shape != parameter.shape):
            return (
                f"has {name} of shape {[*stored.shape]} in the file, but {[*parameter.shape]} in spec.network; "
                "take a file for this base model, and set rank, convRank and blocks as in the file"
            )
    if not math.isclose(module.scale, layer.scale, rel_tol=_ALPHA_ROUNDING):
        return (
            f"has the alpha {module.alpha:g} in the file, but {layer.alpha:g} in spec.network; "
            "set alpha, convAlpha and blocks as in the file"
        )
    return None


def _row_norms(weight: Tensor) -> Tensor:
    """Lengths (out,) of the rows of a weight (out, in) or (out, in, k, k)."""
    norms: Tensor = torch.linalg.vector_norm(weight.flatten(1), dim=1)
    return norms
