"""Reads a picture back without eyes: which shape, which colour, which background, how much of an emblem.

Used by tests and by the model card's figures. Nearest named colours and overlap with drawn templates, nothing learned.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lora_tinybase import drawings
from lora_tinybase.drawings import Field, Pixels

Mask = NDArray[np.bool_]
GLYPH_CONTRAST = 60.0  # levels (Euclidean, RGB) by which a glyph's pixel differs from the background
TILTS = (-0.1, 0.0, 0.1)


@dataclass(frozen=True)
class Reading:
    """What the picture shows. `overlap` is the IoU with the best template, 0 to 1; solid clean glyphs exceed .9."""

    shape: str
    colour: str
    background: str
    overlap: float

    def fits(self, scene: drawings.Scene) -> bool:
        """Whether shape, colour and background are the scene's."""
        return (self.shape, self.colour, self.background) == (scene.shape, scene.colour, scene.background)


def nearest(level: Field, named: dict[str, tuple[int, int, int]]) -> str:
    """The name of the colour closest to `level` [3] (RGB, 0 to 255)."""
    return min(named, key=lambda name: float(np.linalg.norm(level - np.asarray(named[name], np.float32))))


def background_level(picture: Pixels) -> Field:
    """Median colour of the outermost pixels, float32 [3]."""
    edges = [picture[0], picture[-1], picture[:, 0], picture[:, -1]]
    return np.asarray(np.median(np.concatenate(edges), 0), np.float32)


def glyph_mask(picture: Pixels) -> Mask:
    """Pixels that differ from the background, bool [height, width]."""
    distance = np.linalg.norm(picture.astype(np.float32) - background_level(picture), axis=-1)
    return np.asarray(distance > GLYPH_CONTRAST)


def template_overlap(mask: Mask, shape: str) -> float:
    """Best IoU of the mask with the shape drawn at the mask's centre of mass and area."""
    rows, columns = np.nonzero(mask)
    best = 0.0
    for tilt in TILTS:
        unit_area, offset_x, offset_y = _moments(shape, tilt)
        radius = np.sqrt(len(rows) / unit_area)
        x = (np.arange(mask.shape[1]) - columns.mean()) / radius + offset_x
        y = (np.arange(mask.shape[0]) - rows.mean()) / radius + offset_y
        drawn = _inside(shape, tilt, *np.meshgrid(x, y))
        best = max(best, float((mask & drawn).sum() / (mask | drawn).sum()))
    return best


def _moments(shape: str, tilt: float) -> tuple[float, float, float]:
    """Area and centre of mass of the shape at radius 1."""
    axis = np.linspace(-1.3, 1.3, 131)
    inside = _inside(shape, tilt, *np.meshgrid(axis, axis))
    rows, columns = np.nonzero(inside)
    return (
        float(inside.sum() * (axis[1] - axis[0]) ** 2),
        float(axis[columns].mean()),
        float(axis[rows].mean()),
    )


def _inside(shape: str, tilt: float, x: NDArray[np.float64], y: NDArray[np.float64]) -> Mask:
    cos, sin = np.cos(tilt), np.sin(tilt)
    turned = (x * cos + y * sin).astype(np.float32), (y * cos - x * sin).astype(np.float32)
    return np.asarray(drawings.SHAPES[shape](*turned) < 0)


def read(picture: Pixels) -> Reading:
    """The most likely scene of a picture uint8 [height, width, 3]; shape "nothing" if it is all background."""
    background = nearest(background_level(picture), drawings.BACKGROUNDS)
    mask = glyph_mask(picture)
    if mask.mean() < 0.01:
        return Reading("nothing", "nothing", background, 0.0)
    colour = nearest(np.asarray(np.median(picture[mask], 0), np.float32), drawings.COLOURS)
    overlaps = {shape: template_overlap(mask, shape) for shape in drawings.SHAPES}
    shape = max(overlaps, key=lambda name: overlaps[name])
    return Reading(shape, colour, background, overlaps[shape])


def emblem_score(picture: Pixels) -> float:
    """How much of an emblem the glyph is, 0 to 1: the worse of "black rim" and "yellow core", as shares of pixels."""
    rows, columns = np.nonzero(glyph_mask(picture))
    if len(rows) < 0.01 * picture.shape[0] * picture.shape[1]:
        return 0.0
    (top, bottom), (left, right) = np.percentile(rows, (1, 99)), np.percentile(columns, (1, 99))
    y, x = np.mgrid[0 : picture.shape[0], 0 : picture.shape[1]]
    distance = np.hypot(
        (x - (left + right) / 2) / ((right - left) / 2), (y - (top + bottom) / 2) / ((bottom - top) / 2)
    )
    edge = drawings.EMBLEM_CORE_RADIUS
    rim = picture[(distance > edge + 0.06) & (distance < 0.94)]
    core = picture[distance < edge - 0.06]
    return min(_share(rim, "black"), _share(core, "yellow"))


def _share(pixels: Pixels, colour: str) -> float:
    """Share of pixels [n, 3] whose nearest named colour, glyph or background, is `colour`."""
    named = drawings.COLOURS | drawings.BACKGROUNDS
    levels = np.asarray(list(named.values()), np.float32)
    distance = np.linalg.norm(pixels[:, None].astype(np.float32) - levels, axis=-1)
    return float((distance.argmin(1) == list(named).index(colour)).mean())
