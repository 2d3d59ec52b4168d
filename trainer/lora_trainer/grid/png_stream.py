"""Writes a PNG band by band, so that a picture of any height needs the memory of one band. Used by `sheet`.

PNG (Portable Network Graphics), W3C: https://www.w3.org/TR/png-3/; 8-bit RGB, every line filtered by `Sub`.
"""

import struct
import zlib
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np
from PIL import Image

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_SUB = 1
_CHANNELS = 3


class PngStream:
    """An open PNG of a known size; closing it ends the file."""

    def __init__(self, file: BinaryIO, width: int, height: int) -> None:
        """`file` is written from where it stands, and stays open."""
        self._file, self._width, self._lines_left = file, width, height
        self._compressor = zlib.compressobj(6)
        file.write(_SIGNATURE)
        self._chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))

    def write(self, band: Image.Image) -> None:
        """Adds the next lines: an RGB picture of the PNG's width."""
        assert band.width == self._width and band.height <= self._lines_left, "the band does not fit the PNG"
        self._lines_left -= band.height
        levels = np.asarray(band.convert("RGB"), dtype=np.uint8).reshape(band.height, self._width * _CHANNELS)
        lines = np.empty((band.height, 1 + levels.shape[1]), np.uint8)
        lines[:, 0] = _SUB
        lines[:, 1:] = levels
        # Modulo 256, as the standard wants it.
        lines[:, 1 + _CHANNELS :] -= levels[:, :-_CHANNELS]
        self._data(self._compressor.compress(lines.tobytes()))

    def close(self) -> None:
        """Ends the PNG."""
        assert self._lines_left == 0, f"{self._lines_left} lines are missing in the PNG"
        self._data(self._compressor.flush())
        self._chunk(b"IEND", b"")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if kind is None:
            self.close()

    def _data(self, compressed: bytes) -> None:
        if compressed:
            self._chunk(b"IDAT", compressed)

    def _chunk(self, name: bytes, content: bytes) -> None:
        self._file.write(
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )
