"""Which examples make up each batch of an epoch: a function of (plan, epoch, seed), so there is nothing to save.

Read by the loop. Order and mirroring come from hashes instead of a generator: they depend neither on the
number of workers nor on what was drawn before.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lora_trainer.plan import Bucket, PlannedBucket, TrainingPlan
from lora_trainer.rng import Purpose, derive_seed


@dataclass(frozen=True)
class Draw:
    """One picture in a batch."""

    example_index: int
    occurrence: int
    """How often the epoch drew the picture before."""
    flipped: bool
    variant: int
    """Which of the plan's versions of the picture."""


@dataclass(frozen=True)
class Batch:
    """Pictures of one bucket that go through the model together."""

    draws: tuple[Draw, ...]
    bucket: Bucket


Step = tuple[Batch, ...]
"""The batches whose gradients make up one update."""


def batches_of_epoch(plan: TrainingPlan, epoch: int, seed: int) -> list[Batch]:
    """All batches of `epoch` (from 1), shuffled: first the samples of each bucket, then the batches.

    Every sample occurs exactly as often as the plan says. The last batch of a bucket may be smaller.
    """
    batches = [batch for bucket in plan.buckets for batch in _batches_of_bucket(plan, bucket, epoch, seed)]
    places = {index: derive_seed(seed, Purpose.ORDER, epoch, "batch", index) for index in range(len(batches))}
    return [batches[index] for index in sorted(places, key=places.__getitem__)]


def steps_of_epoch(plan: TrainingPlan, epoch: int, seed: int) -> list[Step]:
    """The steps of `epoch` (from 1), cut where `maxSteps` ends the run; the last may have fewer batches."""
    groups = accumulation_groups(batches_of_epoch(plan, epoch, seed), plan.accumulation * plan.processes)
    return list(groups)[: plan.steps_in_epoch(epoch)]


def share_of(step: Step, rank: int, processes: int) -> Step:
    """The batches of a step that process `rank` computes: every so many, as accelerate deals them out to sd-scripts.

    The number of its i-th batch within the step is rank + i * processes; all that is random in a batch depends on that
    number, so who computes it changes nothing.
    """
    return step[rank::processes]


def accumulation_groups(batches: Sequence[Batch], accumulation: int) -> Iterator[Step]:
    """`batches` in groups of `accumulation`, the last one maybe shorter."""
    for start in range(0, len(batches), accumulation):
        yield tuple(batches[start : start + accumulation])


def _batches_of_bucket(plan: TrainingPlan, bucket: PlannedBucket, epoch: int, seed: int) -> Iterator[Batch]:
    numbered: list[tuple[int, Draw]] = []
    seen: Counter[int] = Counter()
    for index in bucket.samples_of_epoch(epoch):
        occurrence = seen[index]
        seen[index] += 1
        place = derive_seed(seed, Purpose.ORDER, epoch, "sample", index, occurrence)
        flipped = index in plan.mirrored and derive_seed(seed, Purpose.FLIP, epoch, index, occurrence) % 2 == 1
        variant = derive_seed(seed, Purpose.VARIANT, epoch, index, occurrence) % plan.variants
        numbered.append((place, Draw(index, occurrence, flipped, variant)))
    draws = [draw for _, draw in sorted(numbered, key=lambda pair: pair[0])]
    for start in range(0, len(draws), plan.batch_size):
        yield Batch(tuple(draws[start : start + plan.batch_size]), bucket.size)
