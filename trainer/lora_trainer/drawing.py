"""Draws pictures with a live model, without disturbing its training; used by `run` and for the grid."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor, nn

from lora_trainer.conditioning import TextStates, Tokens, size_conditions
from lora_trainer.diffusion.noise import NoiseSchedule
from lora_trainer.diffusion.sampling import Request, sample
from lora_trainer.families.base import BaseModel
from lora_trainer.lora.inject import Adapters
from lora_trainer.lora.strength import Strength
from lora_trainer.samples import Picture

_BATCH = 4
"""Pictures drawn at once: more is hardly faster and needs more memory than a training step."""


def _stay(*parts: str) -> AbstractContextManager[object]:
    """Every part lies on the device already."""
    return nullcontext()


@dataclass(frozen=True)
class _Words:
    """Tokens of a picture's prompts."""

    text: Tokens
    negative: Tokens


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

    def check(self, pictures: Sequence[Picture], *, field: str) -> None:
        """Raises InvalidConfiguration when the model cannot draw a picture; `field` is where their list stands."""
        for place, picture in enumerate(pictures):
            self.model.check_clip_skip(picture.clip_skip, field=f"{field}[{place}].clipSkip")

    @torch.no_grad()
    def draw(self, pictures: Sequence[Picture], adapters: Adapters | None) -> list[Image.Image]:
        """The pictures in their order. Alike ones are drawn together; each depends on its own seed only.

        `adapters` take part with each picture's weight; None: the model draws as it is, whatever the weights.
        """
        with _evaluating(*self.model.parts.values()):
            with self.placing(*(part for part in self.model.parts if part != "unet")):
                words = [self._words(picture) for picture in pictures]
                requests = [
                    (places, self._request([pictures[place] for place in places], [words[p] for p in places], adapters))
                    for places in _alike(pictures, words)
                ]
            latents: dict[int, Tensor] = {}
            for places, request in requests:
                with _at(pictures[places[0]].weight, adapters):
                    latents |= zip(places, self._denoise(request), strict=True)
            with self.placing("vae"):
                return [self._decode(latents[place]) for place in sorted(latents)]

    def _words(self, picture: Picture) -> _Words:
        tokenize = self.model.tokenize_prompt
        return _Words(tokenize(picture.prompt), tokenize(picture.negative_prompt))

    def _request(self, pictures: Sequence[Picture], words: Sequence[_Words], adapters: Adapters | None) -> Request:
        model, first = self.model, pictures[0]
        cell, size = model.pixels_per_latent, (first.width_px, first.height_px)
        sizes = size_conditions(original=size, crop=(0, 0), target=size)
        with self.autocast(), _at(first.weight, adapters):
            return Request(
                text=self._encode([each.text for each in words], first),
                negative_text=self._encode([each.negative for each in words], first, negative=True),
                sizes=sizes.expand(len(pictures), -1).to(self._device),
                guidance=torch.tensor([picture.guidance for picture in pictures]).to(self._device),
                seeds=tuple(picture.seed for picture in pictures),
                shape=(model.latent_channels, first.height_px // cell, first.width_px // cell),
                steps=first.steps,
                sampler=first.sampler,
            )

    def _encode(self, tokens: Sequence[Tokens], first: Picture, *, negative: bool = False) -> TextStates:
        together = Tokens.cat(tokens).to(self._device)
        return self.model.encode_prompts(together, clip_skip=first.clip_skip, negative=negative)

    def _denoise(self, request: Request) -> Tensor:
        model = self.model
        with self.autocast():
            return sample(model.predict, self.schedule, request, prediction=model.prediction, on_step=self.on_step)

    def _decode(self, latents: Tensor) -> Image.Image:
        self.on_step()
        return to_image(self.model.decode_latents(latents[None])[0])

    @property
    def _device(self) -> torch.device:
        return next(self.model.parts["unet"].parameters()).device


def to_image(pixels: Tensor) -> Image.Image:
    """A picture from pixels (3, H, W) in -1..1."""
    levels = ((pixels.float().cpu() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return Image.fromarray(levels.permute(1, 2, 0).numpy())


def _at(weight: float, adapters: Adapters | None) -> AbstractContextManager[object]:
    return nullcontext() if adapters is None else adapters.at(Strength(weight))


def _alike(pictures: Sequence[Picture], words: Sequence[_Words]) -> Iterator[tuple[int, ...]]:
    """Places of pictures that differ in words, guidance and seed only, in groups that fit one batch."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for place, (picture, word) in enumerate(zip(pictures, words, strict=True)):
        size, lengths = (picture.width_px, picture.height_px), (word.text.ids.shape, word.negative.ids.shape)
        key = (size, picture.steps, picture.sampler, picture.clip_skip, picture.weight, lengths)
        groups.setdefault(key, []).append(place)
    for places in groups.values():
        for start in range(0, len(places), _BATCH):
            yield tuple(places[start : start + _BATCH])


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
