"""The derived numbers of a run, against worked examples that sd-scripts itself gave."""

import math
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_api.dataset_spec import Buckets
from lora_trainer.data.buckets import placing
from lora_trainer.errors import InvalidConfiguration, InvalidDataset
from lora_trainer.plan import PlannedPicture, TrainingPlan, derive_plan
from tests.support.documents import make_training

SQUARE = (768, 768)


def pictures(*folders: tuple[int, int], regularization: tuple[tuple[int, int], ...] = ()) -> list[PlannedPicture]:
    """Folders of (pictures, repeats), all in one bucket."""
    rows = [(repeats, False) for count, repeats in folders for _ in range(count)]
    rows += [(repeats, True) for count, repeats in regularization for _ in range(count)]
    return [PlannedPicture(index, SQUARE, repeats, is_reg) for index, (repeats, is_reg) in enumerate(rows)]


def plan_of(found: list[PlannedPicture], **training: int) -> TrainingPlan:
    changes = [(f"training.{name}", value) for name, value in training.items()]
    return derive_plan(found, make_training(*changes).spec)


@pytest.mark.parametrize(("batch", "steps_per_epoch"), [(1, 9800), (2, 4900), (4, 2450)])
def test_98_pictures_50_times_with_520_regularization_pictures(batch: int, steps_per_epoch: int) -> None:
    plan = plan_of(pictures((98, 50), regularization=((520, 20),)), epochs=10, batchSize=batch)

    assert (plan.samples_per_epoch, plan.steps_per_epoch, plan.total_steps) == (
        9800,
        steps_per_epoch,
        10 * steps_per_epoch,
    )


@pytest.mark.parametrize(("batch", "total"), [(1, 48000), (2, 24000), (4, 12000)])
def test_two_concepts_with_a_thousand_regularization_pictures(batch: int, total: int) -> None:
    found = pictures((20, 100), (50, 20), regularization=((500, 5), (500, 5)))

    assert plan_of(found, epochs=8, batchSize=batch).total_steps == total


@pytest.mark.parametrize(
    ("batch", "accumulation", "batches", "updates", "total"),
    [(1, 1, 200, 200, 2000), (3, 1, 68, 68, 680), (4, 1, 51, 51, 510), (8, 1, 26, 26, 260), (8, 2, 26, 13, 130)],
)
def test_every_bucket_rounds_its_batches_up(
    batch: int, accumulation: int, batches: int, updates: int, total: int
) -> None:
    sizes = [(768, 768)] * 9 + [(512, 768)] * 5 + [(1152, 640)] * 4 + [(640, 896)] * 2
    place = placing((768, 768), Buckets(min_px=320, max_px=1024))
    found = [PlannedPicture(index, place(*size).bucket, 10) for index, size in enumerate(sizes)]

    plan = plan_of(found, epochs=10, batchSize=batch, gradientAccumulationSteps=accumulation)

    assert {b.size: b.samples for b in plan.buckets} == {(640, 896): 70, (768, 768): 90, (1024, 576): 40}
    assert (plan.batches_per_epoch, plan.steps_per_epoch, plan.total_steps) == (batches, updates, total)


def test_few_regularization_pictures_are_repeated_evenly() -> None:
    plan = plan_of(pictures((30, 10), regularization=((7, 1),)))

    drawn = Counter(index for index in plan.buckets[0].samples_of_epoch(1) if index >= 30)

    assert sum(drawn.values()) == 300
    assert set(drawn.values()) == {42, 43}


def test_epochs_take_turns_until_every_regularization_picture_was_drawn() -> None:
    plan = plan_of(pictures((2, 5), regularization=((30, 1),)), epochs=3)
    drawn = [index for epoch in (1, 2, 3) for index in plan.buckets[0].samples_of_epoch(epoch) if index >= 2]

    assert Counter(drawn) == Counter(range(2, 32))
    assert plan.warnings == ()


def test_regularization_pictures_that_are_never_drawn_are_a_warning() -> None:
    plan = plan_of(pictures((2, 5), regularization=((30, 1),)), epochs=2)

    assert len(plan.warnings) == 1
    assert plan.warnings[0].startswith("10 of 30 regularisation pictures are never drawn")


