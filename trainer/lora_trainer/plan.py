"""Every derived number of a run, once and for all: samples, batches, steps, saves. Pure.

Made by `derive_plan` from what was found in the dataset and the spec; read by the sampler, the loop,
the checkpoints, the status and `lora plan`.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lora_api.spec import LoraTrainingSpec
from lora_api.status import BucketSummary, Plan
from lora_trainer.errors import InvalidConfiguration, InvalidDataset

Bucket = tuple[int, int]
"""(width, height) in px."""

_STATUS_BUCKETS = 128
_STATUS_WARNINGS = 16


@dataclass(frozen=True)
class PlannedPicture:
    """What the plan has to know about one picture."""

    index: int
    """Index of the example in the scanned dataset."""
    bucket: Bucket
    repeats: int
    is_regularization: bool = False
    has_caption_file: bool = True


@dataclass(frozen=True)
class PlannedBucket:
    """The samples of one bucket: a sample is one draw of a picture in an epoch."""

    size: Bucket
    training: tuple[int, ...]
    """Example indices, each as often as it is drawn in every epoch."""
    regularization: tuple[int, ...]
    """Example indices, each as often as its repeats say; epochs take turns through this list."""
    regularization_samples: int
    """How many of them one epoch takes."""
    images: int
    batches: int
    """Forward passes an epoch."""

    @property
    def samples(self) -> int:
        """Draws an epoch."""
        return len(self.training) + self.regularization_samples

    def samples_of_epoch(self, epoch: int) -> tuple[int, ...]:
        """Example indices drawn in `epoch` (from 1), not shuffled; each epoch goes on where the last one ended."""
        start = (epoch - 1) * self.regularization_samples
        length = len(self.regularization)
        turn = (self.regularization[(start + i) % length] for i in range(self.regularization_samples))
        return (*self.training, *turn)


@dataclass(frozen=True)
class TrainingPlan:
    """Every derived number of the run."""

    images: int
    regularization_images: int
    captions_found: int
    captions_missing: int
    buckets: tuple[PlannedBucket, ...]
    """Ascending by size; only buckets with samples."""
    batch_size: int
    accumulation: int
    """Batches per step; the last step of an epoch may have fewer."""
    batches_per_epoch: int
    steps_per_epoch: int
    epochs: int
    """Epochs begun; `maxSteps` may cut the last one."""
    total_steps: int
    flip: bool
    """Half of the draws are mirrored."""
    save_epochs: tuple[int, ...]
    """After these epochs an adapter is written."""
    sample_epochs: tuple[int, ...]
    """After these epochs pictures are drawn; 0 is before the first step."""
    warnings: tuple[str, ...]

    @property
    def samples_per_epoch(self) -> int:
        """Draws an epoch, regularisation included."""
        return sum(bucket.samples for bucket in self.buckets)

    def steps_in_epoch(self, epoch: int) -> int:
        """Steps of `epoch` (from 1): all of them, or what `maxSteps` leaves of the last one."""
        return max(0, min(self.steps_per_epoch, self.total_steps - (epoch - 1) * self.steps_per_epoch))

    def bucket_summaries(self) -> tuple[BucketSummary, ...]:
        """The buckets in numbers, ascending by size."""
        return tuple(
            BucketSummary(
                width_px=bucket.size[0],
                height_px=bucket.size[1],
                images=bucket.images,
                samples=bucket.samples,
                batches=bucket.batches,
            )
            for bucket in self.buckets
        )

    def to_status(self) -> Plan:
        """The plan as `status.plan`, within the limits of the API."""
        warnings = list(self.warnings)
        left_out = len(self.buckets) - _STATUS_BUCKETS
        if left_out > 0:
            warnings.append(f"{left_out} smaller buckets are not shown; `lora plan` shows all of them.")
        return Plan(
            images=self.images,
            regularization_images=self.regularization_images,
            captions_found=self.captions_found,
            captions_missing=self.captions_missing,
            samples_per_epoch=self.samples_per_epoch,
            buckets=_largest(self.bucket_summaries()),
            batches_per_epoch=self.batches_per_epoch,
            steps_per_epoch=self.steps_per_epoch,
            epochs=self.epochs,
            total_steps=self.total_steps,
            warnings=_limited(warnings),
        )


def derive_plan(
    pictures: Sequence[PlannedPicture], spec: LoraTrainingSpec, *, warnings: Iterable[str] = ()
) -> TrainingPlan:
    """The plan for `pictures` under `spec`.

    Batches per epoch are the sum over buckets of ceil(samples / batchSize), steps per epoch ceil(batches /
    gradientAccumulationSteps), as in sd-scripts. Every epoch takes as many regularisation samples as
    training samples, but unlike sd-scripts, which uses the first pictures only, epochs take turns.

    Raises:
        InvalidDataset: there is no training picture.
        InvalidConfiguration: the warm-up is longer than the run.
    """
    training = spec.training
    buckets, unused = _buckets(pictures, training.batch_size)
    batches = sum(bucket.batches for bucket in buckets)
    steps_per_epoch = math.ceil(batches / training.gradient_accumulation_steps)
    total_steps = training.epochs * steps_per_epoch
    if training.max_steps is not None:
        total_steps = min(total_steps, training.max_steps)
    _check_warmup(spec.optimizer.schedule.warmup_steps, total_steps)
    epochs = math.ceil(total_steps / steps_per_epoch)
    found = sum(picture.has_caption_file for picture in pictures)
    return TrainingPlan(
        images=sum(not picture.is_regularization for picture in pictures),
        regularization_images=sum(picture.is_regularization for picture in pictures),
        captions_found=found,
        captions_missing=len(pictures) - found,
        buckets=buckets,
        batch_size=training.batch_size,
        accumulation=training.gradient_accumulation_steps,
        batches_per_epoch=batches,
        steps_per_epoch=steps_per_epoch,
        epochs=epochs,
        total_steps=total_steps,
        flip=spec.dataset.augmentation.flip,
        save_epochs=_every(spec.checkpoints.every_epochs, epochs),
        sample_epochs=(0, *_every(spec.samples.every_epochs, epochs)) if spec.samples.prompts else (),
        warnings=(*warnings, *_regularization_warnings(buckets, unused, epochs)),
    )


def _buckets(pictures: Sequence[PlannedPicture], batch_size: int) -> tuple[tuple[PlannedBucket, ...], int]:
    """The buckets, and how many regularisation pictures lie in buckets that get no regularisation sample."""
    by_size: dict[Bucket, list[PlannedPicture]] = {}
    for picture in pictures:
        by_size.setdefault(picture.bucket, []).append(picture)
    training = {size: _repeated(p for p in by_size[size] if not p.is_regularization) for size in sorted(by_size)}
    regularization = {size: _in_turns(p for p in by_size[size] if p.is_regularization) for size in training}
    wanted = sum(map(len, training.values()))
    if not wanted:
        raise InvalidDataset("the dataset holds no training picture")
    shares = _apportion(wanted, {size: len(turn) for size, turn in regularization.items() if turn})
    unused = sum(len(set(regularization[size])) for size, share in shares.items() if not share)
    buckets = []
    for size, drawn in training.items():
        share = shares.get(size, 0)
        if drawn or share:
            batches = math.ceil((len(drawn) + share) / batch_size)
            images = len(set(drawn)) + (len(set(regularization[size])) if share else 0)
            buckets.append(PlannedBucket(size, drawn, regularization[size], share, images, batches))
    return tuple(buckets), unused


def _repeated(pictures: Iterable[PlannedPicture]) -> tuple[int, ...]:
    return tuple(picture.index for picture in pictures for _ in range(picture.repeats))


def _in_turns(pictures: Iterable[PlannedPicture]) -> tuple[int, ...]:
    """Each index as often as its repeats, in rounds, so that any stretch holds as many pictures as it can."""
    waiting = list(pictures)
    turns: list[int] = []
    done = 0
    while waiting:
        turns.extend(picture.index for picture in waiting)
        done += 1
        waiting = [picture for picture in waiting if picture.repeats > done]
    return tuple(turns)


def _apportion(total: int, weights: dict[Bucket, int]) -> dict[Bucket, int]:
    """`total` split in proportion to `weights`: at least 1 each where it reaches, then largest remainders.

    A fixed share per bucket keeps the number of batches the same in every epoch.
    """
    if not weights:
        return {}
    floor = 1 if total >= len(weights) else 0
    spread, mass = total - floor * len(weights), sum(weights.values())
    shares = {bucket: floor + spread * weight // mass for bucket, weight in weights.items()}
    by_remainder = sorted(weights, key=lambda bucket: (-(spread * weights[bucket] % mass), bucket))
    for bucket in by_remainder[: total - sum(shares.values())]:
        shares[bucket] += 1
    return shares


def _every(period: int, epochs: int) -> tuple[int, ...]:
    return tuple(sorted({*range(period, epochs + 1, period), epochs}))


def _check_warmup(warmup_steps: int, total_steps: int) -> None:
    if warmup_steps >= total_steps:
        raise InvalidConfiguration(
            f"spec.optimizer.schedule.warmupSteps is {warmup_steps}, but the run has only {total_steps} steps; "
            "lower it or train longer"
        )


def _regularization_warnings(buckets: Sequence[PlannedBucket], unused: int, epochs: int) -> list[str]:
    unseen = unused + sum(_unseen(bucket, epochs) for bucket in buckets if bucket.regularization_samples)
    if not unseen:
        return []
    total = sum(len(set(bucket.regularization)) for bucket in buckets if bucket.regularization_samples) + unused
    return [
        f"{unseen} of {total} regularisation pictures are never drawn: an epoch takes as many regularisation "
        "samples as training samples. Train more epochs or raise the repeats of the concept folders."
    ]


def _unseen(bucket: PlannedBucket, epochs: int) -> int:
    drawn = bucket.regularization[: epochs * bucket.regularization_samples]
    return len(set(bucket.regularization)) - len(set(drawn))


def _largest(summaries: Sequence[BucketSummary]) -> tuple[BucketSummary, ...]:
    by_samples = sorted(summaries, key=lambda summary: -summary.samples)[:_STATUS_BUCKETS]
    return tuple(summary for summary in summaries if summary in by_samples)


def _limited(warnings: Sequence[str]) -> tuple[str, ...]:
    if len(warnings) <= _STATUS_WARNINGS:
        return tuple(warnings)
    kept = _STATUS_WARNINGS - 1
    return (*warnings[:kept], f"{len(warnings) - kept} more warnings; `lora plan` shows all of them.")
