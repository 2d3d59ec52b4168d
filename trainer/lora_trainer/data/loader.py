"""The batches of a training with everything that they are trained on, prepared ahead. The one thing the loop reads.

A batch is a function of (seed, epoch, place in the epoch): the number of workers changes when things are read, never
what is read.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from lora_api.dataset_spec import Dataset
from lora_api.spec import LoraTrainingSpec
from lora_trainer.conditioning import size_conditions
from lora_trainer.data.augment import View, told_crop
from lora_trainer.data.caption_draws import CaptionDraw, constant_caption, drawn_caption
from lora_trainer.data.latents import Finish, LatentSource
from lora_trainer.data.prefetch import in_order
from lora_trainer.data.sampler import Draw, share_of, steps_of_epoch
from lora_trainer.data.views import Pictures
from lora_trainer.plan import TrainingPlan


@dataclass(frozen=True)
class TrainingBatch:
    """What goes through the model together."""

    latents: Tensor
    """(B, C, h, w), fp32, where the latents lie."""
    captions: tuple[str, ...]
    """The text of each draw, all rules applied."""
    weights: Tensor
    """(B,) factor on the loss of each draw."""
    masks: Tensor | None
    """(B, 1, h, w), 0..1: what of each draw counts; None: all of every one."""
    from_base: Tensor
    """(B,) bool: whether the target is the base model's own prediction."""
    sizes: Tensor
    """(B, 6) as `conditioning.size_conditions`."""

    def rows(self, rows: slice) -> "TrainingBatch":
        """Some of the examples."""
        return TrainingBatch(
            latents=self.latents[rows],
            captions=self.captions[rows],
            weights=self.weights[rows],
            masks=None if self.masks is None else self.masks[rows],
            from_base=self.from_base[rows],
            sizes=self.sizes[rows],
        )


FinishMask = Callable[[tuple[int, int]], Tensor | None]
"""(h, w) of a latent -> its mask (1, h, w), 0..1; None: all of it counts."""


@dataclass(frozen=True)
class _Loaded:
    """What a thread has prepared of one draw."""

    picture: int
    view: View
    caption: str
    finish: Finish
    mask: FinishMask


class _Masks:
    """Loss masks at the size of latents, kept where views are."""

    def __init__(self, pictures: Pictures, dataset: Dataset) -> None:
        self._pictures, self._used = pictures, dataset.mask != "None"
        self._keeps = dataset.latent_cache != "None"
        self._kept: dict[View, Tensor | None] = {}

    def load(self, view: View) -> FinishMask:
        """Reads the mask of a view, in any thread; the result scales it, in the main thread."""
        if not self._used or view in self._kept:
            return lambda _: self._kept.get(view)
        pixels = self._pictures.mask(view)
        return lambda size: self._finished(view, pixels, size)

    def _finished(self, view: View, pixels: npt.NDArray[np.uint8] | None, size: tuple[int, int]) -> Tensor | None:
        mask = None if pixels is None else _scaled(pixels, size)
        if self._keeps:
            self._kept[view] = mask
        return mask


