"""Parameter groups: which tensors share a learning rate, and what it is. Used by `loop`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lora_api.optimizer_spec import LoraPlus
from lora_api.optimizer_spec import Optimizer as OptimizerSpec
from lora_trainer.conditioning import Part
from lora_trainer.errors import InvalidConfiguration


@dataclass(frozen=True)
class TrainedTensor:
    """One tensor of an adapter, and what its learning rate depends on."""

    part: Part
    block: str | None
    """Block of the UNet, such as `IN04`; None outside of blocks."""
    block_factor: float
    """Factor on the learning rate of the block."""
    is_up: bool
    """It maps from the rank to the layer's output, so LoRA+ applies."""
    parameter: nn.Parameter


def learning_rates(spec: OptimizerSpec) -> dict[str, float]:
    """The peak learning rate of each part of the model, before LoRA+ and factors of blocks."""

    def first(*rates: float | None) -> float:
        return next((rate for rate in rates if rate is not None), spec.learning_rate)

    return {
        "unet": first(spec.unet_learning_rate),
        "text_encoder": first(spec.text_encoder_learning_rate),
        "text_encoder_2": first(spec.text_encoder2_learning_rate, spec.text_encoder_learning_rate),
    }


def group_parameters(spec: OptimizerSpec, tensors: Sequence[TrainedTensor]) -> list[dict[str, Any]]:
    """Groups (`params`, `lr`: the peak, `name`) in the order of `tensors`; what has the rate 0 is left out.

    Names are those of the part, then of the block if its factor is not 1, then `plus` where LoRA+ applies:
    `unet`, `text_encoder`, `unet IN04`, `unet IN04 plus`.

    Raises:
        InvalidConfiguration: nothing is left to train.
    """
    rates, groups = learning_rates(spec), dict[str, dict[str, Any]]()
    for tensor in tensors:
        ratio = _plus_ratio(spec.lora_plus, tensor)
        rate = rates[tensor.part] * tensor.block_factor * ratio
        if rate > 0:
            name = _name(tensor, is_plus=ratio != 1)
            group = groups.setdefault(name, {"params": [], "lr": rate, "name": name})
            group["params"].append(tensor.parameter)
    if not groups:
        raise InvalidConfiguration(
            "spec.optimizer: the learning rate of everything that has an adapter is 0, so nothing is trained; raise one"
        )
    return list(groups.values())


def set_rates(optimizer: torch.optim.Optimizer, peaks: Mapping[str, float], factor: float) -> None:
    """Sets every group's learning rate to its peak times `factor`; a function of the step, so nothing to save."""
    for group in optimizer.param_groups:
        group["lr"] = peaks[group["name"]] * factor


def _name(tensor: TrainedTensor, *, is_plus: bool) -> str:
    words: list[str] = [tensor.part]
    if tensor.block is not None and tensor.block_factor != 1:
        words.append(tensor.block)
    if is_plus:
        words.append("plus")
    return " ".join(words)


def _plus_ratio(plus: LoraPlus | None, tensor: TrainedTensor) -> float:
    """Factor on the rate of up weights (Hayou et al. 2024, https://arxiv.org/abs/2402.12354)."""
    if plus is None or not tensor.is_up:
        return 1.0
    own = plus.unet_ratio if tensor.part == "unet" else plus.text_encoder_ratio
    return plus.ratio if own is None else own
