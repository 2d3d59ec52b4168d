"""Edits of one caption."""

import pytest

from lora_trainer.curation.edits import Edit, add_tag, edit_lines, remove_tags, replace_tag, replace_text


def replaced(old: str, new: str) -> Edit:
    return replace_tag(old, new, separator=",")


def removed(*tags: str) -> Edit:
    return remove_tags(tags, separator=",")


def added(tag: str, *, first: bool = False, where: str | None = None) -> Edit:
    return add_tag(tag, separator=",", first=first, where=where)


@pytest.mark.parametrize(
    ("edit", "before", "after"),
    [
        (replaced("hat", "cap"), "hina, hat, smile", "hina, cap, smile"),
        (replaced("hat", "cap"), "hat ,  hat,x", "cap ,x"),
        (replaced("hat", "cap"), "hat, x, cap", "cap, x"),
        (replaced("hat", "cap"), "straw hat, Hat", "straw hat, Hat"),
        (removed("hat"), "hat, hina, smile", "hina, smile"),
        (removed("hat"), "hina, smile, hat", "hina, smile"),
        (removed("hat", "smile"), "hina ,hat, smile", "hina"),
        (removed("hat"), "straw hat, hats", "straw hat, hats"),
        (removed("hat"), "hat", ""),
        (added("hina"), "hat, smile", "hat, smile, hina"),
        (added("hina"), "hat,", "hat, hina"),
        (added("hina", first=True), "hat", "hina, hat"),
        (added("hina"), "smile,hina", "smile,hina"),
        (added("cap", where="hat"), "hat, x", "hat, x, cap"),
        (added("cap", where="hat"), "straw hat, x", "straw hat, x"),
        (replace_text("hat", "cap"), "straw hat, hats", "straw cap, caps"),
    ],
)
def test_an_edit_changes_whole_tags_and_nothing_else(edit: Edit, before: str, after: str) -> None:
    assert edit(before) == after


def test_another_separator_keeps_its_form() -> None:
    assert remove_tags(["hat"], separator="; ")("hina; hat; smile") == "hina; smile"
    assert add_tag("cap", separator="; ")("hina") == "hina; cap"


@pytest.mark.parametrize("text", ["hina, hat\n", "hina, hat\r\nhina, smile\r\n\r\n", "  hina,hat  \n\t\n", "hina"])
def test_lines_keep_their_ends_and_the_blanks_around_them(text: str) -> None:
    assert edit_lines(edit_lines(text, added("new")), removed("new")) == text


def test_a_blank_line_stays_blank() -> None:
    assert edit_lines("a\r\n\r\n", added("b")) == "a, b\r\n\r\n"