class Loader:
    """Steps of each epoch as batches; threads read ahead."""

    def __init__(
        self,
        pictures: Pictures,
        plan: TrainingPlan,
        spec: LoraTrainingSpec,
        latents: LatentSource,
        workers: int,
        *,
        rank: int = 0,
    ) -> None:
        """`rank`: which of the plan's processes this is; it gets the batches of each step that are its own."""
        self._pictures, self._plan, self._latents, self._workers = pictures, plan, latents, workers
        self._rank = rank
        self._seed = spec.training.seed
        self._masks = _Masks(pictures, spec.dataset)
        self._regularization = spec.dataset.regularization
        self._open: list[Generator[tuple[TrainingBatch, ...], None, None]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the threads and every iterator that `steps` gave."""
        for iterator in self._open:
            iterator.close()
        self._open.clear()

    def steps(self, epoch: int, *, first_step: int) -> Iterator[tuple[TrainingBatch, ...]]:
        """The steps of `epoch` (from 1) that are left after `first_step` steps of the run, as this process's batches;
        at the end of an epoch it may have none.

        Raises, while it is read:
            InvalidDataset: a picture or mask cannot be read any more, or its latent is not finite.
            TrainingError: as the source of the latents says.
        """
        self.close()
        iterator = self._steps(epoch, first_step)
        self._open.append(iterator)
        return iterator

    def plain(self, index: int) -> TrainingBatch:
        """One picture as it is measured, a batch of one: its plain view, its caption with nothing drawn.

        Raises as `steps`.
        """
        example, view = self._pictures[index].example, self._pictures.plain_view(index)
        caption = constant_caption(example.caption, example.captions)
        return self._batch([_Loaded(index, view, caption, self._latents.load(view), self._masks.load(view))])

    def _steps(self, epoch: int, first_step: int) -> Generator[tuple[TrainingBatch, ...], None, None]:
        made = first_step - (epoch - 1) * self._plan.steps_per_epoch
        all_steps = steps_of_epoch(self._plan, epoch, self._seed)[made:]
        steps = [share_of(step, self._rank, self._plan.processes) for step in all_steps]
        jobs = (
            (draw, epoch, first_step + place)
            for place, step in enumerate(steps)
            for batch in step
            for draw in batch.draws
        )
        ahead = 2 * self._plan.batch_size
        with closing(in_order(self._load, jobs, workers=self._workers, ahead=ahead)) as loaded:
            for step in steps:
                yield tuple(self._batch(list(islice(loaded, len(batch.draws)))) for batch in step)

    def _load(self, job: tuple[Draw, int, int]) -> _Loaded:
        draw, epoch, step = job
        example = self._pictures[draw.example_index].example
        view = self._pictures.view(draw, epoch)
        caption_draw = CaptionDraw(
            seed=self._seed,
            epoch=epoch,
            step=step,
            total_steps=self._plan.total_steps,
            index=example.index,
            occurrence=draw.occurrence,
        )
        caption = drawn_caption(example.caption_lines, example.captions, caption_draw)
        return _Loaded(example.index, view, caption, self._latents.load(view), self._masks.load(view))

    def _batch(self, draws: Sequence[_Loaded]) -> TrainingBatch:
        latents = torch.stack([draw.finish() for draw in draws])
        examples = [self._pictures[draw.picture].example for draw in draws]
        weight, from_base = self._regularization.loss_weight, self._regularization.target == "BaseModel"
        return TrainingBatch(
            latents=latents,
            captions=tuple(draw.caption for draw in draws),
            weights=torch.tensor([weight if example.is_regularization else 1.0 for example in examples]),
            masks=_stacked([draw.mask((latents.shape[2], latents.shape[3])) for draw in draws], latents),
            from_base=torch.tensor([from_base and example.is_regularization for example in examples]),
            sizes=torch.stack([self._sizes(draw) for draw in draws]),
        )

    def _sizes(self, draw: _Loaded) -> Tensor:
        picture = self._pictures[draw.picture]
        original = (picture.example.width_px, picture.example.height_px)
        return size_conditions(original, told_crop(picture, draw.view), draw.view.bucket)


def _stacked(masks: Sequence[Tensor | None], latents: Tensor) -> Tensor | None:
    """(B, 1, h, w), with ones where all of a picture counts; None where all of every one does."""
    if all(mask is None for mask in masks):
        return None
    whole = torch.ones(1, *latents.shape[2:])
    return torch.stack([whole if mask is None else mask for mask in masks])


def _scaled(mask: npt.NDArray[np.uint8], size: tuple[int, int]) -> Tensor:
    """A mask (1, h, w), 0..1, each cell the mean over its pixels."""
    pixels = torch.from_numpy(mask).to(torch.float32)[None, None] / 255
    return functional.interpolate(pixels, size=size, mode="area")[0]
