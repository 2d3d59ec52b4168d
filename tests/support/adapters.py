"""Tiny base models with live adapters of every type, and what they give for fixed inputs."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from lora_api.model_spec import Family, Network
from lora_trainer.conditioning import PARTS, Part
from lora_trainer.lora.adapter import AdapterFile, keyed
from lora_trainer.lora.formats import to_kohya
from lora_trainer.lora.inject import Adapters, add_adapters
from lora_trainer.lora.kohya_format import kohya_modules
from tests.support.tiny_pipeline import POOLED_WIDTH

_TOKENS = torch.tensor([[188, 17, 42, 99, *[189] * 73]])


@dataclass(frozen=True)
class Adapted:
    """Parts of a base model with adapters that do something."""

    parts: Mapping[Part, nn.Module]
    adapters: Adapters

    def outputs(self) -> dict[Part, Tensor]:
        """What each part gives for a fixed input."""
        return outputs_of(self.parts)


def load_parts(folder: Path, family: Family) -> dict[Part, nn.Module]:
    """The plain parts of a tiny pipeline."""
    parts: dict[Part, nn.Module] = {
        "unet": UNet2DConditionModel.from_pretrained(folder, subfolder="unet"),
        "text_encoder": CLIPTextModel.from_pretrained(folder, subfolder="text_encoder"),
    }
    if family == "sdxl":
        parts["text_encoder_2"] = CLIPTextModelWithProjection.from_pretrained(folder, subfolder="text_encoder_2")
    return _aligned(parts)


def load_pipeline(folder: Path, family: Family) -> Any:
    """The same as diffusers' pipeline."""
    kind = StableDiffusionXLPipeline if family == "sdxl" else StableDiffusionPipeline
    return kind.from_pretrained(folder)


def parts_of(pipeline: Any) -> dict[Part, nn.Module]:
    """The parts of a pipeline that adapters change."""
    return _aligned({name: part for name in PARTS if (part := getattr(pipeline, name, None)) is not None})


def _aligned(parts: dict[Part, nn.Module]) -> dict[Part, nn.Module]:
    """Tensors in a mapped file lie at odd addresses, where convolutions round differently."""
    for parameter in (parameter for part in parts.values() for parameter in part.parameters()):
        parameter.data = parameter.data.clone()
    return parts


def adapt(folder: Path, network: Network, *, family: Family = "sd15", seed: int = 3) -> Adapted:
    """A tiny pipeline's parts with adapters, all of whose tensors are random."""
    parts = load_parts(folder, family)
    adapters = add_adapters(parts, network, family=family, seed=seed)
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in adapters.layers:
            for name, tensor in layer.tensors().items():
                noise = torch.randn(tensor.shape, generator=random)
                tensor.copy_(tensor * (1 + 0.1 * noise) if name == "dora_scale" else 0.1 * noise)
    return Adapted(parts, adapters)


@torch.no_grad()
def outputs_of(parts: Mapping[Part, nn.Module]) -> dict[Part, Tensor]:
    """What parts give for a fixed input."""
    outputs: dict[Part, Tensor] = {
        name: part(_TOKENS, output_hidden_states=True).hidden_states[-1]
        for name, part in parts.items()
        if name != "unet"
    }
    unet: Any = parts["unet"]
    width = unet.config.cross_attention_dim
    states = torch.linspace(-1, 1, 77 * width).reshape(1, 77, width)
    latents = torch.linspace(-1, 1, 4 * 16 * 16).reshape(1, 4, 16, 16)
    conditions = {"text_embeds": torch.ones(1, POOLED_WIDTH), "time_ids": torch.ones(1, 6)}
    outputs["unet"] = unet(latents, 500, states, added_cond_kwargs=conditions).sample
    return outputs


def distance(first: Mapping[Part, Tensor], second: Mapping[Part, Tensor]) -> float:
    """Largest difference of any output."""
    assert first.keys() == second.keys()
    return max(float((first[part] - second[part]).abs().max()) for part in first)


def file_of(adapters: Adapters, *, dtype: torch.dtype = torch.float32) -> AdapterFile:
    """What a file holds for live adapters."""
    modules = kohya_modules(to_kohya(adapters.layers, dtype, adapters.family), "live")
    return AdapterFile(keyed(modules, adapters.family), {}, adapters.family)
