"""What adapter metadata says about the pictures: folders, tags, buckets, as sd-scripts counts them. Pure."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from lora_trainer.data.example import Example
from lora_trainer.data.placed import PlacedExample
from lora_trainer.plan import TrainingPlan


@dataclass(frozen=True)
class DatasetStatistics:
    """Tables of the dataset as JSON-like values."""

    training_samples: int
    """Training pictures times repeats."""
    regularization_samples: int
    """Regularisation pictures times repeats."""
    training_folders: dict[str, Any]
    """Folder -> number of repeats and pictures."""
    regularization_folders: dict[str, Any]
    tag_frequency: dict[str, dict[str, int]]
    """Folder -> tag -> number of captions with it."""
    bucket_info: dict[str, Any]
    """Size and samples of each bucket, and the mean error of the aspect ratio."""


def describe_dataset(pictures: Sequence[PlacedExample], plan: TrainingPlan) -> DatasetStatistics:
    """The tables for `pictures`, from which `plan` was made."""
    examples = [picture.example for picture in pictures]
    training = [example for example in examples if not example.is_regularization]
    regularization = [example for example in examples if example.is_regularization]
    return DatasetStatistics(
        training_samples=sum(example.repeats for example in training),
        regularization_samples=sum(example.repeats for example in regularization),
        training_folders=_folders(training),
        regularization_folders=_folders(regularization),
        tag_frequency=_tags(examples),
        bucket_info=_buckets(pictures, plan),
    )


def _folders(examples: Sequence[Example]) -> dict[str, Any]:
    repeats = {example.folder: example.repeats for example in examples}
    images = Counter(example.folder for example in examples)
    return {folder: {"n_repeats": repeats[folder], "img_count": images[folder]} for folder in repeats}


def _tags(examples: Iterable[Example]) -> dict[str, dict[str, int]]:
    frequency: dict[str, Counter[str]] = {}
    for example in examples:
        tags = (tag.strip().lower() for tag in example.caption.split(","))
        frequency.setdefault(example.folder, Counter()).update(tag for tag in tags if tag)
    return {folder: dict(counts) for folder, counts in frequency.items()}


def _buckets(pictures: Sequence[PlacedExample], plan: TrainingPlan) -> dict[str, Any]:
    sizes = {
        str(index): {"resolution": list(bucket.size), "count": bucket.samples}
        for index, bucket in enumerate(plan.buckets)
    }
    errors = [abs(picture.placement.ratio_error) for picture in pictures]
    return {"buckets": sizes, "mean_img_ar_error": sum(errors) / len(errors)}
