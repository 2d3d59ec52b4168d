"""Faces that file names tell: where they are, and the part of a picture to train on around them. Pure.

Used when pictures are placed and by the augmentation.
"""

import re
from dataclasses import dataclass
from pathlib import PurePath

from lora_trainer.data.buckets import Size

Region = tuple[int, int, int, int]
"""(left, top, right, bottom) in px of a picture."""

_ENDING = re.compile(r".+_(\d+)_(\d+)_(\d+)_(\d+)")
_CURE = "rename it to `name_<x>_<y>_<width>_<height>` (the face's centre and size in px), or turn faceCropRange off"


class NoFace(ValueError):
    """A name without a usable face; the message is the end of a sentence that starts with the name."""


@dataclass(frozen=True)
class Face:
    """Centre and size in px."""

    x: int
    y: int
    width: int
    height: int


def face_in_name(path: PurePath, picture: Size) -> Face:
    """The face `_<x>_<y>_<width>_<height>` at the end of a file's stem.

    Raises:
        NoFace: there is none, or it is empty, or its centre lies outside the picture.
    """
    match = _ENDING.fullmatch(path.stem)
    if match is None:
        raise NoFace(f"does not name its face; {_CURE}")
    face = Face(*map(int, match.groups()))
    if not face.width or not face.height:
        raise NoFace(f"names a face of {face.width}x{face.height} px; {_CURE}")
    if face.x >= picture[0] or face.y >= picture[1]:
        raise NoFace(
            f"names a face at ({face.x}, {face.y}), outside of the picture of {picture[0]}x{picture[1]} px; {_CURE}"
        )
    return face


def region_around(face: Face, picture: Size, *, bucket: Size, ratio: float) -> Region:
    """The part of the picture in the shape of its bucket whose shorter side is `ratio` times the face's longer one.

    It is made smaller where the picture is too small for it, and lies as close around the face's centre as the
    picture allows.
    """
    unit = ratio * max(face.width, face.height) / min(bucket)  # px of the picture per px of the bucket
    unit = min(unit, picture[0] / bucket[0], picture[1] / bucket[1])
    width, height = max(1, int(bucket[0] * unit + 0.5)), max(1, int(bucket[1] * unit + 0.5))
    left = _within(face.x - width // 2, picture[0] - width)
    top = _within(face.y - height // 2, picture[1] - height)
    return left, top, left + width, top + height


def _within(offset: int, largest: int) -> int:
    return max(0, min(offset, largest))
