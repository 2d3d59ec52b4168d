"""Captions as the UNet sees them: finished states that are kept, or states with gradients for each batch.

Made by `run`, called by the loop for every batch. How texts are tokenised and encoded is passed in.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import torch

from lora_trainer.conditioning import TextStates, Tokens

Tokenize = Callable[[Sequence[str]], Tokens]
"""Texts -> their tokens, on the CPU."""
Encode = Callable[[Tokens], TextStates]
"""Tokens -> states, on the text encoders' device."""

_KEPT_BYTES = 1 << 30
"""About 4500 captions of SD 1.x or 1700 of SDXL in fp32, twice as many in 16 bits."""
_KEPT_TEXTS = 65536


class TextSource(Protocol):
    """Where the states of a batch's captions come from."""

    def states(self, captions: Sequence[str]) -> TextStates:
        """The states of captions, in their order."""
        ...


class FrozenTexts:
    """States of encoders that are not trained: each text is encoded once, and kept while there is room.

    Texts are encoded one at a time, so that their states depend on nothing else: not on the batch, nor on what was
    encoded before, nor on a restart.
    """

    def __init__(self, tokenize: Tokenize, encode: Encode, *, kept_bytes: int = _KEPT_BYTES) -> None:
        self._tokenize, self._encode, self._room = tokenize, encode, kept_bytes
        self._kept: OrderedDict[str, TextStates] = OrderedDict()

    def prepare(self, captions: Iterable[str]) -> None:
        """Encodes captions now; for those that every draw gives, before the encoder makes room for the training."""
        for caption in dict.fromkeys(captions):
            self._states(caption)

    def states(self, captions: Sequence[str]) -> TextStates:
        """The states of captions, in their order, without gradients."""
        return TextStates.cat([self._states(caption) for caption in captions])

    @torch.no_grad()
    def _states(self, caption: str) -> TextStates:
        states = self._kept.get(caption)
        if states is None:
            states = self._kept[caption] = self._encode(self._tokenize([caption]))
            self._room -= _size_bytes(states)
            while self._room < 0 and len(self._kept) > 1:
                self._room += _size_bytes(self._kept.popitem(last=False)[1])
        self._kept.move_to_end(caption)
        return states


class TrainedTexts:
    """States of encoders that are trained: computed for every batch, with gradients; tokens are kept."""

    def __init__(self, tokenize: Tokenize, encode: Encode, *, kept_texts: int = _KEPT_TEXTS) -> None:
        self._tokenize, self._encode, self._room = tokenize, encode, kept_texts
        self._kept: OrderedDict[str, Tokens] = OrderedDict()

    def states(self, captions: Sequence[str]) -> TextStates:
        """The states of captions, in their order."""
        return self._encode(Tokens.cat([self._tokens(caption) for caption in captions]))

    def _tokens(self, caption: str) -> Tokens:
        tokens = self._kept.get(caption)
        if tokens is None:
            tokens = self._kept[caption] = self._tokenize([caption])
            if len(self._kept) > self._room:
                self._kept.popitem(last=False)
        self._kept.move_to_end(caption)
        return tokens


def _size_bytes(states: TextStates) -> int:
    return states.states.nbytes + (0 if states.pooled is None else states.pooled.nbytes)
