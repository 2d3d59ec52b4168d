"""Tags that mean the same in several spellings. Pure. Used by `tag_checks`.

Three ways are told apart, with rules that leave alone what artists' tags really mean:
- spelling: equal but for case, `_`, `-` and blanks (`Long_hair`);
- plural: equal but for the `s` of the last word (`earring`, but not `arms up` beside `arm up`);
- typo: one word of at least five letters is one letter off (`looking at viwer`), no digit is, and the tag is on at
  most a third as many pictures as the one that it resembles. `white skirt` beside `white shirt` is none: a letter
  that is another one counts in words of seven letters, and never as the first one (`jacket`, `racket`).
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

_WORD_FOR_CHANGE = 7
_WORD_FOR_GAP = 5
_TIMES_RARER = 3


@dataclass(frozen=True)
class SimilarTags:
    """Tags that should probably be one."""

    way: Literal["spelling", "plural", "typo"]
    tags: tuple[str, ...]
    """Most frequent first; that one is the one to keep."""


def similar_tags(counts: Mapping[str, int]) -> Iterator[SimilarTags]:
    """All groups among tags, given on how many pictures each is; no pair of tags is in two groups."""
    spellings: dict[str, list[str]] = {}
    for tag in counts:
        spellings.setdefault(_letters(tag), []).append(tag)
    for tags in spellings.values():
        if len(tags) > 1:
            yield SimilarTags("spelling", _by_count(tags, counts))
    # From here on each tag stands for all its spellings.
    leading = {_plain(tags[0]): _by_count(tags, counts)[0] for tags in spellings.values()}
    totals = Counter({plain: sum(counts[tag] for tag in spellings[_letters(plain)]) for plain in leading})
    plurals = {plain for plain in leading if _singular(plain) in leading}
    for plain in sorted(plurals):
        pair = _by_count([plain, str(_singular(plain))], totals)
        yield SimilarTags("plural", tuple(leading[tag] for tag in pair))
    for one, other in _neighbours(leading):
        common, rare = _by_count([one, other], totals)
        if totals[rare] * _TIMES_RARER <= totals[common] and _is_typo(common, rare):
            yield SimilarTags("typo", (leading[common], leading[rare]))


def _by_count(tags: list[str], counts: Mapping[str, int]) -> tuple[str, ...]:
    return tuple(sorted(tags, key=lambda tag: (-counts[tag], tag)))


def _plain(tag: str) -> str:
    return " ".join(tag.casefold().replace("_", " ").replace("-", " ").split())


def _letters(tag: str) -> str:
    return _plain(tag).replace(" ", "")


def _singular(tag: str) -> str | None:
    """The tag without the plural of its last word; None if that is none."""
    if tag.endswith("ies"):
        return f"{tag[:-3]}y"
    if tag.endswith(("ches", "shes", "xes")):
        return tag[:-2]
    return tag[:-1] if tag.endswith("s") and not tag.endswith(("ss", "us", "is")) else None


def _neighbours(tags: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Pairs that one change, gap or swap of letters may lie between: they share what is left without a letter."""
    by_rest: dict[str, set[str]] = {}
    for tag in tags:
        for place in range(-1, len(tag)):
            rest = tag if place < 0 else tag[:place] + tag[place + 1 :]
            by_rest.setdefault(rest, set()).add(tag)
    pairs = {pair for alike in by_rest.values() for pair in combinations(sorted(alike), 2)}
    yield from sorted(pairs)


def _is_typo(one: str, other: str) -> bool:
    ours, theirs = one.split(), other.split()
    if len(ours) != len(theirs):
        return False
    different = [pair for pair in zip(ours, theirs, strict=True) if pair[0] != pair[1]]
    return len(different) == 1 and _is_off_by_one(*sorted(different[0], key=len))


def _is_off_by_one(short: str, long: str) -> bool:
    if [letter for letter in short if letter.isdigit()] != [letter for letter in long if letter.isdigit()]:
        return False
    if len(short) < len(long):
        # One that is longer by an s is a plural, which means something else in the middle of a tag.
        gaps = (long[:place] + long[place + 1 :] for place in range(len(long)))
        return len(short) >= _WORD_FOR_GAP and long != f"{short}s" and short in gaps
    places = [place for place, pair in enumerate(zip(short, long, strict=True)) if pair[0] != pair[1]]
    if len(places) == 1:
        return len(short) >= _WORD_FOR_CHANGE and places[0] > 0
    first, last = places[0], places[-1]
    swapped = last == first + 1 and (short[first], short[last]) == (long[last], long[first])
    return len(short) >= _WORD_FOR_GAP and swapped
