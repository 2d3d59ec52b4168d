"""Passes drawings and captions through the frozen autoencoder and text encoder once.

Used by `train`, which caches the result, and by `unet_training`, which learns from it.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from transformers import CLIPTextModel, CLIPTokenizer

from lora_tinybase import drawings
from lora_tinybase.autoencoder_training import to_tensor
from lora_tinybase.model import LATENT_SCALE
from lora_tinybase.text_training import states_of

CAPTIONS_PER_SCENE = 2
CHUNK = 100


@dataclass(frozen=True)
class LatentSet:
    """Latents of the same scenes at 64 px [n, 4, 8, 8] and 128 px [n, 4, 16, 16], and the text states of each
    scene's captions [n, captions, clip skips, 77, width]; half precision."""

    small: torch.Tensor
    large: torch.Tensor
    states: torch.Tensor

    def save(self, path: Path) -> None:
        """Writes one file."""
        torch.save({"small": self.small, "large": self.large, "states": self.states}, path)

    @classmethod
    def load(cls, path: Path) -> "LatentSet":
        """Maps the file into memory: several processes share its pages."""
        return cls(**torch.load(path, mmap=True, weights_only=True))


@torch.no_grad()
def encode(vae: AutoencoderKL, encoder: CLIPTextModel, tokenizer: CLIPTokenizer, *, count: int, seed: int) -> LatentSet:
    """`count` seeded scenes and their captions as latents and text states."""
    rng = np.random.default_rng(seed)
    scenes = drawings.scenes(count, seed)
    texts = [drawings.caption(scene, rng)[0] for scene in scenes for _ in range(CAPTIONS_PER_SCENE)]
    states = [_text_states(encoder, tokenizer, texts[i : i + CHUNK]) for i in range(0, len(texts), CHUNK)]
    shape = (count, CAPTIONS_PER_SCENE, *states[0].shape[1:])
    return LatentSet(_encode(vae, scenes, 64), _encode(vae, scenes, 128), torch.cat(states).reshape(shape))


def _text_states(encoder: CLIPTextModel, tokenizer: CLIPTokenizer, texts: list[str]) -> torch.Tensor:
    ids = tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids
    return torch.stack(states_of(encoder, ids), 1).half()


def _encode(vae: AutoencoderKL, scenes: list[drawings.Scene], side: int) -> torch.Tensor:
    chunks = [scenes[i : i + CHUNK] for i in range(0, len(scenes), CHUNK)]
    pictures = (to_tensor([drawings.render(scene, side, side) for scene in chunk]) for chunk in chunks)
    return torch.cat([(vae.encode(batch).latent_dist.mean * LATENT_SCALE).half() for batch in pictures])
