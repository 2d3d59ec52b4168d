"""The curves of a run as points."""

import numpy as np
import pytest

from lora_trainer.evaluation.measures import Measure
from lora_trainer.report.record import Step
from lora_trainer.report.series import (
    MOST_POINTS,
    drift_series,
    excess_series,
    loss_series,
    measure_series,
    rate_series,
    smoothed,
    standard_error,
    thinned,
)


def measure(epoch: int, **held_out: float) -> Measure:
    return Measure(epoch=epoch, step=epoch, held_out=held_out, training={}, drift=None)


def test_the_error_is_that_of_the_mean() -> None:
    values = [0.9, 1.1, 1.4, 0.7]

    assert standard_error(values) == pytest.approx(np.std(values, ddof=1) / 2)


def test_a_single_picture_has_no_error_that_could_be_told() -> None:
    assert standard_error([0.9]) == 0


def test_smoothing_keeps_a_constant() -> None:
    assert smoothed([2.0] * 100) == pytest.approx([2.0] * 100)


def test_smoothing_is_the_weighted_mean_of_what_was_before() -> None:
    values = np.arange(60.0)
    keep = 1 - 20 / 60

    weights = keep ** np.arange(59, -1, -1)

    assert smoothed(list(values))[-1] == pytest.approx((weights * values).sum() / weights.sum())


def test_a_thinned_curve_keeps_its_peak_and_both_ends() -> None:
    points = [(float(x), 0.0) for x in range(10_000)]
    points[6789] = (6789.0, 5.0)

    kept = thinned(points)

    assert len(kept) <= MOST_POINTS
    assert (6789.0, 5.0) in kept
    assert (kept[0], kept[-1]) == (points[0], points[-1])
    assert list(kept) == sorted(kept)


def test_a_short_curve_is_not_thinned() -> None:
    points = [(float(x), 1.0) for x in range(MOST_POINTS)]

    assert thinned(points) == tuple(points)


def test_held_out_loss_is_the_mean_over_pictures() -> None:
    series = measure_series([measure(0, a=1.0, b=1.0), measure(1, a=0.5, b=0.7)])

    assert [one.name for one in series] == ["line_held_out"]
    assert list(series[0].points[1]) == pytest.approx([1.0, 0.6])
    assert list(series[0].errors) == pytest.approx([0.0, 0.1])


def test_epochs_are_compared_with_the_best_one_picture_by_picture() -> None:
    measures = [measure(0, a=1.0, b=1.0), measure(1, a=0.5, b=0.7), measure(2, a=0.4, b=0.6), measure(3, a=0.7, b=0.7)]

    (series,) = excess_series(measures, best_epoch=2)

    # The best one's loss is 0.5; the differences are 0.1 and 0.1, then 0.3 and 0.1.
    assert [x for x, _ in series.points] == [1, 2, 3]
    assert [y for _, y in series.points] == pytest.approx([20.0, 0.0, 40.0])
    assert list(series.errors) == pytest.approx([0.0, 0.0, 20.0], abs=1e-9)


@pytest.mark.parametrize("epochs", [1, 3])
def test_nothing_is_compared_without_a_best_epoch_or_with_a_single_picture(epochs: int) -> None:
    pairs = [measure(epoch, a=0.5, b=0.7) for epoch in range(1, epochs + 1)]
    single = [measure(epoch, a=0.5) for epoch in range(1, epochs + 1)]

    assert excess_series(pairs, best_epoch=0) == ()
    assert excess_series(single, best_epoch=1) == ()
    assert len(excess_series(pairs, best_epoch=1)) == (epochs > 1)


def test_what_was_not_measured_has_no_curve() -> None:
    assert (measure_series([measure(1)]), drift_series([measure(1)]), loss_series([])) == ((), (), ())


def test_parts_with_equal_rates_share_a_curve() -> None:
    steps = [Step(1, 0.1, {"unet": 1e-3, "a": 5e-4, "b": 5e-4})]

    assert [one.name for one in rate_series(steps)] == ["unet", "a, b"]
