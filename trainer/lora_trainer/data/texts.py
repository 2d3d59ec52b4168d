"""Captions as the UNet sees them: token ids or, when the text encoder is not trained, its finished states.

Made by `run`, called by the loop for every batch. How texts are tokenised and encoded is passed in.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Tokenize = Callable[[Sequence[str]], Tensor]
"""Texts -> token ids (B, chunks, 77)."""
Encode = Callable[[Tensor], Tensor]
"""Token ids (B, chunks, 77) -> states (B, L, D)."""
StatesOf = Callable[[Sequence[int]], Tensor]
"""Indices of examples -> the states (B, L, D) of their captions."""

_ENCODED_AT_ONCE = 32


def trained_texts(captions: Sequence[str], tokenize: Tokenize, encode: Encode, *, device: torch.device) -> StatesOf:
    """States that are computed anew for every batch, with gradients."""
    ids = tokenize(captions).to(device)  # (N, chunks, 77)
    return lambda indices: encode(ids[list(indices)])


@torch.no_grad()
def frozen_texts(captions: Sequence[str], tokenize: Tokenize, encode: Encode, *, device: torch.device) -> StatesOf:
    """States that are computed once, one for each different caption, and kept on `device`."""
    different = list(dict.fromkeys(captions))
    rows = {caption: row for row, caption in enumerate(different)}
    parts = [
        encode(tokenize(different[start : start + _ENCODED_AT_ONCE]).to(device))
        for start in range(0, len(different), _ENCODED_AT_ONCE)
    ]
    states = torch.cat(parts)  # (different captions, L, D)
    return lambda indices: states[[rows[captions[index]] for index in indices]]
