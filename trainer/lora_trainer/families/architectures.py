"""The families at their real sizes with random weights, for the benchmark and for counting parameters."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lora_api.model_spec import Family, Prediction
from lora_trainer.digests import join_digests, sha256_of
from lora_trainer.families import catalogue
from lora_trainer.families.clip import CHUNK_TOKENS
from lora_trainer.families.configurations import CONFIGS, Architecture
from lora_trainer.families.model_files import BetaSchedule, ModelPart, TextPart
from lora_trainer.families.stable_diffusion import StableDiffusion


@dataclass(frozen=True)
class RandomWeights:
    """A model of a family at its real size with random weights: the right shapes and times, no meaning."""

    family: Family
    device: torch.device
    """Where the weights are drawn; `meta`: nowhere, to count them."""
    prediction: Prediction = "epsilon"
    seed: int = 0
    configs: Path = CONFIGS

    @property
    def digest(self) -> str:
        """Says what the weights depend on."""
        folder = self.configs / self.family
        files = {path.relative_to(folder).as_posix(): sha256_of(path) for path in folder.rglob("*.json")}
        return join_digests({"family": self.family, "seed": str(self.seed), **files})

    @property
    def digests(self) -> Mapping[str, str]:
        """The same, as `model`."""
        return {"model": self.digest}

    @property
    def vae_digest(self) -> str:
        """The same: the VAE is drawn with the rest."""
        return self.digest

    def load(self, part: ModelPart, model_class: Any, *, precision: torch.dtype) -> Any:
        """A part with weights drawn from the seed, without touching torch's own random state."""
        with torch.random.fork_rng(), torch.device(self.device):
            torch.manual_seed(self.seed)
            model = Architecture(self.family, self.configs).build(part, model_class)
        # Not `model.to`: diffusers warns of it in models that have no exceptions to make.
        return nn.Module.to(model, precision)

    def load_tokenizer(self, encoder: TextPart, *, vocabulary: int) -> Any:
        """CLIP's tokenizer."""
        return Architecture(self.family, self.configs).tokenizer(encoder)

    def betas(self) -> BetaSchedule:
        """The noise schedule of the real models."""
        return Architecture(self.family, self.configs).betas()


def random_model(
    family: Family,
    device: torch.device,
    *,
    precision: torch.dtype,
    clip_skip: int = 1,
    max_tokens: int = CHUNK_TOKENS,
) -> StableDiffusion:
    """A model of a family at its real size with random weights on `device`; `meta`: without memory, to be counted."""
    files = RandomWeights(family, device)
    return catalogue.load(files, device, precision=precision, clip_skip=clip_skip, max_tokens=max_tokens)
