"""Adapter files made of random numbers, for models that need not exist."""

from collections.abc import Mapping

import torch
from torch import Tensor

from lora_api.model_spec import Family
from lora_trainer.lora.adapter import DORA_SCALE, DOWN, UP, AdapterFile, AdapterModule, keyed
from lora_trainer.lora.keys import ModuleName

LINEAR = ModuleName("unet", "mid_block.attentions.0.transformer_blocks.0.attn1.to_q")
CONVOLUTION = ModuleName("unet", "mid_block.resnets.0.conv1")
TEXT = ModuleName("text_encoder", "encoder.layers.0.mlp.fc1")
SIZES: Mapping[ModuleName, tuple[int, ...]] = {LINEAR: (6, 10), CONVOLUTION: (8, 4, 3, 3), TEXT: (12, 5)}
"""Sizes of the base weights."""


def make_module(
    name: ModuleName, *, rank: int = 4, alpha: float = 2.0, seed: int = 0, dtype: torch.dtype = torch.float32
) -> AdapterModule:
    """A random LoRA module for a weight of `SIZES`."""
    outputs, inputs, *kernel = SIZES[name]
    random = torch.Generator().manual_seed(seed)
    down = torch.randn(rank, inputs, *kernel, generator=random).to(dtype)
    up = torch.randn(outputs, rank, *[1] * len(kernel), generator=random).to(dtype)
    return AdapterModule(name, {DOWN: down, UP: up}, alpha)


def make_adapter(
    *names: ModuleName,
    rank: int = 4,
    alpha: float = 2.0,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    family: Family = "sd15",
    metadata: Mapping[str, str] | None = None,
) -> AdapterFile:
    """A random LoRA of some modules, by default of all of `SIZES`."""
    modules = [
        make_module(name, rank=rank, alpha=alpha, seed=seed + index, dtype=dtype)
        for index, name in enumerate(names or SIZES)
    ]
    return AdapterFile(keyed(modules, family), metadata or {}, family)


def replaced(adapter: AdapterFile, *modules: AdapterModule) -> AdapterFile:
    """The adapter with other modules instead of those of the same names."""
    kept = {module.name: module for module in adapter.modules.values()} | {module.name: module for module in modules}
    return AdapterFile(keyed(kept.values(), adapter.family), adapter.metadata, adapter.family)


def make_loha(name: ModuleName, *, rank: int = 3, alpha: float = 1.5, seed: int = 0) -> AdapterModule:
    """A random LoHa module."""
    outputs, inputs = _flat(name)
    random = torch.Generator().manual_seed(seed)
    shapes = {"hada_w1_a": (outputs, rank), "hada_w1_b": (rank, inputs)}
    shapes |= {"hada_w2_a": (outputs, rank), "hada_w2_b": (rank, inputs)}
    return AdapterModule(name, _random(shapes, random), alpha)


def make_lokr(name: ModuleName, *, alpha: float = 1.5, seed: int = 0) -> AdapterModule:
    """A random LoKr module: a whole 2 x 1 factor and one of rank 3."""
    outputs, inputs = _flat(name)
    random = torch.Generator().manual_seed(seed)
    shapes = {"lokr_w1": (2, 1), "lokr_w2_a": (outputs // 2, 3), "lokr_w2_b": (3, inputs)}
    return AdapterModule(name, _random(shapes, random), alpha)


def make_dora(name: ModuleName, *, seed: int = 0) -> AdapterModule:
    """A random DoRA module with a magnitude for each output."""
    plain = make_module(name, seed=seed)
    outputs, _, *kernel = SIZES[name]
    magnitude = 1 + torch.rand(outputs, 1, *[1] * len(kernel), generator=torch.Generator().manual_seed(seed))
    return AdapterModule(name, {**plain.tensors, DORA_SCALE: magnitude}, plain.alpha)


def _flat(name: ModuleName) -> tuple[int, int]:
    outputs, *inputs = SIZES[name]
    return outputs, int(torch.Size(inputs).numel())


def _random(shapes: Mapping[str, tuple[int, ...]], random: torch.Generator) -> dict[str, Tensor]:
    return {name: torch.randn(shape, generator=random) for name, shape in shapes.items()}
