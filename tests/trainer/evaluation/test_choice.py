"""The best epoch of hand-made curves, and the statistics against numpy."""

import math
from collections.abc import Sequence

import numpy as np
import pytest

from lora_trainer.evaluation.choice import choose, knee, overtrained_in_a_row, paired_difference
from lora_trainer.evaluation.measures import Measure

_SPREAD = (-0.3, 0.1, 0.2, 0.0)
"""How far single pictures lie from the mean: much further than epochs lie apart."""


def make_measures(
    held_out: Sequence[float], training: Sequence[float] | None = None, *, noise: float = 0.001, pictures: int = 4
) -> list[Measure]:
    """Curves from epoch 0 on; each picture follows the mean up to a little `noise` of its own."""
    rng = np.random.default_rng(5)
    training = training or [1 - 0.05 * epoch for epoch in range(len(held_out))]
    measures = []
    for epoch, (validated, trained) in enumerate(zip(held_out, training, strict=True)):
        own = rng.normal(0, noise, pictures)
        own -= own.mean()
        losses = {f"{i}.png": validated + _SPREAD[i % 4] + float(own[i]) for i in range(pictures)}
        measures.append(Measure(epoch, 10 * epoch, losses, {"a.png": trained}, drift=0.01 * epoch))
    return measures


def test_the_paired_difference_and_its_error_are_those_of_numpy() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(1, 0.2, 12), rng.normal(0.9, 0.2, 12)
    names = [str(i) for i in range(12)]

    found = paired_difference(dict(zip(names, first, strict=True)), dict(zip(names, second, strict=True)))

    differences = first - second
    assert found.mean == pytest.approx(np.mean(differences), rel=1e-12)
    assert found.error == pytest.approx(np.std(differences, ddof=1) / np.sqrt(12), rel=1e-12)


def test_of_one_picture_the_error_is_unknown() -> None:
    assert paired_difference({"a": 1.0}, {"a": 0.5}).error == math.inf


def test_the_lowest_epoch_is_best_where_errors_are_small() -> None:
    status = choose(make_measures([1.0, 0.9, 0.8, 0.7, 0.8, 0.9], noise=1e-5))

    assert status.best_epoch == 3


def test_an_earlier_epoch_within_one_standard_error_is_best() -> None:
    measures = make_measures([1.0, 0.9, 0.7004, 0.7, 0.7002], noise=0.01)
    values = np.array([list(measure.held_out.values()) for measure in measures])
    differences = values[2] - values[3]
    assert differences.mean() < differences.std(ddof=1) / 2, "the case is not the one that is meant"

    assert choose(measures).best_epoch == 2


def test_the_usable_window_ends_with_the_last_epoch_below_the_base() -> None:
    status = choose(make_measures([1.0, 0.9, 0.8, 0.7, 0.8, 0.99, 1.2], noise=1e-5))

    assert (status.usable_from, status.usable_to) == (3, 5)


def test_over_fitting_begins_where_held_out_pictures_get_worse_while_trained_ones_get_better() -> None:
    status = choose(make_measures([1.0, 0.8, 0.7, 0.75, 0.8, 0.85], noise=0.001))

    assert status.overfit_from == 3
    assert "Over-trained from epoch 3 on" in status.message


def test_a_rise_from_which_the_training_recovered_is_no_over_fitting() -> None:
    status = choose(make_measures([1.0, 0.8, 0.9, 0.92, 0.7], noise=1e-5))

    assert (status.best_epoch, status.overfit_from) == (4, None)


def test_no_epoch_worse_than_the_base_is_best_while_another_is_better() -> None:
    measures = [Measure(1, 1, {"a": 1.3, "b": 0.75}, {}, None), Measure(2, 2, {"a": 0.9, "b": 0.95}, {}, None)]

    status = choose(measures)

    assert (status.best_epoch, status.usable_from, status.usable_to) == (2, 2, 2)


def test_an_adapter_that_changes_nothing_has_no_gain() -> None:
    status = choose([Measure(1, 1, {"a": 1.0, "b": 1.0}, {}, None)])

    assert "best: 0.0% more loss, no gain at all" in status.message


