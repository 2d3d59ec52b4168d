"""What the rest of the trainer may ask of a base model; each family implements it in a module of its own."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn


@dataclass(frozen=True)
class BetaSchedule:
    """Variances of the forward process, as the model's scheduler configuration states them."""

    start: float
    end: float
    steps: int
    name: str
    """`scaled_linear` or `linear`."""


class BaseModel(Protocol):
    """A loaded base model. Its parts are live: adapters are injected into `unet` and `text_encoder`."""

    @property
    def unet(self) -> nn.Module: ...

    @property
    def text_encoder(self) -> nn.Module: ...

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
        """Module-name prefixes of text-encoder layers that clip skip leaves without any effect."""
        ...

    def checkpoint_gradients(self) -> None:
        """Recomputes activations in the backward pass from now on: less memory, more time."""
        ...

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Token ids (B, chunks, L) of `texts`."""
        ...

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, uncut, without start and end."""
        ...

    def encode_texts(self, ids: Tensor) -> Tensor:
        """Text states (B, L, D) of token ids (B, chunks, 77)."""
        ...

    def encode_images(self, pixels: Tensor) -> Tensor:
        """Latents (B, C, h, w), scaled as the UNet wants them, of pixels (B, 3, H, W) in -1..1."""
        ...

    def decode_latents(self, latents: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) in -1..1 of latents (B, C, h, w)."""
        ...

    def predict(self, latents: Tensor, timesteps: Tensor, states: Tensor) -> Tensor:
        """The noise (B, C, h, w), in fp32, that the UNet sees in noisy latents."""
        ...
