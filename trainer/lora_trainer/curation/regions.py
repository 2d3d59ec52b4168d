"""Which parts of a picture the crops of a person are: face, body without face, whole figure. Pure. Used by `crops`.

Boxes are (left, top, right, bottom) in px of the upright picture; right and bottom lie just outside.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

Box = tuple[int, int, int, int]
Size = tuple[int, int]
Part = Literal["face", "body", "full"]
PARTS: tuple[Part, ...] = get_args(Part)


@dataclass(frozen=True)
class Person:
    """Where the person of a picture is."""

    face: Box | None = None
    person: Box | None = None
    """The whole figure, face included."""


class NoRegion(ValueError):
    """A part that cannot be cut out; the message is the end of a sentence that starts with the picture's name."""


def region_of(part: Part, person: Person, picture: Size, margins: Mapping[Part, float]) -> Box:
    """The box of a part within a picture of that size, larger than what was found by the part's margin.

    A margin is a share of the box's own sides, and applies at each side. The body is the largest part of the figure
    beside which its face is not: for who stands, all below the chin.

    Raises:
        NoRegion: a box that is needed is missing or leaves the picture, or nothing is left of it.
    """
    for name, box in (("face", person.face), ("person", person.person)):
        if box is not None and (box[2] > picture[0] or box[3] > picture[1]):
            raise NoRegion(f"is {picture[0]}x{picture[1]} px, but its {name} box reaches to {box[2]}, {box[3]}")
    face, figure = person.face, person.person
    if part == "face":
        return _grown(_known(face, "face"), picture, margins[part])
    grown = _grown(_known(figure, "person"), picture, margins[part])
    return grown if part == "full" else _beside(grown, _known(face, "face"))


def width_of(box: Box) -> int:
    """In px."""
    return box[2] - box[0]


def height_of(box: Box) -> int:
    """In px."""
    return box[3] - box[1]


def _known(box: Box | None, name: str) -> Box:
    if box is None:
        raise NoRegion(f"has no {name} box")
    return box


def _grown(box: Box, picture: Size, margin: float) -> Box:
    wider, higher = round(width_of(box) * margin), round(height_of(box) * margin)
    return (
        max(0, box[0] - wider),
        max(0, box[1] - higher),
        min(picture[0], box[2] + wider),
        min(picture[1], box[3] + higher),
    )


def _beside(figure: Box, face: Box) -> Box:
    """The largest part of `figure` that `face` does not touch: below, above, left or right of it."""
    left, top, right, bottom = figure
    parts = (
        (left, max(top, face[3]), right, bottom),
        (left, top, right, min(bottom, face[1])),
        (left, top, min(right, face[0]), bottom),
        (max(left, face[2]), top, right, bottom),
    )
    found = [box for box in parts if width_of(box) > 0 and height_of(box) > 0]
    if not found:
        raise NoRegion("has no body beside its face")
    # The first of equals wins: below the face.
    return max(found, key=lambda box: width_of(box) * height_of(box))
