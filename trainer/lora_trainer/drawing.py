"""Draws sample pictures with the model as it is trained, without disturbing the training; used by `run`."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor, nn

from lora_trainer.diffusion.noise import NoiseSchedule
from lora_trainer.diffusion.sampling import Request, sample_euler_ancestral
from lora_trainer.families.base import BaseModel
from lora_trainer.samples import Picture

_BATCH = 4
"""Pictures drawn at once: more is hardly faster and needs more memory than a training step."""


@dataclass(frozen=True)
class Painter:
    """Draws pictures with a live model."""

    model: BaseModel
    schedule: NoiseSchedule
    autocast: Callable[[], AbstractContextManager[object]]
    on_step: Callable[[], None]
    """Called before each denoising step; may raise to stop."""

    @torch.no_grad()
    def draw(self, pictures: Sequence[Picture]) -> list[Image.Image]:
        """The pictures in their order. Alike ones are drawn together; each depends on its own seed only."""
        drawn: dict[int, Image.Image] = {}
        with _evaluating(self.model.unet, self.model.text_encoder):
            for places in _alike(pictures):
                latents = self._latents([pictures[place] for place in places])
                for place, one in zip(places, latents, strict=True):
                    drawn[place] = to_image(self.model.decode_latents(one[None])[0])
        return [drawn[place] for place in range(len(pictures))]

    def _latents(self, pictures: Sequence[Picture]) -> Tensor:
        model, first = self.model, pictures[0]
        cell = model.pixels_per_latent
        with self.autocast():
            request = Request(
                states=self._encode([picture.prompt for picture in pictures]),
                negative_states=self._encode([picture.negative_prompt for picture in pictures]),
                guidance=self._on_device(torch.tensor([picture.guidance for picture in pictures])),
                seeds=tuple(picture.seed for picture in pictures),
                shape=(model.latent_channels, first.height_px // cell, first.width_px // cell),
                steps=first.steps,
            )
            return sample_euler_ancestral(model.predict, self.schedule, request, on_step=self.on_step)

    def _encode(self, texts: Sequence[str]) -> Tensor:
        return self.model.encode_texts(self._on_device(self.model.tokenize(texts)))

    def _on_device(self, tensor: Tensor) -> Tensor:
        return tensor.to(next(self.model.unet.parameters()).device)


def to_image(pixels: Tensor) -> Image.Image:
    """A picture from pixels (3, H, W) in -1..1."""
    levels = ((pixels.float().cpu() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return Image.fromarray(levels.permute(1, 2, 0).numpy())


def _alike(pictures: Sequence[Picture]) -> Iterator[list[int]]:
    """Places of pictures with the same size and number of steps, in groups that fit one batch."""
    groups: dict[tuple[int, int, int], list[int]] = {}
    for place, picture in enumerate(pictures):
        groups.setdefault((picture.width_px, picture.height_px, picture.steps), []).append(place)
    for places in groups.values():
        for start in range(0, len(places), _BATCH):
            yield places[start : start + _BATCH]


@contextmanager
def _evaluating(*models: nn.Module) -> Iterator[None]:
    """Evaluation mode, undone afterwards."""
    were_training = [model.training for model in models]
    try:
        for model in models:
            model.eval()
        yield
    finally:
        for model, was_training in zip(models, were_training, strict=True):
            model.train(was_training)
