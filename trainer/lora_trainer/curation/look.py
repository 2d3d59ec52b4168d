"""How a picture looks, in few numbers: to tell equal pictures in different files, and blurred ones. Pure.

Used by `pictures` and the checks of pictures.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_SIDE = 16
_HASH_BITS_APART = 24
"""Of 256. Copies that were scaled to 70 % and saved as JPEG of quality 60 were 0 to 22 apart."""
_COLORS_APART = 3.0
"""Levels of 255 on average. Of 35 such copies all but those of two chessboards were at most 2.6 apart; the pictures of
the example dataset, of one emblem and of simple shapes, are at least 8.6 apart."""
_RATIO_APART = 0.03
_TILES = 4


@dataclass(frozen=True)
class Look:
    """A picture in 16x16 px."""

    ratio: float
    """Width / height."""
    gradient_hash: NDArray[np.uint64]
    """(4,): whether each px is brighter than its left neighbour, 256 bits (dHash: N. Krawetz, "Kind of Like That",
    http://www.hackerfactor.com/blog/?/archives/529-Kind-of-Like-That.html)."""
    colors: NDArray[np.float32]
    """(768,): RGB in 0 to 255, without its mean colour, so that a brighter copy is still one."""


def look_of(picture: Image.Image) -> Look:
    """The look of an RGB picture."""
    grey = np.asarray(picture.convert("L").resize((_SIDE + 1, _SIDE), Image.Resampling.BOX))
    bits = np.packbits(grey[:, 1:] > grey[:, :-1])
    colors = np.asarray(picture.resize((_SIDE, _SIDE), Image.Resampling.BOX), dtype=np.float32)
    centred = (colors - colors.mean(axis=(0, 1))).ravel()
    return Look(picture.width / picture.height, bits.view(np.uint64), centred)


def same_looks(looks: Sequence[Look]) -> Iterator[tuple[int, int]]:
    """Pairs of places in `looks`, ascending, whose pictures are one but for size, quality and brightness."""
    if not looks:
        return
    hashes = np.stack([look.gradient_hash for look in looks])
    colors = np.stack([look.colors for look in looks])
    ratios = np.log([look.ratio for look in looks])
    for place in range(len(looks) - 1):
        rest = slice(place + 1, None)
        bits_apart = np.bitwise_count(hashes[rest] ^ hashes[place]).sum(axis=1)
        alike = (bits_apart <= _HASH_BITS_APART) & (np.abs(ratios[rest] - ratios[place]) <= _RATIO_APART)
        for other in np.flatnonzero(alike) + place + 1:
            if np.abs(colors[other] - colors[place]).mean() <= _COLORS_APART:
                yield place, int(other)


def sharpness(picture: Image.Image, *, area_px: int) -> float:
    """Variance of the Laplacian of the grey levels (0 to 255) in the sharpest of 4x4 tiles; larger is sharper.

    The tile, because a sharp person before a blurred background is as it should be. The picture is first shrunk to
    `area_px`, the size that is trained: what is lost there does not matter. See J. Pech-Pacheco et al., "Diatom
    autofocusing in brightfield microscopy: a comparative study", ICPR 2000.
    """
    scale = math.sqrt(area_px / (picture.width * picture.height))
    grey = picture.convert("L")
    if scale < 1:
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        grey = grey.resize(size, Image.Resampling.BOX)
    levels = np.pad(np.asarray(grey, dtype=np.float32), 1, mode="edge")
    middle = levels[1:-1, 1:-1]
    laplacian = levels[1:-1, :-2] + levels[1:-1, 2:] + levels[:-2, 1:-1] + levels[2:, 1:-1] - 4 * middle
    rows = np.array_split(laplacian, min(_TILES, len(laplacian)))
    tiles = [tile for row in rows for tile in np.array_split(row, min(_TILES, row.shape[1]), axis=1)]
    return max(float(tile.var()) for tile in tiles)
