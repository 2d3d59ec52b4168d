"""AUTOMATIC1111's emphasis in captions, `(word)`, `(word:1.3)` and `[word]`, as text with weights; used by `clip`.

Syntax: https://github.com/AUTOMATIC1111/stable-diffusion-webui/wiki/Features#attentionemphasis
"""

import re
from dataclasses import dataclass

EMPHASIS = 1.1
"""Factor of one pair of round brackets; a pair of square ones divides by it."""

_TOKENS = re.compile(
    r"""
    \\(?P<escaped>[()\[\]\\]?)
    | :\s*(?P<weight>[+-]?(?:\d+\.?\d*|\.\d+))\s*\)
    | (?P<bracket>[()\[\]])
    | (?P<text>[^\\()\[\]:]+|:)
    """,
    re.VERBOSE,
)


@dataclass(frozen=True)
class Piece:
    """A stretch of text whose tokens weigh the same."""

    text: str
    weight: float


def split_emphasis(text: str) -> tuple[Piece, ...]:
    """The pieces of a text in their order, neighbours of equal weight joined, without the brackets that are syntax.

    Nested brackets multiply. A backslash makes the next bracket (or backslash) a plain character, and vanishes.
    A bracket that is never closed holds until the end; one that closes nothing is text, as is `:1.3)` without an
    open round one.
    """
    reader = _Reader()
    for token in _TOKENS.finditer(text):
        reader.read(token)
    return reader.finish()


class _Reader:
    """Pieces read so far, and where brackets that are still open began."""

    def __init__(self) -> None:
        self._pieces: list[Piece] = []
        self._round: list[int] = []
        self._square: list[int] = []

    def read(self, token: re.Match[str]) -> None:
        match token.lastgroup, token[0]:
            case "weight", _ if self._round:
                self._multiply(self._round.pop(), float(token["weight"]))
            case "bracket", "(":
                self._round.append(len(self._pieces))
            case "bracket", "[":
                self._square.append(len(self._pieces))
            case "bracket", ")" if self._round:
                self._multiply(self._round.pop(), EMPHASIS)
            case "bracket", "]" if self._square:
                self._multiply(self._square.pop(), 1 / EMPHASIS)
            case "escaped", _:
                self._pieces.append(Piece(token["escaped"], 1.0))
            case _:
                self._pieces.append(Piece(token[0], 1.0))

    def finish(self) -> tuple[Piece, ...]:
        """Closes what is open, and joins neighbours."""
        for start in self._round:
            self._multiply(start, EMPHASIS)
        for start in self._square:
            self._multiply(start, 1 / EMPHASIS)
        joined: list[Piece] = []
        for piece in self._pieces:
            if joined and joined[-1].weight == piece.weight:
                joined[-1] = Piece(joined[-1].text + piece.text, piece.weight)
            else:
                joined.append(piece)
        return tuple(joined)

    def _multiply(self, start: int, factor: float) -> None:
        self._pieces[start:] = [Piece(piece.text, piece.weight * factor) for piece in self._pieces[start:]]
