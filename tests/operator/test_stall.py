"""lora_operator.stall"""

from datetime import timedelta

import pytest

from lora_api import ProgressReport
from lora_api.status import Progress
from lora_operator.stall import DEFAULT_PATIENCE_SECONDS, Silence, measure_silence
from lora_operator.timestamps import format_time
from tests.support.observations import NOW


def ago(seconds: float) -> str:
    return format_time(NOW - timedelta(seconds=seconds))


def silence(
    report: ProgressReport | None, *, running_since: str | None = None, stall_seconds: int | None = None
) -> Silence | None:
    return measure_silence(report, running_since=running_since, stall_seconds=stall_seconds, now=NOW)


@pytest.mark.parametrize(("seconds", "is_too_long"), [(1800, False), (1801, True)])
def test_the_trainer_says_how_patient_to_be(seconds: int, is_too_long: bool) -> None:
    found = silence(ProgressReport(active_time=ago(seconds), patience_seconds=1800), stall_seconds=60)

    assert found is not None
    assert found.is_too_long is is_too_long


def test_without_its_word_the_spec_says_it() -> None:
    found = silence(ProgressReport(active_time=ago(61)), stall_seconds=60)

    assert found == Silence(ago(61), 61.0, 60)


def test_without_any_word_a_quarter_of_an_hour_is_usual() -> None:
    found = silence(ProgressReport(active_time=ago(10)))

    assert found is not None
    assert found.patience_seconds == DEFAULT_PATIENCE_SECONDS


def test_no_trainer_may_ask_for_more_than_a_day() -> None:
    found = silence(ProgressReport(active_time=ago(90000), patience_seconds=9007199254740991))

    assert found is not None
    assert found.is_too_long


def test_older_trainers_tell_when_they_told_their_progress() -> None:
    found = silence(ProgressReport(progress=Progress(updated_time=ago(100))))

    assert found is not None
    assert found.seconds == 100.0


def test_a_pod_that_never_answered_is_silent_since_it_runs() -> None:
    found = silence(None, running_since=ago(901))

    assert found is not None
    assert found.is_too_long


@pytest.mark.parametrize("report", [ProgressReport(reason="Downloading"), None], ids=["no times", "not running"])
def test_where_nothing_is_known_nobody_is_called_silent(report: ProgressReport | None) -> None:
    running_since = ago(5000) if report else None

    assert silence(report, running_since=running_since) is None
