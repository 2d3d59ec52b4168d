"""lora_operator.summary"""

import pytest

from lora_api.status import Attempts, Checkpoint, EvaluationStatus, Progress, Summary
from lora_operator.summary import derive_summary, format_duration


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0s"),
        (12, "12s"),
        (60, "1m"),
        (270, "4m 30s"),
        (3600, "1h"),
        (3900, "1h 5m"),
        (3605, "1h"),
        (90000, "1d 1h"),
        (10**7, "115d 17h"),
    ],
)
def test_durations_are_told_in_their_two_largest_units(seconds: int, words: str) -> None:
    assert format_duration(seconds) == words


@pytest.mark.parametrize(
    ("loss", "rate", "words"),
    [
        (1e300, 1e300, ("1.00e+300", "1e+300/s")),
        (-1e300, 1e-300, ("-1.00e+300", "0.0/s")),
        (12.5, 0.01, ("12.5000", "100.0s/step")),
    ],
)
def test_numbers_of_any_size_fit_their_columns(loss: float, rate: float, words: tuple[str, str]) -> None:
    summary = derive_summary(Progress(loss=loss, steps_per_second=rate), None)

    assert (summary.loss, summary.rate) == words


def test_the_columns_tell_how_far_it_is() -> None:
    progress = Progress(
        step=310, total_steps=1000, epoch=3, total_epochs=10, percent=31, loss=0.09123, steps_per_second=2.44,
        remaining_seconds=3900,
    )  # fmt: skip
    best = Checkpoint(epoch=2, step=200, uri="s3://b/x", sha256="0", size_bytes=1)

    summary = derive_summary(progress, Attempts(number=2, failures=1, preemptions=3), best=best)

    assert summary == Summary(
        epoch="3/10", progress="31%", loss="0.0912", left="1h 5m", best="2", step="310/1000", rate="2.4/s",
        attempts="2, 1 failed, 3 interrupted",
    )  # fmt: skip


def test_what_is_not_known_is_left_empty() -> None:
    assert derive_summary(None, None) == Summary()


@pytest.mark.parametrize(("rate", "words"), [(0.02, "50.0s/step"), (0.0, "0.0/s"), (12.34, "12.3/s")])
def test_slow_runs_are_told_in_seconds_a_step(rate: float, words: str) -> None:
    assert derive_summary(Progress(steps_per_second=rate), None).rate == words


@pytest.mark.parametrize(
    ("evaluation", "words"),
    [
        (EvaluationStatus(best_epoch=7, confidence="High"), "7"),
        (EvaluationStatus(best_epoch=7, confidence="Low"), "7?"),
        (EvaluationStatus(best_epoch=0), "0"),
        (EvaluationStatus(), "3"),
    ],
)
def test_a_best_epoch_that_is_not_sure_is_marked(evaluation: EvaluationStatus, words: str) -> None:
    best = Checkpoint(epoch=3, step=30, uri="s3://b/a", sha256="0" * 64, size_bytes=1)

    assert derive_summary(None, None, best=best, evaluation=evaluation).best == words
