"""Draws sample pictures with the model as it is trained, without disturbing the training; used by `run`."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor, nn

from lora_trainer.conditioning import TextStates, size_conditions
from lora_trainer.diffusion.noise import NoiseSchedule
from lora_trainer.diffusion.sampling import Request, sample_euler_ancestral
from lora_trainer.families.base import BaseModel
from lora_trainer.samples import Picture

_BATCH = 4
"""Pictures drawn at once: more is hardly faster and needs more memory than a training step."""


def _stay(*parts: str) -> AbstractContextManager[object]:
    """Every part lies on the device already."""
    return nullcontext()


@dataclass(frozen=True)
class Painter:
    """Draws pictures with a live model."""

    model: BaseModel
    schedule: NoiseSchedule
    """The one that the training uses: of a model with zero terminal SNR the rescaled one."""
    autocast: Callable[[], AbstractContextManager[object]]
    on_step: Callable[[], None]
    """Called before each denoising step and each decoded picture; may raise to stop."""
    placing: Callable[..., AbstractContextManager[object]] = _stay
    """Names of parts, as `BaseModel.place` takes them -> has them on the device while it is open."""

    @torch.no_grad()
    def draw(self, pictures: Sequence[Picture]) -> list[Image.Image]:
        """The pictures in their order. Alike ones are drawn together; each depends on its own seed only."""
        groups = list(_alike(pictures))
        with _evaluating(*self.model.parts.values()):
            with self.placing(*(part for part in self.model.parts if part != "unet")):
                requests = [self._request([pictures[place] for place in places]) for places in groups]
            latents = self._denoise(requests, groups)
            with self.placing("vae"):
                return [self._decode(latents[place]) for place in sorted(latents)]

    def _request(self, pictures: Sequence[Picture]) -> Request:
        model, first = self.model, pictures[0]
        cell, size = model.pixels_per_latent, (first.width_px, first.height_px)
        sizes = size_conditions(original=size, crop=(0, 0), target=size)
        with self.autocast():
            return Request(
                text=self._encode([picture.prompt for picture in pictures]),
                negative_text=self._encode([picture.negative_prompt for picture in pictures]),
                sizes=sizes.expand(len(pictures), -1).to(self._device),
                guidance=torch.tensor([picture.guidance for picture in pictures]).to(self._device),
                seeds=tuple(picture.seed for picture in pictures),
                shape=(model.latent_channels, first.height_px // cell, first.width_px // cell),
                steps=first.steps,
            )

    def _denoise(self, requests: Sequence[Request], groups: Sequence[Sequence[int]]) -> dict[int, Tensor]:
        """Place of each picture -> its latents (C, h, w)."""
        model = self.model
        latents: dict[int, Tensor] = {}
        with self.autocast():
            for request, places in zip(requests, groups, strict=True):
                drawn = sample_euler_ancestral(
                    model.predict, self.schedule, request, prediction=model.prediction, on_step=self.on_step
                )
                latents |= dict(zip(places, drawn, strict=True))
        return latents

    def _decode(self, latents: Tensor) -> Image.Image:
        self.on_step()
        return to_image(self.model.decode_latents(latents[None])[0])

    def _encode(self, texts: Sequence[str]) -> TextStates:
        return self.model.encode_texts(self.model.tokenize(texts).to(self._device))

    @property
    def _device(self) -> torch.device:
        return next(self.model.parts["unet"].parameters()).device


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
