"""Batches are a function of (plan, epoch, seed), and every sample comes exactly as often as planned."""

from collections import Counter

from lora_trainer.data.sampler import Batch, batches_of_epoch, steps_of_epoch
from lora_trainer.plan import PlannedPicture, TrainingPlan, derive_plan
from tests.support.documents import make_training


def make_plan(variants: int | None = None, **training: int) -> TrainingPlan:
    found = [PlannedPicture(index, (64, 64) if index % 3 else (64, 128), 4, flip=True) for index in range(20)]
    found += [PlannedPicture(index, (64, 64), 1, True) for index in range(20, 30)]
    changes = [(f"training.{name}", value) for name, value in training.items()]
    if variants is not None:
        changes += [("dataset.augmentation.color", True), ("dataset.latentVariants", variants)]
    return derive_plan(found, make_training(*changes).spec)


def drawn(batches: list[Batch]) -> Counter[int]:
    return Counter(draw.example_index for batch in batches for draw in batch.draws)


def test_every_sample_comes_as_often_as_planned() -> None:
    plan = make_plan(batchSize=3)
    planned = Counter(index for bucket in plan.buckets for index in bucket.samples_of_epoch(2))

    assert drawn(batches_of_epoch(plan, 2, seed=1)) == planned


def test_a_batch_holds_one_bucket_only() -> None:
    plan = make_plan(batchSize=4)
    bucket_of = {index: bucket.size for bucket in plan.buckets for index in bucket.samples_of_epoch(1)}

    batches = batches_of_epoch(plan, 1, seed=1)

    assert all({bucket_of[draw.example_index] for draw in batch.draws} == {batch.bucket} for batch in batches)
    assert len(batches) == plan.batches_per_epoch


def test_the_same_seed_and_epoch_give_the_same_batches() -> None:
    plan = make_plan(batchSize=2)

    assert batches_of_epoch(plan, 3, seed=5) == batches_of_epoch(plan, 3, seed=5)


def test_epochs_and_seeds_differ_in_order() -> None:
    plan = make_plan(batchSize=2)
    orders = [batches_of_epoch(plan, epoch, seed) for epoch, seed in ((1, 5), (2, 5), (1, 6))]

    assert orders[0] != orders[1]
    assert orders[0] != orders[2]


def test_about_half_of_the_draws_are_mirrored_and_only_where_it_is_wanted() -> None:
    plan = make_plan()
    draws = [d for epoch in range(1, 6) for b in batches_of_epoch(plan, epoch, seed=0) for d in b.draws]
    flips = [draw.flipped for draw in draws if draw.example_index < 20]

    # 400 draws: five standard deviations are 50.
    assert len(flips) == 400
    assert abs(sum(flips) - 200) < 50
    assert not any(draw.flipped for draw in draws if draw.example_index >= 20)


def test_draws_count_how_often_the_epoch_drew_their_picture() -> None:
    draws = [draw for batch in batches_of_epoch(make_plan(), 2, seed=0) for draw in batch.draws]

    counted = {index: sorted(d.occurrence for d in draws if d.example_index == index) for index in range(20)}

    assert counted == {index: [0, 1, 2, 3] for index in range(20)}


def test_draws_choose_among_the_variants_evenly() -> None:
    plan = make_plan(variants=4)

    draws = [d for epoch in range(1, 11) for b in batches_of_epoch(plan, epoch, seed=0) for d in b.draws]

    counts = Counter(draw.variant for draw in draws)
    # 1600 draws over 4 variants: 400 each with a standard deviation of 17.3; five of them are 87.
    assert set(counts) == {0, 1, 2, 3}
    assert max(abs(count - 400) for count in counts.values()) < 87


def test_there_is_one_variant_unless_several_are_kept() -> None:
    assert {draw.variant for batch in batches_of_epoch(make_plan(), 1, seed=0) for draw in batch.draws} == {0}


def test_a_step_holds_the_batches_of_all_processes() -> None:
    found = [PlannedPicture(index, (64, 64), 1) for index in range(13)]
    plan = derive_plan(found, make_training(("training.gradientAccumulationSteps", 2)).spec, processes=2)

    steps = steps_of_epoch(plan, 1, seed=0)

    assert [len(step) for step in steps] == [4, 4, 4, 1]
    assert len(steps) == plan.steps_per_epoch


def test_every_picture_of_the_98_and_520_is_drawn_as_often_as_planned_in_each_epoch() -> None:
    found = [PlannedPicture(index, (64, 64), 50) for index in range(98)]
    found += [PlannedPicture(index, (64, 64), 20, True) for index in range(98, 618)]
    plan = derive_plan(found, make_training(("training.epochs", 10)).spec)

    for epoch in (1, 2):
        counts = drawn(batches_of_epoch(plan, epoch, seed=7))
        assert all(counts[index] == 50 for index in range(98))
        assert {counts[index] for index in range(98, 618)} == {9, 10}
        assert sum(counts.values()) == 9800


def test_the_last_accumulation_of_an_epoch_may_be_shorter() -> None:
    plan = make_plan(batchSize=16, gradientAccumulationSteps=4)

    steps = steps_of_epoch(plan, 1, seed=0)

    assert [len(step) for step in steps] == [4, 4, 3]
    assert len(steps) == plan.steps_per_epoch
    assert [batch for step in steps for batch in step] == batches_of_epoch(plan, 1, seed=0)


def test_the_steps_limit_ends_the_last_epoch_early() -> None:
    full, cut = make_plan(epochs=2), make_plan(epochs=2, maxSteps=170)

    assert steps_of_epoch(cut, 2, seed=0) == steps_of_epoch(full, 2, seed=0)[:10]
