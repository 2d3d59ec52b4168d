"""Tags of a caption: what stays, what may move."""

import pytest

from lora_api.dataset_spec import Captions
from lora_trainer.data.tags import Tags, tags_of


def flexible(caption: str, **rules: object) -> tuple[str, ...]:
    return tags_of(caption, Captions(**rules)).flexible


@pytest.mark.parametrize(
    ("caption", "tags"),
    [("a,b , c", ("a", "b", "c")), ("a,, b,", ("a", "b")), ("", ()), (" , ", ()), ("one two", ("one two",))],
)
def test_tags_come_without_blanks_and_empty_ones(caption: str, tags: tuple[str, ...]) -> None:
    assert flexible(caption) == tags


def test_the_first_tags_are_kept() -> None:
    assert tags_of("a, b, c", Captions(keep_tokens=2)) == Tags(("a", "b"), ("c",), ())


def test_a_marker_in_the_caption_counts_instead_of_the_number() -> None:
    rules = Captions(keep_tokens=3, keep_tokens_separator="|||")

    assert tags_of("a ||| b, c ||| d", rules) == Tags(("a",), ("b", "c"), ("d",))
    assert tags_of("a, b, c, d", rules) == Tags(("a", "b", "c"), ("d",), ())


@pytest.mark.parametrize(
    ("separator", "secondary", "caption", "tags"),
    [
        (",", ";;;", "a;;;b, c", ("a;;;b", "c")),
        (";", ";;;", "a;;;b; c", ("a;;;b", "c")),
        (",", ",,", "a,,b,c", ("a,,b", "c")),
    ],
)
def test_the_secondary_separator_separates_nothing(
    separator: str, secondary: str, caption: str, tags: tuple[str, ...]
) -> None:
    assert flexible(caption, separator=separator, secondary_separator=secondary) == tags


@pytest.mark.parametrize(
    ("caption", "tags"),
    [
        ("(a, b:1.2), c", ("(a, b:1.2)", "c")),
        ("((a, b), [c, d]), e", ("((a, b), [c, d])", "e")),
        ("(a, b), (c, d", ("(a, b)", "(c", "d")),
        (r"\(a, b\), c", (r"\(a", r"b\)", "c")),
        ("a), (b, c)", ("a)", "(b, c)")),
    ],
)
def test_brackets_of_weighted_captions_are_not_torn(caption: str, tags: tuple[str, ...]) -> None:
    assert flexible(caption, weighted=True) == tags


@pytest.mark.parametrize(("separator", "joined"), [(",", "a, b"), (";", "a; b"), (", ", "a, b"), (" ", "a b")])
def test_tags_are_joined_with_one_blank(separator: str, joined: str) -> None:
    assert Tags(("a",), ("b",), ()).joined(separator) == joined
