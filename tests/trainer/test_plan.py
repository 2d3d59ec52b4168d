"""The derived numbers of a run, against worked examples that sd-scripts itself gave."""

import math
from collections import Counter
from dataclasses import replace

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


def mixed_pictures() -> list[PlannedPicture]:
    """Pictures of four shapes in three buckets, ten times each."""
    sizes = [(768, 768)] * 9 + [(512, 768)] * 5 + [(1152, 640)] * 4 + [(640, 896)] * 2
    place = placing((768, 768), Buckets(min_px=320, max_px=1024))
    return [PlannedPicture(index, place(*size).bucket, 10) for index, size in enumerate(sizes)]


@pytest.mark.parametrize(
    ("batch", "accumulation", "batches", "updates", "total"),
    [(1, 1, 200, 200, 2000), (3, 1, 68, 68, 680), (4, 1, 51, 51, 510), (8, 1, 26, 26, 260), (8, 2, 26, 13, 130)],
)
def test_every_bucket_rounds_its_batches_up(
    batch: int, accumulation: int, batches: int, updates: int, total: int
) -> None:
    plan = plan_of(mixed_pictures(), epochs=10, batchSize=batch, gradientAccumulationSteps=accumulation)

    assert {b.size: b.samples for b in plan.buckets} == {(640, 896): 70, (768, 768): 90, (1024, 576): 40}
    assert (plan.batches_per_epoch, plan.steps_per_epoch, plan.total_steps) == (batches, updates, total)


@pytest.mark.parametrize(
    ("batch", "accumulation", "batches", "updates"),
    [(1, 1, 200, 100), (3, 1, 68, 34), (4, 1, 51, 26), (8, 1, 26, 13), (8, 2, 26, 7)],
)
def test_two_processes_share_the_batches_of_a_step(batch: int, accumulation: int, batches: int, updates: int) -> None:
    spec = make_training(
        ("training", {"epochs": 10, "batchSize": batch, "gradientAccumulationSteps": accumulation})
    ).spec

    plan = derive_plan(mixed_pictures(), spec, processes=2)

    assert plan.processes == 2
    assert (plan.batches_per_epoch, plan.steps_per_epoch, plan.total_steps) == (batches, updates, 10 * updates)


@pytest.mark.parametrize(("nodes", "gpus", "processes"), [(1, 0, 1), (1, 1, 1), (1, 4, 4), (3, 2, 6), (3, 0, 3)])
def test_there_is_a_process_for_each_gpu_or_each_node_without(nodes: int, gpus: int, processes: int) -> None:
    # The contract refuses more than one today, so the spec is changed behind its back.
    spec = make_training().spec
    parallelism = spec.parallelism.model_copy(update={"nodes": nodes, "gpus_per_node": gpus})

    assert derive_plan(pictures((10, 1)), spec.model_copy(update={"parallelism": parallelism})).processes == processes


def test_every_one_of_520_regularization_pictures_is_drawn_in_the_first_epoch_already() -> None:
    plan = plan_of(pictures((98, 50), regularization=((520, 20),)), epochs=10)

    drawn = Counter(index for index in plan.buckets[0].samples_of_epoch(1) if index >= 98)
    all_epochs = Counter(index for e in range(1, 11) for index in plan.buckets[0].samples_of_epoch(e) if index >= 98)

    assert len(drawn) == 520
    assert set(drawn.values()) == {9, 10}
    assert max(all_epochs.values()) - min(all_epochs.values()) <= 1


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


def test_pictures_are_drawn_after_steps_that_end_no_epoch_with_pictures_of_its_own() -> None:
    settings = [("samples.prompts", [{"prompt": "a"}]), ("samples.everyEpochs", 2), ("training.epochs", 3)]
    spec = make_training(*settings, ("samples.everySteps", 2), ("training.batchSize", 1)).spec

    plan = derive_plan(pictures((4, 1)), spec)

    assert (plan.steps_per_epoch, plan.sample_epochs) == (4, (0, 2, 3))
    assert plan.sample_steps == {2, 4, 6, 10}


def test_without_prompts_nothing_is_drawn_after_steps() -> None:
    spec = make_training(("samples.everySteps", 2), ("training.epochs", 9)).spec

    assert not derive_plan(pictures((4, 1)), spec).sample_steps


@pytest.mark.parametrize(("step", "epoch"), [(0, 0), (1, 1), (4, 1), (5, 2), (9, 3)])
def test_a_step_belongs_to_the_epoch_that_it_is_made_in(step: int, epoch: int) -> None:
    spec = make_training(("training.epochs", 3), ("training.maxSteps", 9), ("training.batchSize", 1)).spec

    plan = derive_plan(pictures((4, 1)), spec)

    assert plan.epoch_of(step) == epoch
    assert [plan.steps_until(each) for each in range(4)] == [0, 4, 8, 9]


