"""Random changes to pictures: what one draw shows of a picture, first as numbers, then as pixels.

A view says everything that its pixels depend on beside the file, so that equal views have equal latents. Every
random number is a function of the seed and of which draw it is: neither workers nor earlier draws change it.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from lora_api.dataset_spec import ResizeFilter
from lora_trainer.data.buckets import Size, letterbox
from lora_trainer.data.faces import Region, face_in_name, region_around
from lora_trainer.data.placed import PlacedExample
from lora_trainer.rng import Purpose, derive_seed, uniform

Pixels = npt.NDArray[np.uint8]
"""(H, W, 3), RGB."""

_TINTED = 1 / 3
"""Share of draws whose colours are changed."""
_HUE_RANGE = 8.0
"""Largest shift of the hue, of 180 for the whole circle."""
_GAMMA_RANGE = 0.05
"""Largest distance of gamma from 1."""
_FILTERS = {
    "Box": Image.Resampling.BOX,
    "Bilinear": Image.Resampling.BILINEAR,
    "Bicubic": Image.Resampling.BICUBIC,
    "Lanczos": Image.Resampling.LANCZOS,
    "Nearest": Image.Resampling.NEAREST,
}


@dataclass(frozen=True)
class PixelDraw:
    """Which draw of a picture random numbers belong to."""

    seed: int
    parts: tuple[int | str, ...]

    def uniform(self, purpose: Purpose, what: str) -> float:
        """A number in [0, 1)."""
        return uniform(self.seed, purpose, *self.parts, what)

    def below(self, limit: int, purpose: Purpose, what: str) -> int:
        """A whole number in [0, limit)."""
        return derive_seed(self.seed, purpose, *self.parts, what) % limit


@dataclass(frozen=True)
class Tint:
    """A change of colours."""

    kind: Literal["hue", "gamma"]
    amount: float
    """Shift of the hue, of 180 for the whole circle; or the exponent gamma."""


@dataclass(frozen=True)
class View:
    """What a draw shows of a picture: `region` is scaled to `resized`, then `bucket` is cut out at `crop`."""

    index: int
    """Index of the example."""
    bucket: Size
    resized: Size
    crop: tuple[int, int]
    region: Region | None = None
    """None: the whole picture."""
    tint: Tint | None = None
    mirrored: bool = False
    """At last, left and right are swapped."""


def view_of(picture: PlacedExample, draw: PixelDraw, *, mirrored: bool) -> View:
    """What `draw` shows of a picture under the augmentation of its subset.

    A random crop lies anywhere that its bucket fits; a face crop is `faceCropRange` times as large as the face; a
    third of the draws is tinted, half of them in hue by up to 8 of 180, half with a gamma of 0.95 to 1.05.
    """
    example, placement, rules = picture.example, picture.placement, picture.example.augmentation
    view = View(example.index, placement.bucket, placement.resized, placement.crop, mirrored=mirrored)
    if rules.color:
        view = replace(view, tint=_tint(draw))
    if rules.face_crop_range is not None:
        low, high = rules.face_crop_range.minimum, rules.face_crop_range.maximum
        ratio = low + (high - low) * draw.uniform(Purpose.CROP, "face")
        size = (example.width_px, example.height_px)
        region = region_around(face_in_name(example.path, size), size, bucket=view.bucket, ratio=ratio)
        return replace(view, region=region, resized=view.bucket, crop=(0, 0))
    if rules.random_crop:
        over_x, over_y = (view.resized[axis] - view.bucket[axis] for axis in (0, 1))
        x, y = draw.below(over_x + 1, Purpose.CROP, "x"), draw.below(over_y + 1, Purpose.CROP, "y")
        return replace(view, crop=(x, y))
    return view


def _tint(draw: PixelDraw) -> Tint | None:
    if draw.uniform(Purpose.COLOR, "whether") >= _TINTED:
        return None
    amount = 2 * draw.uniform(Purpose.COLOR, "amount") - 1
    if draw.uniform(Purpose.COLOR, "kind") < 0.5:
        return Tint("hue", _HUE_RANGE * amount)
    return Tint("gamma", 1 + _GAMMA_RANGE * amount)


def told_crop(picture: PlacedExample, view: View) -> tuple[float, float]:
    """(x, y) in px of the crop, as SDXL is told it.

    Of a crop at a fixed place this is the offset of the picture's letterbox, as in sd-scripts; of a random crop or
    one around a face it is what was cut off at the left and the top, which sd-scripts leaves at the letterbox.
    """
    example, rules = picture.example, picture.example.augmentation
    size, (width, height) = (example.width_px, example.height_px), view.bucket
    if view.region is not None:
        left, top, right, bottom = view.region
        scale_x, scale_y = width / (right - left), height / (bottom - top)
        return (size[0] - right if view.mirrored else left) * scale_x, top * scale_y
    if rules.random_crop:
        x, y = view.crop
        return float(view.resized[0] - width - x if view.mirrored else x), float(y)
    x_left, y_top, x_right, _ = letterbox(size, view.bucket)
    return (width - x_right if view.mirrored else x_left), y_top


def render(image: Image.Image, view: View, resize_filter: ResizeFilter) -> Pixels:
    """The pixels of a view of an RGB picture."""
    pixels = np.array(_shaped(image, view, resize_filter))
    return pixels if view.tint is None else tinted(pixels, view.tint)


def render_mask(mask: Image.Image, view: View, resize_filter: ResizeFilter) -> npt.NDArray[np.uint8]:
    """The same view (H, W) of a grey mask; colours do not touch it."""
    return np.array(_shaped(mask, view, resize_filter))


def _shaped(image: Image.Image, view: View, resize_filter: ResizeFilter) -> Image.Image:
    if view.region is not None:
        image = image.crop(view.region)
    if image.size != view.resized:
        image = image.resize(view.resized, resampling(resize_filter, image.size, view.resized))
    (left, top), (width, height) = view.crop, view.bucket
    image = image.crop((left, top, left + width, top + height))
    return ImageOps.mirror(image) if view.mirrored else image


def resampling(resize_filter: ResizeFilter, size: Size, target: Size) -> Image.Resampling:
    """Pillow's filter. Auto: a box to shrink, which averages whole areas as OpenCV's AREA does, so that fine
    patterns do not alias; Lanczos to enlarge either side."""
    if resize_filter != "Auto":
        return _FILTERS[resize_filter]
    shrinks = target[0] <= size[0] and target[1] <= size[1]
    return Image.Resampling.BOX if shrinks else Image.Resampling.LANCZOS


def tinted(pixels: Pixels, tint: Tint) -> Pixels:
    """`pixels` with other colours."""
    values = pixels.astype(np.float32) / np.float32(255)
    changed = values**tint.amount if tint.kind == "gamma" else _turned(values, tint.amount / 180)
    return (changed * 255).round().clip(0, 255).astype(np.uint8)


def _turned(rgb: npt.NDArray[np.float32], turn: float) -> npt.NDArray[np.float32]:
    """RGB (H, W, 3) of 0..1 with the hue turned by a share of the circle; value and saturation stay.

    By Smith's hexcone: with value V = max and chroma C = max - min, hue is a place on the hexagon of side C.
    """
    value, chroma = rgb.max(axis=2), rgb.max(axis=2) - rgb.min(axis=2)
    red, green, blue = (rgb[..., channel] for channel in range(3))
    divisor = np.where(chroma == 0, 1, chroma)
    hue = np.select(
        [value == red, value == green],
        [(green - blue) / divisor, (blue - red) / divisor + 2],
        default=(red - green) / divisor + 4,
    )
    hue = (hue + 6 * turn)[..., None]
    place = (np.array([5, 3, 1], dtype=np.float32) + hue) % 6
    away = np.clip(np.minimum(place, 4 - place), 0, 1)
    turned: npt.NDArray[np.float32] = value[..., None] - chroma[..., None] * away
    return turned
