"""What the rest of the trainer may ask of a base model; each family implements it in a module of its own."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from lora_api.model_spec import Family, Prediction
from lora_trainer.conditioning import Part, TextStates, Tokens
from lora_trainer.families.model_files import BetaSchedule


class BaseModel(Protocol):
    """A loaded base model. Its parts are live: adapters are injected into them."""

    @property
    def family(self) -> Family: ...

    @property
    def prediction(self) -> Prediction:
        """What `predict` gives: the noise, or the velocity v."""
        ...

    @property
    def parts(self) -> Mapping[Part, nn.Module]:
        """The parts that can be adapted: `unet`, `text_encoder`, and in SDXL `text_encoder_2`."""
        ...

    @property
    def vae(self) -> nn.Module: ...

    @property
    def betas(self) -> BetaSchedule: ...

    @property
    def latent_channels(self) -> int: ...

    @property
    def pixels_per_latent(self) -> int:
        """Pixels along one side of a latent cell."""
        ...

    @property
    def unused_text_layers(self) -> tuple[str, ...]:
        """`<part>.<module prefix>` of text-encoder layers above the hidden state in use: they have no effect."""
        ...

    def checkpoint_gradients(self) -> None:
        """Recomputes activations in the backward pass from now on: less memory, more time; changes no number."""
        ...

    def use_xformers(self) -> None:
        """Uses xformers' attention in the UNet from now on. Raises RuntimeError that says why it cannot."""
        ...

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """Token ids of `texts` on the CPU, emphasis read if the captions are weighted; cut at maxTokens."""
        ...

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, uncut, without start and end; of two tokenizers the larger number."""
        ...

    def encode_texts(self, tokens: Tokens) -> TextStates:
        """Text states of tokens on the text encoders' device, with gradients if they are enabled."""
        ...

    def tokenize_prompt(self, prompt: str) -> Tokens:
        """Token ids of one prompt on the CPU, whole, in as many chunks as it needs; emphasis is always read."""
        ...

    def encode_prompts(self, tokens: Tokens, *, clip_skip: int, negative: bool = False) -> TextStates:
        """Text states of tokens of prompts, or of negative ones, as AUTOMATIC1111's WebUI makes them at a clip skip."""
        ...

    def check_clip_skip(self, clip_skip: int, *, field: str) -> None:
        """Raises InvalidConfiguration when `field` asks for a clip skip that the model does not know."""
        ...

    def encode_images(self, pixels: Tensor) -> Tensor:
        """Latents (B, C, h, w), scaled as the UNet wants them, in fp32, of pixels (B, 3, H, W) in -1..1."""
        ...

    def decode_latents(self, latents: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) in -1..1 of latents (B, C, h, w)."""
        ...

    def predict(self, latents: Tensor, timesteps: Tensor, text: TextStates, sizes: Tensor) -> Tensor:
        """What the UNet makes of noisy latents (B, C, h, w): noise or v (B, C, h, w), in fp32.

        `sizes` (B, 6) as `conditioning.size_conditions` gives them; families without size conditions ignore them.
        """
        ...

    def place(self, *parts: Part | str, device: torch.device) -> None:
        """Moves parts (`unet`, `text_encoder`, `text_encoder_2`, `vae`) to a device, for `training.lowMemory`."""
        ...
