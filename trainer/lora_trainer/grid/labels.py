"""Text on the sheet of a grid: wrapped to a width, and drawn. Used by `sheet`."""

from collections.abc import Sequence
from functools import cache

from PIL import Image, ImageDraw, ImageFont

SIZE = 14
LINE_HEIGHT = 18
_INK = "black"
_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def wrapped(text: str, width: int, *, most_lines: int) -> tuple[str, ...]:
    """Lines of at most `width` px, broken between words and within words that are too long; a cut end is marked."""
    font = _font()
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if _fits(longer, width, font):
            lines[-1] = longer
        else:
            lines.extend(_pieces(word, width, font))
    lines = [line for line in lines if line] or [""]
    if len(lines) <= most_lines:
        return tuple(lines)
    last = lines[most_lines - 1]
    while last and not _fits(f"{last}…", width, font):
        last = last[:-1]
    return (*lines[: most_lines - 1], f"{last}…")


def draw_lines(sheet: Image.Image, lines: Sequence[str], left: int, top: int) -> None:
    """Draws lines below each other."""
    draw, font = ImageDraw.Draw(sheet), _font()
    for place, line in enumerate(lines):
        draw.text((left, top + place * LINE_HEIGHT), line, fill=_INK, font=font)


def _pieces(word: str, width: int, font: _Font) -> list[str]:
    """The word, or pieces of it that fit."""
    pieces = [""]
    for letter in word:
        if pieces[-1] and not _fits(pieces[-1] + letter, width, font):
            pieces.append("")
        pieces[-1] += letter
    return pieces


def _fits(text: str, width: int, font: _Font) -> bool:
    return font.getlength(text) <= width


@cache
def _font() -> _Font:
    return ImageFont.load_default(SIZE)