def test_the_newest_epochs_training_loss_and_drift_are_told() -> None:
    measures = [Measure(1, 1, {"a": 0.9}, {"b": 0.8, "c": 0.6}, 0.1), Measure(2, 2, {"a": 0.9}, {"b": 0.5}, 1 / 3)]

    status = choose(measures)

    assert (status.training_loss, status.drift) == (0.5, 0.3333333)


def test_a_single_bad_epoch_is_no_over_fitting() -> None:
    assert choose(make_measures([1.0, 0.8, 0.7, 0.75, 0.69, 0.68])).overfit_from is None


def test_a_rise_within_the_error_is_no_over_fitting() -> None:
    assert choose(make_measures([1.0, 0.8, 0.7, 0.701, 0.702, 0.703], noise=0.02)).overfit_from is None


def test_a_rise_of_both_losses_is_no_over_fitting() -> None:
    held_out = [1.0, 0.8, 0.7, 0.75, 0.8, 0.85]

    assert choose(make_measures(held_out, held_out)).overfit_from is None


def test_without_trained_pictures_held_out_ones_tell_alone() -> None:
    measures = [
        Measure(m.epoch, m.step, m.held_out, {}, m.drift) for m in make_measures([1.0, 0.8, 0.7, 0.75, 0.8, 0.85])
    ]

    assert choose(measures).overfit_from == 3


@pytest.mark.parametrize(
    ("held_out", "pictures", "expected"),
    [
        ([1.0, 0.8, 0.7, 0.8], 4, "High"),
        ([1.0, 0.8, 0.7, 0.8], 2, "Medium"),
        ([1.0, 0.8, 0.7, 0.6], 4, "Medium"),
        ([1.0, 1.1, 1.2, 1.3], 4, "Low"),
    ],
)
def test_confidence_follows_from_pictures_and_curve(held_out: list[float], pictures: int, expected: str) -> None:
    assert choose(make_measures(held_out, noise=1e-5, pictures=pictures)).confidence == expected


def test_no_window_is_named_where_nothing_beats_the_base() -> None:
    status = choose(make_measures([1.0, 1.1, 1.2, 1.3], noise=1e-5))

    assert (status.best_epoch, status.usable_from, status.usable_to) == (1, None, None)


def test_the_number_of_held_out_pictures_is_told() -> None:
    assert choose(make_measures([1.0, 0.9])).held_out_images == 4


def test_nothing_is_chosen_before_the_first_epoch() -> None:
    status = choose(make_measures([1.0]))

    assert (status.best_epoch, status.confidence) == (None, None)


def make_unvalidated(gains: Sequence[float], drifts: Sequence[float | None]) -> list[Measure]:
    return [
        Measure(epoch, epoch, {}, {"a.png": 1 - gain}, drift)
        for epoch, (gain, drift) in enumerate(zip(gains, drifts, strict=True))
    ]


def test_without_held_out_pictures_the_knee_of_gain_against_drift_is_best() -> None:
    gains, drifts = [0.0, 0.3, 0.45, 0.5, 0.52], [0.0, 0.01, 0.02, 0.05, 0.09]

    status = choose(make_unvalidated(gains, drifts))

    # Distance from the chord through the origin and the last point, by the formula for a point and a line.
    heights = drifts[-1] * np.array(gains) - gains[-1] * np.array(drifts)
    assert status.best_epoch == int(np.argmax(heights[1:])) + 1 == 2
    assert (status.confidence, status.held_out_images) == ("Low", 0)


def test_without_any_gain_the_epoch_that_drifted_least_is_the_knee() -> None:
    measures = make_unvalidated([0.0, -0.1, -0.2], [0.0, 0.02, 0.01])

    assert knee(measures[1:]).epoch == 2


def test_without_drift_and_held_out_pictures_nothing_is_chosen() -> None:
    status = choose(make_unvalidated([0.0, 0.1], [None, None]))

    assert status.best_epoch is None
    assert status.message == "No epoch is chosen: nothing is held out and drift is not measured."


@pytest.mark.parametrize(
    ("held_out", "expected"), [([1.0, 0.7, 0.8, 0.9], 2), ([1.0, 0.7, 0.8, 0.65], 0), ([1.0, 0.9, 0.8, 0.7], 0)]
)
def test_patience_counts_the_last_over_trained_epochs(held_out: list[float], expected: int) -> None:
    assert overtrained_in_a_row(make_measures(held_out)) == expected
