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
    """Folder -> number of repeats and pictures. Where the repeats of its pictures differ, the commonest."""
    regularization_folders: dict[str, Any]
    subsets: tuple[dict[str, Any], ...]
    """Pictures and settings of each folder, as in the lists `subsets` of `ss_datasets`."""
    tag_frequency: dict[str, dict[str, int]]
    """Folder -> tag -> number of captions with it."""
    bucket_info: dict[str, Any]
    """Size and samples of each bucket, and the mean error of the aspect ratio."""


def describe_dataset(pictures: Sequence[PlacedExample], plan: TrainingPlan) -> DatasetStatistics:
    """The tables for `pictures`, from which `plan` was made; held-out ones are no part of the training's data."""
    pictures = [picture for picture in pictures if not picture.example.is_held_out]
    examples = [picture.example for picture in pictures]
    training = [example for example in examples if not example.is_regularization]
    regularization = [example for example in examples if example.is_regularization]
    return DatasetStatistics(
        training_samples=sum(example.repeats for example in training),
        regularization_samples=sum(example.repeats for example in regularization),
        training_folders=_folders(training),
        regularization_folders=_folders(regularization),
        subsets=tuple(_subset(group) for group in _grouped(examples)),
        tag_frequency=_tags(examples),
        bucket_info=_buckets(pictures, plan),
    )


def _grouped(examples: Iterable[Example]) -> Iterable[list[Example]]:
    """The examples of each folder; a training folder and one for regularisation may have the same name."""
    groups: dict[tuple[str, bool], list[Example]] = {}
    for example in examples:
        groups.setdefault((example.folder, example.is_regularization), []).append(example)
    return groups.values()


def _folders(examples: Sequence[Example]) -> dict[str, Any]:
    return {group[0].folder: {"n_repeats": _repeats(group), "img_count": len(group)} for group in _grouped(examples)}


def _repeats(examples: Iterable[Example]) -> int:
    return Counter(example.repeats for example in examples).most_common(1)[0][0]


def _subset(examples: Sequence[Example]) -> dict[str, Any]:
    captions, augmentation = examples[0].captions, examples[0].augmentation
    return {
        "img_count": len(examples),
        "num_repeats": _repeats(examples),
        "color_aug": augmentation.color,
        "flip_aug": augmentation.flip,
        "random_crop": augmentation.random_crop,
        "shuffle_caption": captions.shuffle,
        "keep_tokens": captions.keep_tokens,
        "keep_tokens_separator": captions.keep_tokens_separator,
        "secondary_separator": captions.secondary_separator,
        "enable_wildcard": captions.wildcards,
        "caption_prefix": captions.prefix or None,
        "caption_suffix": captions.suffix or None,
        "image_dir": examples[0].folder,
        "class_tokens": examples[0].class_tokens or None,
        "is_reg": examples[0].is_regularization,
    }


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
