"""The text of a picture: from the file beside it, else from its folder's name. Used by the scan."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

CaptionSource = Literal["file", "folder"]


class UnusableCaption(ValueError):
    """A caption file that holds no caption; the message is the end of a sentence that starts with its name."""


@dataclass(frozen=True)
class Caption:
    """A picture's text and where it came from."""

    text: str
    source: CaptionSource


def read_caption(path: Path) -> str:
    """The first line of a UTF-8 caption file, without byte-order mark and surrounding blanks.

    Raises:
        UnusableCaption: the file is no UTF-8, or its first line is empty.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnusableCaption(
            f"is not UTF-8 (byte {error.object[error.start]:#04x} at position {error.start}); save it as UTF-8"
        ) from error
    first_line = text.partition("\n")[0].strip()
    if not first_line:
        cure = "write a caption or remove the file" if not text.strip() else "move the caption to the first line"
        raise UnusableCaption(f"has an empty first line; {cure}")
    return first_line


def holds_token(caption: str, class_tokens: str) -> bool:
    """Whether any word of the folder's text occurs in the caption, upper and lower case alike."""
    words = set(_words(caption))
    return any(word in words for word in _words(class_tokens))


def _words(text: str) -> list[str]:
    return "".join(letter if letter.isalnum() else " " for letter in text.casefold()).split()
