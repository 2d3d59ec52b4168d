"""Puts adapters into the parts of a base model; used by `run` once, before training.

PEFT does the forward pass; with the base weight W, s = alpha / r:

- `lora`, `locon`: W + s B A, Hu et al. 2021, https://arxiv.org/abs/2106.09685;
- `dora`: the same, then each row given a trained length, Liu et al. 2024, https://arxiv.org/abs/2402.09353;
- `loha`: W + s (A1 B1) * (A2 B2), elementwise, Hyeon-Woo et al. 2021, https://arxiv.org/abs/2108.06098;
- `lokr`: W + s kron(C, A B), Yeh et al. 2023, https://arxiv.org/abs/2309.14859.

Which modules are adapted is decided by `lora.targets`, how they start by `lora.start`.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from peft import LoHaConfig, LoKrConfig, LoraConfig, PeftConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from lora_api.model_spec import Family, Network
from lora_trainer.conditioning import PARTS, Part
from lora_trainer.errors import InvalidConfiguration
from lora_trainer.lora.adapter import AdapterFile
from lora_trainer.lora.dropout import Dropout, Share
from lora_trainer.lora.layer import ADAPTER, AdaptedLayer
from lora_trainer.lora.start import start, start_from
from lora_trainer.lora.strength import Strength, scaled
from lora_trainer.lora.targets import Target, targets

__all__ = ["AdaptedLayer", "Adapters", "add_adapters"]


@dataclass(frozen=True)
class Adapters:
    """All adapters of a run. Outside of `training_at` nothing is dropped."""

    layers: tuple[AdaptedLayer, ...]
    family: Family
    dropout: Dropout

    def of(self, part: Part) -> tuple[AdaptedLayer, ...]:
        """The adapted layers of one part."""
        return tuple(layer for layer in self.layers if layer.part == part)

    def named_parameters(self, part: Part | None = None) -> dict[str, nn.Parameter]:
        """Trainable tensors by a stable name, `<part>.<path>.<tensor>`, of one part or of all."""
        return {
            f"{layer.name}.{name}": parameter
            for layer in self.layers
            if part in (None, layer.part)
            for name, parameter in layer.tensors().items()
        }

    def load(self, file: AdapterFile) -> None:
        """Starts from `file` instead of at random. Raises InvalidConfiguration if it is of another network."""
        start_from(self.layers, file)

    @contextmanager
    def training_at(self, step: int, micro: int, share: Share | None = None) -> Iterator[None]:
        """Applies the dropout of a micro-batch, or of a share of it; forward and backward pass belong inside."""
        with self.dropout.at(step, micro, share), _switched_off(self.dropout.skipped(self.layers)):
            yield

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """The base model without its adapters."""
        with _switched_off(self.layers):
            yield

    @contextmanager
    def at(self, strength: Strength) -> Iterator[None]:
        """The model with its adapters at a strength, as the WebUI would apply them; the tensors stay untouched."""
        with scaled(self.layers, strength):
            yield


@contextmanager
def _switched_off(layers: Sequence[AdaptedLayer]) -> Iterator[None]:
    """Leaves layers out of the forward pass; afterwards they are as they were."""
    were_on = [layer for layer in layers if layer.enabled]
    try:
        for layer in were_on:
            layer.enable(False)
        yield
    finally:
        for layer in were_on:
            layer.enable(True)


def add_adapters(
    parts: Mapping[Part, nn.Module],
    network: Network,
    *,
    family: Family,
    seed: int,
    dtype: torch.dtype = torch.float32,
) -> Adapters:
    """Adapters in the UNet and the text encoders, as `network` asks for; all else is frozen.

    Args:
        parts: the live parts of the base model.
        network: what to add.
        family: what the parts are.
        seed: the start is a function of it.
        dtype: precision of the adapters' tensors; masters are fp32.

    Raises:
        InvalidConfiguration: `network.blocks` names an unknown block, or nothing is left to adapt.
    """
    wanted = [part for part in PARTS if part in parts and (network.unet if part == "unet" else network.text_encoder)]
    layers = [layer for part in wanted for layer in _adapt(parts[part], part, network, family=family, dtype=dtype)]
    if not layers:
        raise InvalidConfiguration("spec.network adapts nothing: give at least one of its blocks a rank above 0")
    for module in parts.values():
        module.requires_grad_(False)
    for layer in layers:
        for parameter in layer.tensors().values():
            parameter.requires_grad_(True)
    start(layers, seed=seed)
    dropout = Dropout(network, seed=seed)
    dropout.install(layers)
    return Adapters(tuple(layers), family, dropout)


def _adapt(
    module: nn.Module, part: Part, network: Network, *, family: Family, dtype: torch.dtype
) -> list[AdaptedLayer]:
    chosen = targets(module, part, network, family=family)
    if not chosen:
        return []
    inject_adapter_in_model(_peft_config(network, chosen), module, adapter_name=ADAPTER)
    found = {path: child for path, child in module.named_modules() if isinstance(child, BaseTunerLayer)}
    assert set(found) == {target.path for target in chosen}, f"adapted other modules of the {part} than asked"
    return [_layer(part, target, network, peft_layer=found[target.path], dtype=dtype) for target in chosen]


def _layer(part: Part, target: Target, network: Network, *, peft_layer: Any, dtype: torch.dtype) -> AdaptedLayer:
    alpha = target.alpha
    if network.type == "dora" and isinstance(peft_layer.get_base_layer(), nn.Linear):
        # PEFT's own sends the unit matrix through A and B, where the dropout's hooks would mask it.
        peft_layer.lora_magnitude_vector[ADAPTER].get_lora_weight = _product
    if network.type in ("loha", "lokr"):
        # PEFT tosses torch's global coin in training mode, and at a share of 0 still skips one pass in 2^24.
        peft_layer.module_dropout[ADAPTER] = -1.0
    if network.type == "lokr":
        _put_smaller_first(peft_layer, target.rank)
    if network.type == "lokr" and ADAPTER in peft_layer.lokr_w2:
        # Without a low-rank factor there is no rank: every reader of the format then takes the scale as 1.
        alpha = float(target.rank)
        peft_layer.scaling[ADAPTER] = 1.0
    layer = AdaptedLayer(
        part, target.path, target.block, network.type, target.rank, alpha, target.rate_factor, peft_layer
    )
    for parameter in layer.tensors().values():
        parameter.data = parameter.data.to(dtype)
    return layer


def _put_smaller_first(peft_layer: Any, rank: int) -> None:
    """Makes the first Kronecker factor the smaller one, as LyCORIS does, which could not read the file otherwise.

    PEFT makes it as large as `lokrFactor` says, also where that is more than the root of a layer's width.
    """
    weight, first = peft_layer.get_base_layer().weight, peft_layer.lokr_w1[ADAPTER]
    pairs = [sorted((small, whole // small)) for small, whole in zip(first.shape, weight.shape, strict=False)]
    if tuple(pair[0] for pair in pairs) == tuple(first.shape):
        return
    for container in (peft_layer.lokr_w1, peft_layer.lokr_w2, peft_layer.lokr_w2_a, peft_layer.lokr_w2_b):
        if ADAPTER in container:
            del container[ADAPTER]
    is_whole = rank >= max(pair[1] for pair in pairs) / 2
    peft_layer.create_adapter_parameters(ADAPTER, rank, (*pairs, *weight.shape[2:]), True, is_whole, False)
    for parameter in peft_layer.parameters():
        parameter.data = parameter.data.to(weight.device)


def _product(*, lora_A: nn.Linear, lora_B: nn.Linear, adapter_name: str) -> Tensor:  # noqa: N803
    """B A, (out, in)."""
    return lora_B.weight @ lora_A.weight


def _peft_config(network: Network, chosen: Sequence[Target]) -> PeftConfig:
    common: dict[str, Any] = {
        "r": network.rank,
        "target_modules": _any_of([target.path for target in chosen]),
        "rank_pattern": _by_pattern(chosen, [target.rank for target in chosen]),
        "alpha_pattern": _by_pattern(chosen, [target.alpha for target in chosen]),
    }
    if network.type == "loha":
        return LoHaConfig(**common)
    if network.type == "lokr":
        return LoKrConfig(**common, decompose_factor=network.lokr_factor or -1)
    return LoraConfig(**common, use_dora=network.type == "dora", init_lora_weights=False)


def _by_pattern(chosen: Sequence[Target], values: Sequence[float]) -> dict[str, float]:
    """The values by patterns that match the paths with that value, and those only.

    PEFT looks for a pattern at the end of a path, so a pattern has to begin where the path does.
    """
    paths: dict[float, list[str]] = {}
    for target, value in zip(chosen, values, strict=True):
        paths.setdefault(value, []).append(target.path)
    return {"^" + _any_of(having): value for value, having in paths.items()}


def _any_of(paths: Sequence[str]) -> str:
    return "(?:" + "|".join(re.escape(path) for path in paths) + ")"
