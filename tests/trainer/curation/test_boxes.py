"""The JSON file of boxes."""

import json
from pathlib import Path
from typing import Any

import pytest

from lora_trainer.curation.boxes import read_boxes
from lora_trainer.curation.regions import Person
from lora_trainer.errors import InvalidConfiguration


def write(path: Path, document: Any) -> Path:
    path.write_text(json.dumps(document))
    return path


def test_boxes_come_by_picture_in_whole_px(tmp_path: Path) -> None:
    document = {"10_a/1.png": {"face": [1, 2, 3.4, 4.6], "person": [0, 0, 9, 9]}, "2.png": {"face": [0, 0, 1, 1]}}

    found = read_boxes(write(tmp_path / "boxes.json", document))

    assert found == {
        "10_a/1.png": Person((1, 2, 3, 5), (0, 0, 9, 9)),
        "2.png": Person((0, 0, 1, 1), None),
    }


@pytest.mark.parametrize(
    "entry",
    [
        {},
        {"head": [0, 0, 1, 1]},
        [0, 0, 1, 1],
        {"face": [0, 0, 1]},
        {"face": [3, 0, 3, 9]},
        {"face": [-1, 0, 3, 9]},
        {"face": [0, 0, True, 1]},
        {"face": None},
    ],
)
def test_an_entry_that_cannot_be_is_named(tmp_path: Path, entry: Any) -> None:
    with pytest.raises(InvalidConfiguration, match=r"boxes that cannot be:\n- a\.png"):
        read_boxes(write(tmp_path / "boxes.json", {"a.png": entry}))


@pytest.mark.parametrize(
    ("text", "message"), [("{", "is no JSON"), ("[]", "holds no object"), (None, "cannot be read")]
)
def test_a_file_that_is_none_is_named(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "boxes.json"
    if text is not None:
        path.write_text(text)

    with pytest.raises(InvalidConfiguration, match=message):
        read_boxes(path)
