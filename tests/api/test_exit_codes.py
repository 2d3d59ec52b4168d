"""lora_api.exit_codes: the one table."""

import pytest

from lora_api import OUTCOMES, ExitCode, codes_with, outcome_of


def test_every_exit_code_has_exactly_one_row() -> None:
    assert sorted(o.code for o in OUTCOMES if o.code is not None) == sorted(int(code) for code in ExitCode)


def test_only_success_has_no_policy() -> None:
    assert [o.code for o in OUTCOMES if o.policy is None] == [0]


@pytest.mark.parametrize(
    ("policy", "codes"),
    [("FailJob", (64, 65, 66, 70, 71, 77)), ("Ignore", (75, 76, 143)), ("Count", (69, 72, 137))],
)
def test_policies_are_those_of_the_design(policy: str, codes: tuple[int, ...]) -> None:
    assert codes_with(policy) == codes  # type: ignore[arg-type]


def test_an_unknown_code_is_a_crash() -> None:
    assert outcome_of(1).reason == "TrainerCrashed"
    assert outcome_of(139).actor == "us"


def test_every_row_says_what_to_do() -> None:
    assert all(outcome.hint.endswith(".") for outcome in OUTCOMES)
