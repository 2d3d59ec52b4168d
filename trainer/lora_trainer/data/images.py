"""Pictures: their size, whether they decode, and their pixels in RGB, their transparency, their grey.

Used by the scan (size and soundness), by the masks, and by the encoding of latents (pixels). The colour profile of
a picture is not applied, as in sd-scripts.
"""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path, PurePath

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".avif"})
MAX_PIXELS = 89_000_000
"""Larger pictures are refused before they are decoded: a small file can unpack to gigabytes."""
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "AVIF")
"""Told by content, not by name. Others are refused, some of Pillow's readers start programs."""


class UnusableImage(ValueError):
    """A file that is no picture we can train on; the message is the end of a sentence that starts with its name."""


def is_image(path: PurePath) -> bool:
    """Whether the name is that of a picture; case does not matter."""
    return path.suffix.lower() in EXTENSIONS


def check_image(data: bytes) -> tuple[int, int]:
    """(width, height) in px after the EXIF rotation, once every pixel was decoded. Raises UnusableImage."""
    return upright(data).size


def read_rgb(path: Path, *, drop_alpha: bool = False) -> Image.Image:
    """The picture in 8-bit RGB after the EXIF rotation; transparency lies over white or is dropped.

    Raises:
        UnusableImage: the file does not decode.
    """
    return to_rgb(upright(path.read_bytes()), drop_alpha=drop_alpha)


def upright(data: bytes) -> Image.Image:
    """The decoded picture after the EXIF rotation, in its own mode. Raises UnusableImage."""
    with _opened(data) as image:
        return ImageOps.exif_transpose(image)


def to_rgb(image: Image.Image, *, drop_alpha: bool = False) -> Image.Image:
    """The picture in 8-bit RGB: transparency over white, 16-bit grey scaled down, CMYK and palettes converted.

    With `drop_alpha` transparent pixels keep the colour that they have below their transparency.
    """
    colors = (_from_deep_grey(image) if _is_deep(image) else image).convert("RGB")
    alpha = None if drop_alpha else alpha_of(image)
    if alpha is None:
        return colors
    return Image.composite(colors, Image.new("RGB", colors.size, (255, 255, 255)), alpha)


def alpha_of(image: Image.Image) -> Image.Image | None:
    """How opaque each pixel is, 0 to 255 (mode L); None: the picture's format has no transparency."""
    if not image.has_transparency_data:
        return None
    if _is_deep(image):
        opaque = np.asarray(image) != image.info["transparency"]
        return Image.fromarray(np.where(opaque, 255, 0).astype(np.uint8))
    return image.convert("RGBA").getchannel("A")


def _is_deep(image: Image.Image) -> bool:
    return image.mode.startswith("I") or image.mode == "F"


def _from_deep_grey(image: Image.Image) -> Image.Image:
    """16-bit grey to 8 bits. Pillow's own conversion would clip everything above 255 to white."""
    values = np.asarray(image, dtype=np.float64)
    return Image.fromarray((values.clip(0, 65535) / 257.0).round().astype(np.uint8))


@contextmanager
def _opened(data: bytes) -> Iterator[Image.Image]:
    try:
        with Image.open(BytesIO(data), formats=_FORMATS) as image:
            _refuse_huge(image.size)
            _refuse_animation(image)
            image.load()
            yield image
    except UnidentifiedImageError as error:
        raise UnusableImage("is no picture that can be read; convert it to PNG or JPEG") from error
    except Image.DecompressionBombError as error:
        raise UnusableImage(f"has more than {MAX_PIXELS:,} pixels; make it smaller") from error
    except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
        if isinstance(error, UnusableImage):
            raise
        raise UnusableImage(f"does not decode ({error}); replace it") from error


def _refuse_huge(size: tuple[int, int]) -> None:
    if size[0] * size[1] > MAX_PIXELS:
        raise UnusableImage(f"is {size[0]}x{size[1]} px, more than {MAX_PIXELS:,} pixels; make it smaller")


def _refuse_animation(image: Image.Image) -> None:
    # Phones write JPEGs with a second, smaller picture inside (MPO); the first one is the photo.
    if getattr(image, "is_animated", False) and image.format != "MPO":
        raise UnusableImage("is an animation; save the frame you mean as a picture of its own")
