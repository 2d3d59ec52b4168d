"""What the adapters hold before the first step; used by `lora.inject`, and by `run` for `network.initialUri`.

The random numbers are those of sd-scripts' `networks.lora` and of LyCORIS, so that learning rates carry over; each
module draws its own, as a function of seed and name.
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from lora_trainer.lora.layer import STARTS_AT_ZERO, AdaptedLayer
from lora_trainer.rng import Purpose, generator

_NORMAL = {"hada_w1_a": 0.1, "hada_w1_b": 1.0, "hada_w2_b": 1.0}
"""Standard deviations of the tensors that start normally distributed."""


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
    if name == "dora_scale":
        return row_norms(layer.base.get_parameter("weight").float()).view_as(parameter)
    drawn = torch.empty(parameter.shape)
    if name in _NORMAL:
        return drawn.normal_(0.0, _NORMAL[name], generator=random)
    # As nn.Linear and nn.Conv2d start: uniform in +-1/sqrt(fan in).
    return nn.init.kaiming_uniform_(drawn, a=math.sqrt(5), generator=random)


def row_norms(weight: Tensor) -> Tensor:
    """Lengths (out,) of the rows of a weight (out, in) or (out, in, k, k)."""
    return torch.linalg.vector_norm(weight.flatten(1), dim=1)
