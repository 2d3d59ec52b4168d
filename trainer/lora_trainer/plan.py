"""Every derived number of a run, once and for all: samples, batches, steps, saves. Pure.

Made by `derive_plan` from what was found in the dataset and the spec; read by the sampler, the loop,
the checkpoints, the status and `lora plan`.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lora_api.dataset_spec import Captions, Dataset
from lora_api.evaluation_spec import Samples
from lora_api.optimizer_spec import Schedule
from lora_api.spec import LoraTrainingSpec
from lora_api.status import BucketSummary, Plan
from lora_api.training_spec import Training
from lora_trainer.errors import InvalidConfiguration, InvalidDataset

Bucket = tuple[int, int]
"""(width, height) in px."""

_STATUS_BUCKETS = 128
_STATUS_WARNINGS = 16
_MUCH_CROPPED = 0.2
"""Pictures that lose a larger share of their area are named."""
_SHOWN_NAMES = 5


@dataclass(frozen=True)
class PlannedPicture:
    """What the plan has to know about one picture."""

    index: int
    """Index of the example in the scanned dataset."""
    bucket: Bucket
    repeats: int
    is_regularization: bool = False
    is_held_out: bool = False
    """It is never drawn."""
    has_caption_file: bool = True
    flip: bool = False
    """Half of its draws are mirrored."""
    crop_loss: float = 0.0
    """Share of its area that is cut off, 0 to 1."""
    name: str = ""
    """Its name in warnings."""


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
    crop_loss: float = 0.0
    """Mean share of its pictures' area that is cut off, 0 to 1."""

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
    """Pictures that are trained on."""
    regularization_images: int
    held_out_images: int
    """Pictures that are measured and never trained on; no other number counts them."""
    captions_found: int
    captions_missing: int
    buckets: tuple[PlannedBucket, ...]
    """Ascending by size; only buckets with samples."""
    batch_size: int
    accumulation: int
    """Batches per step and process; the last step of an epoch may have fewer."""
    processes: int
    """Processes that share the batches of a step."""
    batches_per_epoch: int
    steps_per_epoch: int
    epochs: int
    """Epochs begun; `maxSteps` may cut the last one."""
    total_steps: int
    warmup_steps: int
    """First steps, over which the learning rate rises."""
    decay_steps: int
    """Last steps, over which it falls; 0 unless the schedule has such a part."""
    mirrored: frozenset[int]
    """Example indices of which half of the draws are mirrored."""
    variants: int
    """Versions of a picture among which its draws choose; 1 unless the spec keeps several."""
    save_epochs: tuple[int, ...]
    """After these epochs an adapter is written."""
    sample_epochs: tuple[int, ...]
    """After these epochs pictures are drawn; 0 is before the first step."""
    sample_steps: frozenset[int]
    """After these steps as well; those that end one of `sample_epochs` are not among them."""
    warnings: tuple[str, ...]

    @property
    def samples_per_epoch(self) -> int:
        """Draws an epoch, regularisation included."""
        return sum(bucket.samples for bucket in self.buckets)

    def steps_in_epoch(self, epoch: int) -> int:
        """Steps of `epoch` (from 1): all of them, or what `maxSteps` leaves of the last one."""
        return max(0, min(self.steps_per_epoch, self.total_steps - (epoch - 1) * self.steps_per_epoch))

    def batches_in_step(self, step: int) -> int:
        """Batches, of all processes, whose gradients make up the update after `step` steps; the last of an epoch may
        have fewer."""
        whole = self.accumulation * self.processes
        return min(whole, self.batches_per_epoch - step % self.steps_per_epoch * whole)

    def steps_until(self, epoch: int) -> int:
        """Steps made when `epoch` ends; 0 before the first one."""
        return min(epoch * self.steps_per_epoch, self.total_steps)

    def epoch_of(self, step: int) -> int:
        """The epoch that a step (from 1) belongs to; 0 before the first one."""
        return math.ceil(step / self.steps_per_epoch)

    def bucket_summaries(self) -> tuple[BucketSummary, ...]:
        """The buckets in numbers, ascending by size."""
        return tuple(
            BucketSummary(
                width_px=bucket.size[0],
                height_px=bucket.size[1],
                images=bucket.images,
                samples=bucket.samples,
                batches=bucket.batches,
                crop_loss_percent=round(100 * bucket.crop_loss, 1),
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
    pictures: Sequence[PlannedPicture],
    spec: LoraTrainingSpec,
    *,
    warnings: Iterable[str] = (),
    processes: int | None = None,
) -> TrainingPlan:
    """The plan for `pictures` under `spec`, for as many processes as it says, or for `processes`.

    Batches per epoch are the sum over buckets of ceil(samples / batchSize), steps per epoch ceil(batches /
    processes / gradientAccumulationSteps), as in sd-scripts. Every epoch takes as many regularisation samples as
    training samples, but unlike sd-scripts, which uses the first pictures only, epochs take turns.

    Raises:
        InvalidDataset: there is no training picture.
        InvalidConfiguration: warm-up, decay or token warm-up do not fit into the run.
    """
    found, pictures = pictures, [picture for picture in pictures if not picture.is_held_out]
    training, processes = spec.training, spec.parallelism.processes if processes is None else processes
    buckets, unused = _buckets(pictures, training.batch_size)
    batches = sum(bucket.batches for bucket in buckets)
    steps_per_epoch = math.ceil(batches / (processes * training.gradient_accumulation_steps))
    total_steps, epochs = _length(training, steps_per_epoch)
    warmup_steps, decay_steps = _schedule_steps(spec.optimizer.schedule, total_steps)
    _check_token_warmup(spec.dataset, total_steps)
    captions_found = sum(picture.has_caption_file for picture in pictures)
    return TrainingPlan(
        images=sum(not picture.is_regularization for picture in pictures),
        regularization_images=sum(picture.is_regularization for picture in pictures),
        held_out_images=len(found) - len(pictures),
        captions_found=captions_found,
        captions_missing=len(pictures) - captions_found,
        buckets=buckets,
        batch_size=training.batch_size,
        accumulation=training.gradient_accumulation_steps,
        processes=processes,
        batches_per_epoch=batches,
        steps_per_epoch=steps_per_epoch,
        epochs=epochs,
        total_steps=total_steps,
        warmup_steps=warmup_steps,
        decay_steps=decay_steps,
        mirrored=frozenset(picture.index for picture in pictures if picture.flip),
        variants=spec.dataset.latent_variants or 1,
        save_epochs=_every(spec.checkpoints.every_epochs, epochs),
        sample_epochs=(0, *_every(spec.samples.every_epochs, epochs)) if spec.samples.prompts else (),
        sample_steps=_sample_steps(spec.samples, steps_per_epoch, total_steps),
        warnings=(*warnings, *_regularization_warnings(buckets, unused, epochs), *_crop_warnings(pictures)),
    )


def _length(training: Training, steps_per_epoch: int) -> tuple[int, int]:
    """(steps, epochs) of the run; the last epoch may be cut short."""
    all_steps = training.epochs * steps_per_epoch
    total_steps = min(all_steps, training.max_steps or all_steps)
    return total_steps, math.ceil(total_steps / steps_per_epoch)


def share_of_steps(fraction: float, total_steps: int) -> int:
    """A share of all steps, rounded down as in sd-scripts, but 0.29 of 100 is 29 although its product is 28.9…96."""
    return math.floor(fraction * total_steps + 1e-6)


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
            loss = _mean_crop_loss(by_size[size], with_regularization=share > 0)
            buckets.append(PlannedBucket(size, drawn, regularization[size], share, images, batches, loss))
    return tuple(buckets), unused


def _mean_crop_loss(pictures: Sequence[PlannedPicture], *, with_regularization: bool) -> float:
    losses = [p.crop_loss for p in pictures if with_regularization or not p.is_regularization]
    return sum(losses) / len(losses)


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


def _sample_steps(samples: Samples, steps_per_epoch: int, total_steps: int) -> frozenset[int]:
    if samples.every_steps is None or not samples.prompts:
        return frozenset()
    ends_of_epochs = {*range(0, total_steps, samples.every_epochs * steps_per_epoch), total_steps}
    return frozenset(range(samples.every_steps, total_steps, samples.every_steps)) - ends_of_epochs


def _schedule_steps(schedule: Schedule, total_steps: int) -> tuple[int, int]:
    """(warm-up, decay) in steps. Raises InvalidConfiguration where they do not fit into the run."""
    warmup, warmup_field = schedule.warmup_steps, f"warmupSteps is {schedule.warmup_steps}"
    if schedule.warmup_fraction is not None:
        warmup = share_of_steps(schedule.warmup_fraction, total_steps)
        warmup_field = f"warmupFraction is {schedule.warmup_fraction} ({warmup} steps)"
    decay, decay_field = schedule.decay_steps or 0, f"decaySteps is {schedule.decay_steps}"
    if schedule.decay_fraction is not None:
        decay = share_of_steps(schedule.decay_fraction, total_steps)
        decay_field = f"decayFraction is {schedule.decay_fraction} ({decay} steps)"
    where, run = "spec.optimizer.schedule.", f"the run has only {total_steps} steps"
    if warmup >= total_steps:
        raise InvalidConfiguration(f"{where}{warmup_field}, but {run}; lower it or train longer")
    if schedule.decay_fraction is not None and not decay:
        raise InvalidConfiguration(f"{where}{decay_field}, less than one step of {total_steps}; raise it")
    if warmup + decay > total_steps:
        both = f"{where}{warmup_field} and {decay_field}"
        raise InvalidConfiguration(f"{both}, together more than the {total_steps} steps of the run; lower one")
    return warmup, decay


def _check_token_warmup(dataset: Dataset, total_steps: int) -> None:
    """Raises InvalidConfiguration when a token warm-up would not end before the run does."""
    for field, captions in _captions(dataset):
        warmup = captions.token_warmup
        if warmup is not None and warmup.steps is not None and warmup.steps > total_steps:
            raise InvalidConfiguration(
                f"{field}.tokenWarmup.steps is {warmup.steps}, but the run has only {total_steps} steps, so some tags "
                "would never be trained; lower it or train longer"
            )


def _captions(dataset: Dataset) -> Iterable[tuple[str, Captions]]:
    """The settings of all captions, each with its path in the YAML file."""
    yield "spec.dataset.captions", dataset.captions
    for number, subset in enumerate(dataset.subsets):
        if subset.captions is not None:
            yield f"spec.dataset.subsets[{number}].captions", subset.captions.applied_to(dataset.captions)


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


def _crop_warnings(pictures: Sequence[PlannedPicture]) -> list[str]:
    cropped = sorted((p for p in pictures if p.crop_loss > _MUCH_CROPPED), key=lambda p: (-p.crop_loss, p.index))
    if not cropped:
        return []
    names = ", ".join(f"{p.name or p.index} ({p.crop_loss:.0%})" for p in cropped[:_SHOWN_NAMES])
    more = f" and {len(cropped) - _SHOWN_NAMES} more" if len(cropped) > _SHOWN_NAMES else ""
    subject = "1 picture loses" if len(cropped) == 1 else f"{len(cropped)} pictures lose"
    return [
        f"{subject} more than {_MUCH_CROPPED:.0%} of the area to cropping: {names}{more}. Crop them yourself, or widen "
        "spec.dataset.buckets.minPx and maxPx."
    ]


def _largest(summaries: Sequence[BucketSummary]) -> tuple[BucketSummary, ...]:
    by_samples = sorted(summaries, key=lambda summary: -summary.samples)[:_STATUS_BUCKETS]
    return tuple(summary for summary in summaries if summary in by_samples)


def _limited(warnings: Sequence[str]) -> tuple[str, ...]:
    if len(warnings) <= _STATUS_WARNINGS:
        return tuple(warnings)
    kept = _STATUS_WARNINGS - 1
    return (*warnings[:kept], f"{len(warnings) - kept} more warnings; `lora plan` shows all of them.")
