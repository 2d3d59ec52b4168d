"""How a captioning model looks for words. Used by `blip`, and by all that compare or offer it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Search:
    """Settings of the beam search; lengths in tokens of the model."""

    beams: int = 3
    """1: the likeliest word each time."""
    min_tokens: int = 5
    max_tokens: int = 50
