"""Examples together with their places in the buckets: what the plan counts and the latents are made of."""

from collections.abc import Sequence
from dataclasses import dataclass

from lora_api.dataset_spec import Dataset
from lora_trainer.data.buckets import Placement, TooSmall, placing
from lora_trainer.data.example import Example
from lora_trainer.data.faces import NoFace, face_in_name
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
            is_held_out=self.example.is_held_out,
            has_caption_file=self.example.caption_source in ("file", "metadata"),
            flip=self.example.augmentation.flip,
            crop_loss=self.placement.crop_loss,
            name=self.example.key,
        )


def place_examples(examples: Sequence[Example], spec: Dataset) -> tuple[PlacedExample, ...]:
    """Every example with its placement.

    Raises:
        InvalidConfiguration: the bucket limits do not fit the resolution.
        InvalidDataset: pictures are too small, while enlarging is off, or do not name the face to crop around.
    """
    place = placing(spec.size_px, spec.buckets)
    placed, problems = [], []
    for example in examples:
        try:
            if example.augmentation.face_crop_range is not None:
                face_in_name(example.path, (example.width_px, example.height_px))
            placed.append(PlacedExample(example, place(example.width_px, example.height_px)))
        except (TooSmall, NoFace) as error:
            problems.append(f"{example.key} {error}")
    if problems:
        raise InvalidDataset.listing(problems)
    return tuple(placed)
