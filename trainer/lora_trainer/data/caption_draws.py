"""The text of one draw of a picture: affixes, dropout, wildcards, shuffled and dropped tags. Pure.

The order of operations is that of sd-scripts. Every decision is a function of the seed, what is decided, the epoch
and the draw: neither workers nor earlier draws change it. Used by the loader.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from lora_api.dataset_spec import Captions, TokenWarmup
from lora_trainer.data.tags import Tags, tags_of
from lora_trainer.plan import share_of_steps
from lora_trainer.rng import Purpose, derive_seed, uniform

_BRACES = re.compile(r"\{\{|\}\}|\{([^{}]+)\}")
"""`{{` and `}}` are braces; what stands between single ones is a choice."""


@dataclass(frozen=True)
class CaptionDraw:
    """Which draw a text is for."""

    seed: int
    epoch: int
    """From 1."""
    step: int
    """Steps already made in the run."""
    total_steps: int
    index: int
    """Index of the example."""
    occurrence: int
    """Which draw of this picture in the epoch, from 0."""

    def below(self, limit: int, what: str, place: int = 0) -> int:
        """A whole number in [0, limit)."""
        return derive_seed(self.seed, *self._parts(what, place)) % limit

    def uniform(self, what: str, place: int = 0) -> float:
        """A number in [0, 1)."""
        return uniform(self.seed, *self._parts(what, place))

    def _parts(self, what: str, place: int) -> tuple[int | str, ...]:
        return Purpose.CAPTION, what, self.epoch, self.index, self.occurrence, place


def drawn_caption(lines: Sequence[str], rules: Captions, draw: CaptionDraw) -> str:
    """The text of a draw of the picture with the caption `lines`: of several, one is drawn.

    A dropped caption is empty, whatever its prefix, suffix and kept tags are.
    """
    if _is_dropped(rules, draw):
        return ""
    line = lines[draw.below(len(lines), "line")]
    caption = _with_affixes(line, rules)
    if rules.wildcards:
        caption = _chosen(caption, draw)
    if _moves_tags(rules):
        caption = _moved(tags_of(caption, rules), rules, draw).joined(rules.separator)
    return _finished(caption, rules)


def rules_are_constant(rules: Captions) -> bool:
    """Whether every draw gives the same text, so that its encoding may be kept."""
    return not (rules.dropout_fraction or rules.dropout_every_n_epochs or rules.wildcards or _moves_tags(rules))


def constant_caption(line: str, rules: Captions) -> str:
    """The text of a line with nothing chosen, moved or dropped; the text of every draw if the rules are constant."""
    return _finished(_with_affixes(line, rules), rules)


def warmup_steps(warmup: TokenWarmup, total_steps: int) -> int:
    """Step from which on all tags are used; a fraction of all steps is rounded down."""
    if warmup.steps is not None:
        return warmup.steps
    assert warmup.fraction is not None, "the contract wants steps or fraction"
    return share_of_steps(warmup.fraction, total_steps)


def _is_dropped(rules: Captions, draw: CaptionDraw) -> bool:
    period = rules.dropout_every_n_epochs
    return (period > 0 and draw.epoch % period == 0) or draw.uniform("dropout") < rules.dropout_fraction


def _with_affixes(line: str, rules: Captions) -> str:
    return " ".join(filter(None, (rules.prefix, line, rules.suffix)))


def _chosen(caption: str, draw: CaptionDraw) -> str:
    """`caption` with one of the choices of each pair of braces."""

    def replacement(match: re.Match[str]) -> str:
        if match[1] is None:
            return match[0][0]
        choices = match[1].split("|")
        return choices[draw.below(len(choices), "wildcard", match.start())]

    return _BRACES.sub(replacement, caption)


def _moves_tags(rules: Captions) -> bool:
    return rules.shuffle or rules.tag_dropout_fraction > 0 or rules.token_warmup is not None


def _moved(tags: Tags, rules: Captions, draw: CaptionDraw) -> Tags:
    """The flexible tags warmed up, shuffled and dropped, in this order."""
    flexible = list(tags.flexible)
    if rules.token_warmup is not None:
        flexible = flexible[: _usable(len(flexible), rules.token_warmup, draw)]
    if rules.shuffle:
        order = sorted(range(len(flexible)), key=lambda place: draw.uniform("shuffle", place))
        flexible = [flexible[place] for place in order]
    rate = rules.tag_dropout_fraction
    if rate > 0:
        flexible = [tag for place, tag in enumerate(flexible) if draw.uniform("tag dropout", place) >= rate]
    return replace(tags, flexible=tuple(flexible))


def _usable(count: int, warmup: TokenWarmup, draw: CaptionDraw) -> int:
    """How many of `count` flexible tags the step uses: from `minTags` evenly up to all."""
    steps = warmup_steps(warmup, draw.total_steps)
    if draw.step >= steps:
        return count
    return draw.step * (count - warmup.min_tags) // steps + warmup.min_tags


def _finished(caption: str, rules: Captions) -> str:
    """`caption` without the marker of kept tags and with the secondary separator resolved."""
    if rules.keep_tokens_separator is not None and rules.keep_tokens_separator in caption:
        caption = tags_of(caption, rules).joined(rules.separator)
    if rules.secondary_separator is not None:
        caption = caption.replace(rules.secondary_separator, rules.separator)
    return caption
