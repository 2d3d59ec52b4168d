"""The text of a picture: which file holds it, and which lines of that file. Used by the scan."""

from collections.abc import Iterable, Mapping
from pathlib import Path, PurePath
from typing import Literal, TypeVar

CaptionSource = Literal["file", "metadata", "folder", "generated"]
"""Where a caption comes from; one that is still to be generated is an empty text."""

MAX_BYTES = 1 << 20
"""Of a caption file; it is held in memory, and its words are counted into the adapter's metadata."""
_FACE_NUMBERS = 4
AnyPath = TypeVar("AnyPath", bound=PurePath)


class UnusableCaption(ValueError):
    """A caption file that holds no caption; the message is the end of a sentence that starts with its name."""


def find_caption(stem: str, extension: str, files: Mapping[str, AnyPath]) -> AnyPath | None:
    """The caption file of the picture `stem` among `files`, which are `by_name`.

    That is the file of the same name; else, for a name of at least five parts between `_`, the file of the name
    without the last four, which are the place of a face (`name_<x>_<y>_<width>_<height>`), as in sd-scripts.
    """
    parts = stem.split("_")
    names = [stem]
    if len(parts) > _FACE_NUMBERS:
        names.append("_".join(parts[:-_FACE_NUMBERS]))
    wanted = (key for name in names for key in (f"{name}{extension}", f"{name}{extension}".casefold()))
    return next((files[key] for key in wanted if key in files), None)


def by_name(files: Iterable[AnyPath]) -> dict[str, AnyPath]:
    """Files by name, and by case-folded name where no other file has that as its name."""
    paths = list(files)
    return {path.name.casefold(): path for path in paths} | {path.name: path for path in paths}


def read_caption(path: Path, *, every_line: bool = False) -> tuple[str, ...]:
    """The first line of a UTF-8 caption file, or every line that is not blank.

    Lines come without byte-order mark and surrounding blanks.

    Raises:
        UnusableCaption: the file is no UTF-8 or too large, or the wanted line is empty.
    """
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise UnusableCaption(f"has more than {MAX_BYTES:,} bytes; write a caption or remove the file")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnusableCaption(
            f"is not UTF-8 (byte {error.object[error.start]:#04x} at position {error.start}); save it as UTF-8"
        ) from error
    lines = caption_lines(text, every_line=every_line)
    if lines:
        return lines
    if not text.strip():
        raise UnusableCaption("is empty; write a caption or remove the file")
    raise UnusableCaption("has an empty first line; move the caption to the first line")


def caption_lines(text: str, *, every_line: bool) -> tuple[str, ...]:
    """The first line of `text`, or every line that is not blank; nothing if that is empty."""
    lines = text.split("\n") if every_line else [text.partition("\n")[0]]
    return tuple(line.strip() for line in lines if line.strip())


def missing_tokens(texts: str, class_tokens: str) -> list[str]:
    """The words of `class_tokens` that do not occur in `texts` as whole words; upper and lower case are alike."""
    held = set(_words(texts))
    return [word for word in class_tokens.split() if not held.issuperset(_words(word))]


def _words(text: str) -> list[str]:
    return "".join(letter if letter.isalnum() else " " for letter in text.casefold()).split()
