"""lora_trainer.captioning.records: what was generated, as a file."""

from dataclasses import replace

import pytest

from lora_trainer.captioning.records import CaptionRecord, description_key, descriptions_in, to_lines
from lora_trainer.captioning.search import Search

RECORDS = (
    CaptionRecord("10_zwx/a.png", "zwx, 一頂帽子\u2028", "一頂帽子\u2028", "k1"),
    CaptionRecord("10_zwx/b.png", "zwx", "", "k2"),
)


def test_descriptions_are_read_back_by_key() -> None:
    assert descriptions_in(to_lines(RECORDS)) == {"k1": "一頂帽子\u2028", "k2": ""}


def test_a_record_is_one_line() -> None:
    assert to_lines(RECORDS).count("\n") == 2


@pytest.mark.parametrize("line", ["{", "[]", '{"key": "k"}', '{"key": "k", "description": 1}'])
def test_a_damaged_line_is_an_error(line: str) -> None:
    with pytest.raises(ValueError, match=r"line|Expecting"):
        descriptions_in(to_lines(RECORDS) + line)


def test_a_key_names_picture_model_and_search() -> None:
    search = Search()
    keys = {
        description_key("p", "m", search),
        description_key("q", "m", search),
        description_key("p", "n", search),
        *(description_key("p", "m", replace(search, **{name: 9})) for name in ("beams", "min_tokens", "max_tokens")),
    }

    assert len(keys) == 6
    assert description_key("p", "m", Search()) in keys
