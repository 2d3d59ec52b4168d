"""Tiny models whose adapters do something."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lora_api.model_spec import Family, Network
from lora_trainer.conditioning import Part, size_conditions
from lora_trainer.families.catalogue import CLASSES, open_model
from lora_trainer.families.stable_diffusion import StableDiffusion
from lora_trainer.lora.inject import Adapters, add_adapters


@dataclass(frozen=True)
class Adapted:
    """A model with adapters."""

    model: StableDiffusion
    adapters: Adapters

    @torch.no_grad()
    def probe(self) -> tuple[Tensor, ...]:
        """Outputs for a fixed input: of the text encoders, then of the UNet."""
        return self.forward()

    def forward(self, batch: int = 1) -> tuple[Tensor, Tensor]:
        """Text states and prediction for a fixed input, with gradients."""
        text = self.model.encode_texts(self.model.tokenize(["a red cat"] * batch))
        latents = torch.linspace(-1, 1, batch * 4 * 16 * 16).view(batch, 4, 16, 16)
        sizes = size_conditions((64, 64), (0, 0), (64, 64)).expand(batch, -1)
        prediction = self.model.predict(latents, torch.full((batch,), 500), text, sizes)
        return text.states, prediction


@cache
def load(folder: Path, family: Family, precision: torch.dtype) -> StableDiffusion:
    """The base model, read once."""
    # Weights that lie in the file's memory are not aligned, and sums over them are rounded in another way.
    return deepcopy(CLASSES[family].load(open_model(folder), torch.device("cpu"), precision=precision))


def _is_adapted(part: Part, network: Network) -> bool:
    return network.unet if part == "unet" else network.text_encoder


def adapt(
    folder: Path, network: Network, *, family: Family = "sd15", seed: int = 0, precision: torch.dtype = torch.float32
) -> Adapted:
    """A model of `folder` with new adapters, which change nothing yet."""
    loaded = load(folder, family, precision)
    unadapted = [loaded.vae, *(text.tokenizer for text in loaded.texts)]
    unadapted += [part for name, part in loaded.parts.items() if not _is_adapted(name, network)]
    model = deepcopy(loaded, {id(one): one for one in unadapted})
    return Adapted(model, add_adapters(model.parts, network, family=family, seed=seed))


@torch.no_grad()
def stir(adapters: Adapters, *, seed: int = 7) -> None:
    """Random weights for every tensor of the adapters that starts at zero, and row lengths other than the base's."""
    random = torch.Generator().manual_seed(seed)
    for layer in adapters.layers:
        tensors = layer.tensors()
        for name in layer.ups():
            tensors[name].normal_(0.0, 0.05, generator=random)
        if "dora_scale" in tensors:
            scale = tensors["dora_scale"]
            scale.mul_(1 + 0.05 * torch.randn(scale.shape, generator=random))


@pytest.fixture(scope="module")
def adapted(tiny_pipeline: Path) -> Adapted:
    """SD 1.x with adapters of rank 4 and alpha 2; loaded once a module, tests leave it as it is."""
    made = adapt(tiny_pipeline, Network(rank=4, alpha=2.0))
    stir(made.adapters)
    return made


@pytest.fixture(scope="session")
def tiny_folder(tiny_pipeline: Path, tiny_sd2: Path, tiny_sdxl: Path) -> Callable[[Family], Path]:
    """The folder of a family's tiny pipeline."""
    folders: dict[Family, Path] = {"sd15": tiny_pipeline, "sd2": tiny_sd2, "sdxl": tiny_sdxl}
    return folders.__getitem__
