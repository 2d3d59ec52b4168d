"""The fixed draws of an evaluation: which picture with which noise at which timestep, the same after every epoch.

Made by `bench`. Noise is a function of the seed, the picture's content and the number of the draw; timesteps are
stratified, so that few draws cover the whole range.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lora_trainer.generators import generator
from lora_trainer.rng import Purpose

UNRELATED_CAPTIONS = (
    "a mountain lake at dawn",
    "a bowl of oranges on a wooden table",
    "a steam train crossing a stone bridge",
    "an old lighthouse in a storm",
    "a black and white photo of a city street",
    "a field of sunflowers under a blue sky",
    "a cat asleep on a windowsill",
    "a red bicycle against a brick wall",
    "an oil painting of a sailing ship",
    "a glass of water on a desk",
    "a forest path in autumn",
    "an astronaut on the moon",
    "a bowl of noodle soup, close-up",
    "a portrait of an elderly man",
    "a crowded market at night",
    "a simple drawing of a house",
)
"""What drift is measured on: everyday subjects that hardly any adapter is trained for."""


@dataclass(frozen=True)
class MeasuredPicture:
    """A picture as it is measured, on the CPU or where it is kept."""

    name: str
    """Its name in the dataset."""
    content: str
    """What tells it from others: its digest, or its caption where there is no picture."""
    caption: str
    latents: Tensor
    """(C, h, w) fp32."""
    sizes: Tensor
    """(6,) as `conditioning.size_conditions`."""
    mask: Tensor | None = None
    """(1, h, w) in 0..1: how much each place counts."""


@dataclass(frozen=True)
class Passes:
    """Draws that go through the model together."""

    latents: Tensor
    """(B, C, h, w) fp32."""
    noise: Tensor
    """(B, C, h, w) fp32."""
    timesteps: Tensor
    """(B,) int64."""
    captions: tuple[str, ...]
    sizes: Tensor
    """(B, 6)."""
    masks: Tensor | None
    """(B, 1, h, w); None: all of every picture counts."""


@dataclass(frozen=True)
class FixedDraw:
    """One draw."""

    picture: MeasuredPicture
    number: int
    """Which draw of the picture, from 0."""
    timestep: int
    seed: int

    @property
    def noise(self) -> Tensor:
        """(C, h, w) fp32 on the CPU."""
        random = generator(self.seed, Purpose.EVALUATION, self.picture.content, self.number)
        return torch.randn(self.picture.latents.shape, generator=random)


def fixed_draws(
    pictures: Sequence[MeasuredPicture], passes: int, *, timesteps: tuple[int, int], seed: int
) -> tuple[FixedDraw, ...]:
    """About `passes` draws, as many of each picture, at least one.

    The range `timesteps` (first, one after the last) is cut into as many strata as there are draws, and each takes
    the middle of its own. Every picture gets one of each run of strata, which pictures pass through in turn, so that
    none has all the low ones.
    """
    if not pictures or not passes:
        return ()
    each = max(1, round(passes / len(pictures)))
    low, high = timesteps
    width = (high - low) / (each * len(pictures))
    return tuple(
        FixedDraw(
            picture,
            number,
            low + int((number * len(pictures) + (place + number) % len(pictures) + 0.5) * width),
            seed,
        )
        for place, picture in enumerate(pictures)
        for number in range(each)
    )


def batched(draws: Sequence[FixedDraw], size: int) -> list[tuple[int, ...]]:
    """Places of draws that go through the model together: of one shape, at most `size`."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for place, draw in enumerate(draws):
        groups.setdefault(tuple(draw.picture.latents.shape), []).append(place)
    return [tuple(places[start : start + size]) for places in groups.values() for start in range(0, len(places), size)]


def stacked(draws: Sequence[FixedDraw], device: torch.device) -> Passes:
    """Draws of one shape as one batch on `device`."""
    pictures = [draw.picture for draw in draws]
    masks = [picture.mask for picture in pictures]
    whole = torch.ones(1, *pictures[0].latents.shape[1:])
    return Passes(
        latents=torch.stack([picture.latents for picture in pictures]).to(device),
        noise=torch.stack([draw.noise for draw in draws]).to(device),
        timesteps=torch.tensor([draw.timestep for draw in draws], device=device),
        captions=tuple(picture.caption for picture in pictures),
        sizes=torch.stack([picture.sizes for picture in pictures]).to(device),
        masks=None
        if all(mask is None for mask in masks)
        else torch.stack([whole if mask is None else mask.cpu() for mask in masks]).to(device),
    )
