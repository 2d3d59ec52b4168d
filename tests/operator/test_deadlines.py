"""lora_operator.deadlines"""

from typing import Any

import pytest

from lora_api import LoraTrainingSpec
from lora_api.status import Attempts
from lora_operator.attempts import JOB_PATIENCE_SECONDS, seconds_to_run
from lora_operator.deadlines import seconds_to_next, seconds_to_start
from lora_operator.timestamps import format_time
from tests.support.documents import make_training
from tests.support.observations import NOW, moment

A_MINUTE_AGO = format_time(moment(-60))


def spec(*changes: tuple[str, Any]) -> LoraTrainingSpec:
    return make_training(*changes).spec


RUN = spec(("limits.activeSeconds", 600))
START = spec(("scheduling.startDeadlineSeconds", 90))


@pytest.mark.parametrize(
    ("attempts", "left"),
    [
        (Attempts(), 600),
        (Attempts(active_seconds=500), 100),
        (Attempts(active_seconds=700), -100),
        (Attempts(active_seconds=500, active_since=A_MINUTE_AGO), 40 + JOB_PATIENCE_SECONDS),
    ],
    ids=["unused", "between two attempts", "used up", "running"],
)
def test_running_time_is_that_of_all_attempts(attempts: Attempts, left: float) -> None:
    assert seconds_to_run(RUN, attempts, NOW) == left


def test_without_limits_nothing_is_ever_over() -> None:
    attempts = Attempts(active_since=A_MINUTE_AGO, waiting_since=A_MINUTE_AGO)

    assert (seconds_to_run(spec(), attempts, NOW), seconds_to_start(spec(), attempts, NOW)) == (None, None)


@pytest.mark.parametrize(("since", "left"), [(A_MINUTE_AGO, 30), (None, None)], ids=["waiting", "not waiting"])
def test_the_start_is_waited_for_as_long_as_the_spec_says(since: str | None, left: float | None) -> None:
    assert seconds_to_start(START, Attempts(waiting_since=since), NOW) == left


def test_the_nearest_deadline_is_looked_at_next() -> None:
    both = spec(("limits.activeSeconds", 600), ("scheduling.startDeadlineSeconds", 90))

    assert seconds_to_next(both, Attempts(active_since=A_MINUTE_AGO, waiting_since=A_MINUTE_AGO), NOW) == 30


def test_running_time_that_does_not_pass_needs_no_look() -> None:
    assert seconds_to_next(RUN, Attempts(active_seconds=599), NOW) is None