def test_held_out_pictures_are_never_drawn_and_counted_apart() -> None:
    found = pictures((10, 5), regularization=((4, 1),))
    held_out = [replace(picture, is_held_out=picture.index in (2, 7)) for picture in found]

    plan = plan_of(held_out)

    assert (plan.images, plan.held_out_images, plan.regularization_images) == (8, 2, 4)
    drawn = Counter(index for bucket in plan.buckets for index in bucket.samples_of_epoch(1) if index < 10)
    assert drawn == dict.fromkeys((0, 1, 3, 4, 5, 6, 8, 9), 5)


def test_a_dataset_of_regularization_alone_is_refused() -> None:
    with pytest.raises(InvalidDataset, match="no training picture"):
        plan_of(pictures(regularization=((3, 1),)))


def schedule_of(**fields: object) -> tuple[int, int]:
    """(warm-up, decay) of a run of 100 steps."""
    plan = derive_plan(pictures((10, 1)), make_training(("optimizer.schedule", fields)).spec)
    assert plan.total_steps == 100
    return plan.warmup_steps, plan.decay_steps


@pytest.mark.parametrize(
    ("fields", "steps"),
    [
        ({}, (0, 0)),
        ({"warmupSteps": 7}, (7, 0)),
        ({"warmupFraction": 0.1}, (10, 0)),
        ({"warmupFraction": 0.299}, (29, 0)),
        ({"warmupFraction": 0.29}, (29, 0)),
        ({"name": "warmup_stable_decay", "decaySteps": 30}, (0, 30)),
        ({"name": "warmup_stable_decay", "decayFraction": 0.255, "warmupFraction": 0.745}, (74, 25)),
        ({"name": "warmup_stable_decay", "decayFraction": 1.0}, (0, 100)),
    ],
)
def test_shares_of_the_run_become_steps_rounded_down(fields: dict[str, object], steps: tuple[int, int]) -> None:
    assert schedule_of(**fields) == steps


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"warmupSteps": 100}, r"warmupSteps is 100, but the run has only 100 steps; lower it"),
        (
            {"name": "warmup_stable_decay", "warmupSteps": 80, "decaySteps": 30},
            r"warmupSteps is 80 and decaySteps is 30, together more than the 100 steps of the run; lower one",
        ),
        (
            {"name": "warmup_stable_decay", "warmupSteps": 80, "decayFraction": 0.3},
            r"decayFraction is 0.3 \(30 steps\), together more than the 100",
        ),
        (
            {"name": "warmup_stable_decay", "decayFraction": 0.001},
            r"0.001 \(0 steps\), less than one step of 100; raise",
        ),
    ],
)
def test_a_schedule_that_does_not_fit_into_the_run_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidConfiguration, match=rf"spec\.optimizer\.schedule\..*{message}"):
        schedule_of(**fields)


def test_a_token_warm_up_longer_than_the_run_is_refused_in_a_subset_too() -> None:
    subset = {"uri": "s3://lora/a", "captions": {"tokenWarmup": {"steps": 101}}}
    training = make_training(("dataset", {"subsets": [subset]}))

    with pytest.raises(InvalidConfiguration, match=r"spec\.dataset\.subsets\[0\]\.captions\.tokenWarmup\.steps is 101"):
        derive_plan(pictures((10, 1)), training.spec)


def test_pictures_that_lose_much_to_cropping_are_named_worst_first() -> None:
    losses = [0.1, 0.25, 0.6, 0.21, 0.3, 0.4, 0.5]
    found = [
        PlannedPicture(index, SQUARE, 1, crop_loss=loss, name=f"1_x/{index}.png") for index, loss in enumerate(losses)
    ]

    plan = plan_of(found)

    assert plan.warnings == (
        "6 pictures lose more than 20% of the area to cropping: 1_x/2.png (60%), 1_x/6.png (50%), 1_x/5.png (40%), "
        "1_x/4.png (30%), 1_x/1.png (25%) and 1 more. Crop them yourself, or widen spec.dataset.buckets.minPx and "
        "maxPx.",
    )


def test_a_bucket_tells_the_mean_loss_of_its_pictures() -> None:
    found = [PlannedPicture(0, SQUARE, 9, crop_loss=0.1), PlannedPicture(1, SQUARE, 1, crop_loss=0.2)]

    assert plan_of(found).bucket_summaries()[0].crop_loss_percent == 15.0


def test_only_pictures_of_subsets_that_flip_are_mirrored() -> None:
    found = [PlannedPicture(0, SQUARE, 1), PlannedPicture(1, SQUARE, 1, flip=True)]

    assert plan_of(found).mirrored == {1}


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
