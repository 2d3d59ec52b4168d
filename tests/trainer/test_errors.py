"""Every error says who must act, by its exit code."""

import pytest

from lora_api.exit_codes import outcome_of
from lora_trainer import errors

CLASSES = errors.TrainingError.__subclasses__()


@pytest.mark.parametrize("error", CLASSES, ids=lambda error: error.__name__)
def test_an_error_carries_the_reason_and_hint_of_its_exit_code(error: type[errors.TrainingError]) -> None:
    raised = error("what is wrong")

    assert str(raised) == "what is wrong"
    assert raised.reason == error.__name__ == outcome_of(error.exit_code).reason
    assert raised.hint == outcome_of(error.exit_code).hint


def test_no_two_errors_share_an_exit_code() -> None:
    assert len({error.exit_code for error in CLASSES}) == len(CLASSES) == 10


def test_an_error_may_know_a_better_hint() -> None:
    assert errors.InvalidDataset("x", hint="Do this.").hint == "Do this."


def test_of_many_problems_twenty_are_shown_and_the_others_counted() -> None:
    error = errors.InvalidDataset.listing([f"p{number}" for number in range(23)])

    lines = str(error).splitlines()
    assert lines[0] == "the dataset has 23 problems:"
    assert lines[1:21] == [f"- p{number}" for number in range(20)]
    assert lines[21:] == ["- and 3 more"]
