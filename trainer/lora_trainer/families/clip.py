"""CLIP text encoders as Stable Diffusion reads them: captions in chunks of 75 tokens; used by every family.

The layout of chunks is that of kohya's sd-scripts and AUTOMATIC1111: each chunk is a start token, up to 75 tokens
of the caption, an end token, and padding up to 77.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lora_trainer.conditioning import Tokens
from lora_trainer.families.vocabulary import weighted_ids

CHUNK_TOKENS = 75
"""Tokens of a caption that CLIP reads at once, between a start and an end token."""

_LEAST_MEAN = 0.01
"""Share of the mean size of a chunk's states that their mean must have to be held by emphasis."""

Join = Callable[[Tensor, Tensor | None], Tensor]
"""(states (B, chunks, 77, D), weights of tokens (B, chunks, 77) or None) -> states (B, L, D) of the whole text."""


@dataclass(frozen=True)
class Reading:
    """How captions are read, as the spec says."""

    clip_skip: int = 1
    max_tokens: int = CHUNK_TOKENS
    """75, 150 or 225 tokens of a caption are read."""
    weighted: bool = False
    """Read AUTOMATIC1111's emphasis."""


@dataclass(frozen=True)
class ClipText:
    """A CLIP text encoder and the tokenizer that belongs to it."""

    encoder: Any
    tokenizer: Any

    @property
    def prefix(self) -> str:
        """What stands before the names of its modules; transformers flattened one of the two classes in 5.6."""
        return "text_model." if hasattr(self.encoder, "text_model") else ""

    @property
    def layers(self) -> int:
        """Number of its transformer layers."""
        return int(self.encoder.config.num_hidden_layers)

    def layer_prefix(self, index: int) -> str:
        """Prefix of the names of all modules of a layer, counted from 0."""
        return f"{self.prefix}encoder.layers.{index}."

    def tokenize(self, texts: Sequence[str], reading: Reading) -> tuple[Tensor, Tensor]:
        """Ids (B, chunks, 77) and weights (B, chunks, 77) of the tokens; start, end and padding weigh 1."""
        rows = [self._chunks(text, reading) for text in texts]
        ids = torch.tensor([[chunk_ids for chunk_ids, _ in row] for row in rows], dtype=torch.int64)
        weights = torch.tensor([[chunk_weights for _, chunk_weights in row] for row in rows])
        return ids, weights

    def count_tokens(self, texts: Sequence[str], *, weighted: bool) -> list[int]:
        """Tokens of each text, uncut, without start and end."""
        return [len(weighted_ids(text, self.tokenizer, weighted=weighted)) for text in texts]

    def encode(
        self, ids: Tensor, weights: Tensor | None, *, layer: int, normed: bool, join: Join
    ) -> tuple[Tensor, Tensor]:
        """States (B, L, D) of ids (B, chunks, 77), and the last layer's (B, 77, D) of the first chunk.

        Args:
            ids: as `tokenize` gives them.
            weights: factor on the state of each token, like `ids`.
            layer: which hidden state, counted from the end: 1 is the last layer's.
            normed: whether the final layer norm is applied to it; the last layer's states always are normed.
            join: makes one text of its chunks: `caption_states` or `prompt_states`.
        """
        batch, chunks, length = ids.shape
        output = self.encoder(ids.flatten(0, 1), output_hidden_states=True)
        states: Tensor = output.hidden_states[-layer]
        if normed:
            states = getattr(self.encoder, "text_model", self.encoder).final_layer_norm(states)
        states = states.reshape(batch, chunks, length, -1)
        last = output.last_hidden_state.reshape(batch, chunks, length, -1)[:, 0]
        return join(states, weights), last

    def pool(self, last: Tensor, ids: Tensor) -> Tensor:
        """Projected states (B, P) of the first end token of the first chunk, of the last layer's states (B, 77, D).

        By the tokenizer's id: model configurations name a wrong one, for which transformers keeps a work-around.
        """
        ends = (ids[:, 0] == self.tokenizer.eos_token_id).int().argmax(dim=-1)
        pooled: Tensor = self.encoder.text_projection(last[torch.arange(len(last), device=last.device), ends])
        return pooled

    def _chunks(self, text: str, reading: Reading) -> list[tuple[list[int], list[float]]]:
        words = weighted_ids(text, self.tokenizer, weighted=reading.weighted)[: reading.max_tokens]
        return [
            self._chunk(words[start : start + CHUNK_TOKENS]) for start in range(0, reading.max_tokens, CHUNK_TOKENS)
        ]

    def _chunk(self, words: Sequence[tuple[int, float]]) -> tuple[list[int], list[float]]:
        start, end, pad = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id, self.tokenizer.pad_token_id
        free = CHUNK_TOKENS - len(words)
        ids = [start, *(word for word, _ in words), end, *[pad] * free]
        return ids, [1.0, *(weight for _, weight in words), 1.0, *[1.0] * free]


def tokenize_for(texts: Sequence[str], encoders: Sequence[ClipText], reading: Reading) -> Tokens:
    """Tokens of `texts` for each of the encoders; weights only where captions are weighted."""
    ids, weights = zip(*(encoder.tokenize(texts, reading) for encoder in encoders), strict=True)
    return Tokens(torch.stack(ids, dim=1), torch.stack(weights, dim=1) if reading.weighted else None)


def caption_states(states: Tensor, weights: Tensor | None) -> Tensor:
    """(B, 75 chunks + 2, D): the first start state, the 75 states of each chunk, the last end state, as sd-scripts."""
    if weights is not None:
        states = states * weights[..., None].to(states.dtype)
    words = states[:, :, 1:-1].flatten(1, 2)  # (B, 75 chunks, D)
    return torch.cat([states[:, 0, :1], words, states[:, -1, -1:]], dim=1)


def prompt_states(states: Tensor, weights: Tensor | None) -> Tensor:
    """(B, 77 chunks, D): whole chunks, whose mean emphasis leaves as it was, as in AUTOMATIC1111's WebUI.

    Not where the mean is next to nothing: there its quotient is noise, and so would the picture be.
    """
    if weights is not None:
        weighted = states * weights[..., None].to(states.dtype)
        means, weighted_means = (each.float().mean(dim=(2, 3), keepdim=True) for each in (states, weighted))
        smallest = states.float().abs().mean(dim=(2, 3), keepdim=True) * _LEAST_MEAN
        says_something = torch.minimum(means.abs(), weighted_means.abs()) > smallest
        factor = torch.where(says_something, means / weighted_means, 1.0)
        states = (weighted * factor).to(states.dtype)
    return states.flatten(1, 2)
