"""Examples together with their places in the buckets: what the plan counts and the latents are made of."""

from collections.abc import Sequence
from dataclasses import dataclass

from lora_api.dataset_spec import Dataset
from lora_trainer.data.buckets import Placement, TooSmall, placing
from lora_trainer.data.dataset import Example
from lora_trainer.errors import InvalidDataset
from lora_trainer.plan import PlannedPicture


@dataclass(frozen=True)
class PlacedExample:
    """An example and how it gets its training size."""

    example: Example
    placement: Placement

    def to_planned(self) -> PlannedPicture:
        """What the plan has to know about it."""
        return PlannedPicture(
            index=self.example.index,
            bucket=self.placement.bucket,
            repeats=self.example.repeats,
            is_regularization=self.example.is_regularization,
            has_caption_file=self.example.caption_source == "file",
        )


def place_examples(examples: Sequence[Example], spec: Dataset) -> tuple[PlacedExample, ...]:
    """Every example with its placement.

    Raises:
        InvalidConfiguration: the bucket limits do not fit the resolution.
        InvalidDataset: pictures are too small, while enlarging is off.
    """
    place = placing(spec.size_px, spec.buckets)
    placed, problems = [], []
    for example in examples:
        try:
            placed.append(PlacedExample(example, place(example.width_px, example.height_px)))
        except TooSmall as error:
            problems.append(f"{example.key} {error}")
    if problems:
        raise InvalidDataset.listing(problems)
    return tuple(placed)
