"""Tags of a caption: split, grouped into what stays in place and what may move, joined again. Pure.

A tag is what stands between two separators. Used by the draws of captions.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from lora_api.dataset_spec import Captions

_CLOSING = {"(": ")", "[": "]"}


@dataclass(frozen=True)
class Tags:
    """The tags of a caption in their order."""

    head: tuple[str, ...]
    """Stay in front."""
    flexible: tuple[str, ...]
    """May be shuffled and dropped."""
    tail: tuple[str, ...]
    """Stay at the end."""

    def joined(self, separator: str) -> str:
        """The caption again, with one blank after each separator."""
        between = separator if separator[-1:].isspace() else f"{separator} "
        return between.join((*self.head, *self.flexible, *self.tail))


def tags_of(caption: str, rules: Captions) -> Tags:
    """The tags of `caption`; empty ones are left out.

    A `keepTokensSeparator` in it says what stays: everything before the first, and after the second if there is one.
    Otherwise the first `keepTokens` tags do.
    """
    marker = rules.keep_tokens_separator
    if marker is not None and marker in caption:
        head, flexible, *tail = (tuple(_split(part, rules)) for part in caption.split(marker))
        return Tags(head, flexible, tuple(tag for part in tail for tag in part))
    tags = tuple(_split(caption, rules))
    return Tags(tags[: rules.keep_tokens], tags[rules.keep_tokens :], ())


def _split(text: str, rules: Captions) -> Iterable[str]:
    """Tags without the blanks around them."""
    separator, protected = rules.separator, _protected(text, rules)
    start = place = 0
    while (place := text.find(separator, place)) >= 0:
        if place in protected:
            place += 1
        else:
            yield from filter(None, [text[start:place].strip()])
            start = place = place + len(separator)
    yield from filter(None, [text[start:].strip()])


def _protected(text: str, rules: Captions) -> set[int]:
    """Places where a separator separates nothing: in the secondary one, and in brackets of weighted captions."""
    inside = _bracketed(text) if rules.weighted else set()
    if rules.secondary_separator is not None:
        for match in re.finditer(re.escape(rules.secondary_separator), text):
            inside.update(range(*match.span()))
    return inside


def _bracketed(text: str) -> set[int]:
    """Places inside pairs of round or square brackets; a bracket after a backslash is a letter."""
    inside: set[int] = set()
    opened: list[int] = []
    escaped = False
    for place, letter in enumerate(text):
        if not escaped and letter in _CLOSING:
            opened.append(place)
        elif not escaped and opened and letter == _CLOSING[text[opened[-1]]]:
            inside.update(range(opened.pop(), place))
        escaped = letter == "\\" and not escaped
    return inside
