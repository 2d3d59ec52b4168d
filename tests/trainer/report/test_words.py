"""Every word of the report in both languages."""

import re
from pathlib import Path
from string import Formatter

import lora_trainer.report
from lora_trainer.report.words import ENGLISH, TRADITIONAL_CHINESE

PAGES = Path(lora_trainer.report.__file__).parent / "page"
_CHOSEN = re.compile(r"^(chart_|line_|problem_|confidence_|doubt_|stage_|step$)")
"""Words whose key is made of a value."""


def places(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name}


def test_both_languages_have_the_same_words() -> None:
    assert set(ENGLISH) == set(TRADITIONAL_CHINESE)


def test_both_languages_tell_the_same_values() -> None:
    differing = [key for key in ENGLISH if places(ENGLISH[key]) != places(TRADITIONAL_CHINESE[key])]

    assert differing == []


def test_nothing_is_left_in_english() -> None:
    same = {key for key in ENGLISH if ENGLISH[key] == TRADITIONAL_CHINESE[key]}

    assert same == {"use_comfy", "use_diffusers", "digest"}


def test_every_word_is_used_and_every_used_word_is_there() -> None:
    templates = "".join(path.read_text() for path in PAGES.glob("*.html"))
    named = set(re.findall(r'(?:t|spoken)\((?:"[a-z-]+", )?"([a-z_]+)"[,)]', templates))
    in_lists = {word for word in re.findall(r'"([a-z_]+)"', templates) if word in ENGLISH}

    assert named <= set(ENGLISH)
    assert {key for key in set(ENGLISH) - named - in_lists if not _CHOSEN.match(key)} == set()
