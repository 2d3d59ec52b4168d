"""What the UNet is told beside the noisy picture: tokens of a caption, its states, the picture's sizes.

Values that the data, the families, the loop and the drawing hand to each other. E is the number of text encoders
(1, in SDXL 2), B the batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from lora_trainer.transfer import to_device

Part = Literal["unet", "text_encoder", "text_encoder_2"]
"""A part of the base model that can be adapted."""
PARTS: tuple[Part, ...] = get_args(Part)


@dataclass(frozen=True)
class Tokens:
    """Captions as token ids in windows of 77."""

    ids: Tensor
    """(B, E, chunks, 77) int64."""
    weights: Tensor | None = None
    """(B, E, chunks, 77) fp32: factor on the state of each token; None: all are 1."""

    def to(self, device: torch.device | str) -> "Tokens":
        """The same on a device."""
        return Tokens(to_device(self.ids, device), None if self.weights is None else to_device(self.weights, device))

    @staticmethod
    def cat(parts: Sequence["Tokens"]) -> "Tokens":
        """One batch of several; either all of them have weights or none."""
        weights = [part.weights for part in parts if part.weights is not None]
        return Tokens(torch.cat([part.ids for part in parts]), torch.cat(weights) if weights else None)


@dataclass(frozen=True)
class TextStates:
    """Captions as the UNet sees them."""

    states: Tensor
    """(B, L, D) with L = 75 chunks + 2."""
    pooled: Tensor | None = None
    """(B, P) of SDXL's second encoder."""

    def __len__(self) -> int:
        return len(self.states)

    def rows(self, indices: Sequence[int]) -> "TextStates":
        """The states of some captions of the batch."""
        chosen = list(indices)
        return TextStates(self.states[chosen], None if self.pooled is None else self.pooled[chosen])

    @staticmethod
    def cat(parts: Sequence["TextStates"]) -> "TextStates":
        """One batch of several."""
        pooled = [part.pooled for part in parts if part.pooled is not None]
        return TextStates(torch.cat([part.states for part in parts]), torch.cat(pooled) if pooled else None)


def size_conditions(original: tuple[int, int], crop: tuple[float, float], target: tuple[int, int]) -> Tensor:
    """(6,) fp32: original height and width, top and left of the crop, target height and width, as SDXL takes them.

    Arguments are (width, height), (x, y) and (width, height) in px.
    """
    numbers = (original[1], original[0], crop[1], crop[0], target[1], target[0])
    return torch.tensor(numbers, dtype=torch.float32)
