"""Boxes of faces and persons that somebody gives in a JSON file. Used by `lora dataset crop`.

    {"10_hina woman/001.png": {"face": [210, 80, 330, 220], "person": [120, 40, 480, 900]}}

Names are paths relative to the dataset; a box is left, top, right, bottom in px of the upright picture.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lora_trainer.curation.regions import Box, Person
from lora_trainer.errors import InvalidConfiguration

_NAMES = ("face", "person")


def read_boxes(path: Path) -> Mapping[str, Person]:
    """The person of each picture that the file names.

    Raises:
        InvalidConfiguration: the file cannot be read, or with every entry that is wrong.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InvalidConfiguration(f"{path} cannot be read: {error.strerror}", hint="Check the path.") from error
    except ValueError as error:
        raise InvalidConfiguration(f"{path} is no JSON: {error}", hint="Correct it there.") from error
    if not isinstance(document, dict):
        raise InvalidConfiguration(f"{path} holds no object of pictures and boxes", hint=_EXAMPLE)
    problems: list[str] = []
    people = {name: _person(name, entry, problems) for name, entry in document.items()}
    if problems:
        raise InvalidConfiguration("\n".join([f"{path} has boxes that cannot be:", *problems]), hint=_EXAMPLE)
    return people


_EXAMPLE = 'Write {"10_hina/1.png": {"face": [left, top, right, bottom], "person": [...]}}, in px.'


def _person(name: str, entry: Any, problems: list[str]) -> Person:
    if not isinstance(entry, dict) or not entry or set(entry) - set(_NAMES):
        problems.append(f"- {name} is {json.dumps(entry)[:80]}, but must hold face, person or both")
        return Person()
    boxes = {key: _box(f"{name}.{key}", entry[key], problems) for key in _NAMES if key in entry}
    return Person(boxes.get("face"), boxes.get("person"))


def _box(where: str, value: Any, problems: list[str]) -> Box | None:
    if isinstance(value, list) and len(value) == len(_EDGES) and all(_is_number(edge) for edge in value):
        left, top, right, bottom = map(round, value)
        if 0 <= left < right and 0 <= top < bottom:
            return left, top, right, bottom
    problems.append(f"- {where} is {json.dumps(value)[:80]}, but must be left, top, right, bottom with an area")
    return None


_EDGES = ("left", "top", "right", "bottom")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