def test_regularization_is_shared_among_buckets_by_their_size() -> None:
    found = [PlannedPicture(0, (512, 512), 10)]
    found += [PlannedPicture(index, (512, 512), 1, True) for index in range(1, 4)]
    found += [PlannedPicture(index, (384, 640), 1, True) for index in range(4, 5)]

    plan = plan_of(found)

    assert {b.size: b.regularization_samples for b in plan.buckets} == {(384, 640): 3, (512, 512): 7}


def test_the_steps_limit_cuts_the_last_epoch() -> None:
    plan = plan_of(pictures((10, 1)), epochs=5, maxSteps=24)

    assert (plan.total_steps, plan.epochs) == (24, 3)
    assert [plan.steps_in_epoch(epoch) for epoch in (1, 2, 3, 4)] == [10, 10, 4, 0]


def test_the_last_epoch_is_always_saved() -> None:
    spec = make_training(("training.epochs", 7), ("checkpoints.everyEpochs", 3)).spec

    assert derive_plan(pictures((1, 1)), spec).save_epochs == (3, 6, 7)


def test_pictures_are_drawn_before_the_first_step_and_only_with_prompts() -> None:
    with_prompts = make_training(("training.epochs", 2), ("samples.prompts", [{"prompt": "a"}])).spec
    without = make_training(("training.epochs", 2)).spec

    assert derive_plan(pictures((1, 1)), with_prompts).sample_epochs == (0, 1, 2)
    assert derive_plan(pictures((1, 1)), without).sample_epochs == ()


def test_a_dataset_of_regularization_alone_is_refused() -> None:
    with pytest.raises(InvalidDataset, match="no training picture"):
        plan_of(pictures(regularization=((3, 1),)))


def test_a_warm_up_as_long_as_the_run_is_refused() -> None:
    spec = make_training(("training.epochs", 1), ("optimizer.schedule.warmupSteps", 5)).spec

    with pytest.raises(InvalidConfiguration, match=r"warmupSteps is 5, but the run has only 5 steps; lower it"):
        derive_plan(pictures((5, 1)), spec)


def test_the_status_holds_at_most_128_buckets_and_says_so() -> None:
    found = [PlannedPicture(index, (64 + 8 * index, 64), 1 + index) for index in range(130)]

    status = plan_of(found).to_status()

    assert len(status.buckets) == 128
    assert status.buckets[0].width_px == 64 + 8 * 2
    assert status.warnings == ("2 smaller buckets are not shown; `lora plan` shows all of them.",)


def test_more_than_16_warnings_are_counted() -> None:
    plan = derive_plan(pictures((1, 1)), make_training().spec, warnings=[f"w{n}" for n in range(20)])

    assert plan.to_status().warnings[-2:] == ("w14", "5 more warnings; `lora plan` shows all of them.")


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.sampled_from([(64, 64), (64, 128), (128, 64)]), st.integers(1, 9), st.booleans()),
        min_size=1,
        max_size=25,
    ),
    batch=st.integers(1, 5),
    accumulation=st.integers(1, 4),
    epoch=st.integers(1, 4),
)
def test_every_epoch_has_the_planned_counts(
    rows: list[tuple[tuple[int, int], int, bool]], batch: int, accumulation: int, epoch: int
) -> None:
    found = [PlannedPicture(index, size, repeats, is_reg) for index, (size, repeats, is_reg) in enumerate(rows)]
    train = sum(picture.repeats for picture in found if not picture.is_regularization)
    has_reg = any(picture.is_regularization for picture in found)
    if not train:
        return
    plan = plan_of(found, batchSize=batch, gradientAccumulationSteps=accumulation)

    drawn = Counter(index for bucket in plan.buckets for index in bucket.samples_of_epoch(epoch))

    assert all(drawn[p.index] == p.repeats for p in found if not p.is_regularization)
    assert sum(drawn.values()) == train * (2 if has_reg else 1)
    assert plan.batches_per_epoch == sum(math.ceil(bucket.samples / batch) for bucket in plan.buckets)
