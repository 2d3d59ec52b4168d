"""Which pictures are held out: deterministic, by folder, equal pictures on one side."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from lora_trainer.data.example import Example
from lora_trainer.data.holdout import compared, hold_out, measured
from lora_trainer.errors import InvalidConfiguration
from tests.support.placed import make_example


def make_examples(count: int, start: int = 0, **fields: Any) -> list[Example]:
    return [make_example(Path(f"{index}.png"), index, **fields) for index in range(start, start + count)]


def held_out(examples: list[Example], fraction: float | None) -> list[int]:
    return [example.index for example in hold_out(examples, fraction).examples if example.is_held_out]


@pytest.mark.parametrize(("pictures", "expected"), [(7, 0), (8, 2), (20, 2), (25, 2), (30, 3), (160, 16), (500, 16)])
def test_the_default_is_a_tenth_at_least_2_at_most_16_from_8_pictures_on(pictures: int, expected: int) -> None:
    assert len(held_out(make_examples(pictures), None)) == expected


@pytest.mark.parametrize(("fraction", "expected"), [(0.0, 0), (0.01, 2), (0.25, 10), (0.5, 20)])
def test_a_fraction_holds_out_its_share_and_at_least_2(fraction: float, expected: int) -> None:
    assert len(held_out(make_examples(40), fraction)) == expected


def test_the_choice_depends_on_the_pictures_and_not_on_their_order() -> None:
    examples = make_examples(30)

    chosen = {e.sha256 for e in hold_out(examples, None).examples if e.is_held_out}
    turned = {e.sha256 for e in hold_out(examples[::-1], None).examples if e.is_held_out}

    assert chosen == turned


def test_each_folder_gives_in_proportion_to_its_pictures() -> None:
    examples = [*make_examples(40, folder="10_face"), *make_examples(20, 40, folder="5_body")]

    folders = Counter(e.folder for e in hold_out(examples, 0.1).examples if e.is_held_out)

    assert folders == {"10_face": 4, "5_body": 2}


def test_each_folder_keeps_a_picture() -> None:
    examples = [*make_examples(1, folder="1_a"), *make_examples(2, 1, folder="1_b"), *make_examples(2, 3, folder="1_c")]

    trained = {e.folder for e in hold_out(examples, 0.5).examples if not e.is_held_out}

    assert trained == {"1_a", "1_b", "1_c"}


def test_equal_pictures_are_on_one_side() -> None:
    examples = make_examples(20)
    copies = [make_example(e.path, 20 + e.index, folder="1_copy", sha256=e.sha256) for e in examples]

    chosen = held_out([*examples, *copies], 0.2)

    assert len(chosen) == 8
    assert sorted(index + 20 for index in chosen if index < 20) == sorted(index for index in chosen if index >= 20)


def test_regularisation_pictures_are_never_held_out() -> None:
    examples = [*make_examples(10), *make_examples(10, 10, is_regularization=True)]

    assert all(index < 10 for index in held_out(examples, 0.5))


def test_a_picture_that_is_a_regularisation_picture_as_well_is_not_held_out() -> None:
    examples = make_examples(6)
    twins = [make_example(e.path, 6 + e.index, sha256=e.sha256, is_regularization=True) for e in examples[:3]]

    assert all(index >= 3 for index in held_out([*examples, *twins], 0.5))


def test_too_few_pictures_for_the_asked_fraction_are_refused() -> None:
    with pytest.raises(InvalidConfiguration, match=r"spec.dataset.validationFraction is 0.2, but of 2 different"):
        hold_out(make_examples(2), 0.2)


def test_too_few_pictures_for_the_default_are_told() -> None:
    notice = hold_out(make_examples(5), None).notice

    assert notice is not None and notice.startswith("No picture is held out, because there are only 5 different ones")


def test_held_out_pictures_are_named() -> None:
    holdout = hold_out(make_examples(20), None)
    names = ", ".join(example.key for example in holdout.examples if example.is_held_out)

    assert holdout.notice == (
        f"2 of 20 pictures are held out to measure over-fitting and are not trained on: {names}; "
        "spec.dataset.validationFraction: 0 trains on all."
    )


def test_nothing_is_told_where_nothing_is_asked_for() -> None:
    assert hold_out(make_examples(20), 0.0).notice is None


def test_what_is_compared_is_trained_on_and_what_is_measured_is_not() -> None:
    examples = hold_out(make_examples(20), 0.2).examples

    trained, validated = compared(examples, 4), measured(examples, 4)

    assert [len(trained), len(validated)] == [4, 4]
    assert not any(example.is_held_out for example in trained)
    assert all(example.is_held_out for example in validated)


def test_no_more_are_measured_than_asked_for() -> None:
    assert len(measured(hold_out(make_examples(40), 0.5).examples, 3)) == 3
