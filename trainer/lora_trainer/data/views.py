"""All pictures of a run as its draws show them: the view of a draw, and the pixels and mask of a view.

Used by the latents and the loader; its methods may be called from any thread.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from lora_api.dataset_spec import Dataset
from lora_trainer.data.augment import PixelDraw, Pixels, View, render, render_mask, view_of
from lora_trainer.data.images import UnusableImage, read_rgb
from lora_trainer.data.masks import read_mask
from lora_trainer.data.placed import PlacedExample
from lora_trainer.data.sampler import Draw
from lora_trainer.errors import InvalidDataset
from lora_trainer.plan import TrainingPlan


class Pictures:
    """Pictures by index, and what draws show of them."""

    def __init__(self, pictures: Sequence[PlacedExample], dataset: Dataset, *, seed: int) -> None:
        self._pictures = {picture.example.index: picture for picture in pictures}
        self._filter = dataset.buckets.resize_filter
        self._draws_are_kept = dataset.latent_cache != "None"
        self._seed = seed
        self._kept: dict[tuple[int, int, bool], View] = {}

    def __getitem__(self, index: int) -> PlacedExample:
        return self._pictures[index]

    def __len__(self) -> int:
        return len(self._pictures)

    def view(self, draw: Draw, epoch: int) -> View:
        """What a draw of `epoch` shows: its variant if those are cached, else something new at each draw."""
        index = draw.example_index
        if self._draws_are_kept or not self._pictures[index].example.augmentation.changes_pixels:
            return self._kept_view(index, draw.variant, draw.flipped)
        pixel_draw = PixelDraw(self._seed, ("epoch", epoch, index, draw.occurrence))
        return view_of(self._pictures[index], pixel_draw, mirrored=draw.flipped)

    def kept_views(self, plan: TrainingPlan) -> tuple[View, ...]:
        """Every different view that draws can show while views are cached, by index; held-out pictures have none."""
        views = (
            self._kept_view(index, variant, mirrored)
            for index, picture in self._pictures.items()
            if not picture.example.is_held_out
            for variant in range(plan.variants)
            for mirrored in ((False, True) if index in plan.mirrored else (False,))
        )
        return tuple(dict.fromkeys(views))

    def plain_view(self, index: int) -> View:
        """What a picture shows when it is measured: its fixed crop, no other colours, not mirrored.

        Of a crop around a face the first variant, since there is no fixed one.
        """
        picture = self._pictures[index]
        rules = picture.example.augmentation.model_copy(update={"color": False, "random_crop": False})
        plain = replace(picture, example=replace(picture.example, augmentation=rules))
        return view_of(plain, PixelDraw(self._seed, ("variant", 0, index)), mirrored=False)

    def pixels(self, view: View) -> Pixels:
        """The pixels of a view. Raises InvalidDataset if the file cannot be read any more."""
        example = self._pictures[view.index].example
        try:
            image = read_rgb(example.path, drop_alpha=example.drops_alpha)
        except (UnusableImage, OSError) as error:
            raise InvalidDataset(f"{example.key} can no longer be read: {error}") from error
        return render(image, view, self._filter)

    def mask(self, view: View) -> npt.NDArray[np.uint8] | None:
        """The loss mask (H, W), 0 to 255, of a view; None: all of it counts. Raises InvalidDataset like `pixels`."""
        example = self._pictures[view.index].example
        try:
            mask = read_mask(example)
        except (UnusableImage, OSError) as error:
            raise InvalidDataset(f"the mask of {example.key} can no longer be read: {error}") from error
        return None if mask is None else render_mask(mask, view, self._filter)

    def content_key(self, view: View) -> list[object]:
        """All that the pixels of a view depend on, as JSON-like values: equal values mean equal pixels."""
        content = self._pictures[view.index].example.content
        tint = None if view.tint is None else [view.tint.kind, view.tint.amount]
        return [content, self._filter, view.bucket, view.resized, view.crop, view.region, tint, view.mirrored]

    def _kept_view(self, index: int, variant: int, mirrored: bool) -> View:
        known = self._kept.get((index, variant, mirrored))
        if known is None:
            draw = PixelDraw(self._seed, ("variant", variant, index))
            known = self._kept[index, variant, mirrored] = view_of(self._pictures[index], draw, mirrored=mirrored)
        return known
