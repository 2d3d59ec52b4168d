"""Pictures inside the page: small enough together for one file, as data URIs. Used by `writing`."""

import base64
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import Image, UnidentifiedImageError

logger = logging.getLogger(__name__)

_SMALLEST_SIDE = 64
_QUALITY = 82
_MOST_DECODED = 120_000_000
"""Pixels that are held in memory at once: 360 MB."""


@dataclass(frozen=True)
class Embedded:
    """A picture as the page holds it."""

    uri: str
    """`data:image/webp;base64,…`."""
    width: int
    height: int
    parameters: str = ""
    """What the file says of how it was drawn."""

    @property
    def size_bytes(self) -> int:
        """What it adds to the page."""
        return len(self.uri)


def embed(path: Path, *, size_bytes: int, longest: int = 512) -> Embedded | None:
    """The picture of at most `longest` px a side, shrunk until it adds no more than `size_bytes` or is tiny.

    None: it cannot be decoded, or is too large to.
    """
    try:
        with Image.open(path) as image:
            if image.width * image.height > _MOST_DECODED:
                return None
            parameters = str(getattr(image, "text", {}).get("parameters", ""))
            whole = image.convert("RGB")
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, SyntaxError, ValueError) as error:
        logger.warning("a picture cannot be shown in the report: %s", error)
        return None
    side = min(longest, max(whole.size))
    while True:
        small = _shrunk(whole, side)
        uri = _uri(small)
        if len(uri) <= size_bytes or side <= _SMALLEST_SIDE:
            return Embedded(uri, small.width, small.height, parameters)
        # Bytes go with the area.
        side = max(_SMALLEST_SIDE, math.floor(0.95 * side * math.sqrt(size_bytes / len(uri))))


def affordable(epochs: Sequence[int], *, wanted: Sequence[int | None], most: int) -> list[int]:
    """At most `most` of `epochs`, ascending: the first, the last and the wanted ones, then evenly spread ones."""
    if len(epochs) <= most:
        return list(epochs)
    kept = {epochs[0], epochs[-1], *(epoch for epoch in wanted if epoch is not None and epoch in epochs)}
    spread = [epochs[round(place * (len(epochs) - 1) / (most - 1))] for place in range(most)] if most > 1 else []
    for epoch in spread:
        if len(kept) >= most:
            break
        kept.add(epoch)
    return sorted(kept)


def _shrunk(image: Image.Image, side: int) -> Image.Image:
    longest = max(image.size)
    if longest <= side:
        return image
    size = (max(1, round(image.width * side / longest)), max(1, round(image.height * side / longest)))
    return image.resize(size, Image.Resampling.LANCZOS)


def _uri(image: Image.Image) -> str:
    data = BytesIO()
    image.save(data, "WEBP", quality=_QUALITY, method=4)
    return f"data:image/webp;base64,{base64.b64encode(data.getvalue()).decode()}"
