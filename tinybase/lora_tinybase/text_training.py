"""Trains the text encoder to carry what a caption says, before and apart from the denoiser. Used by `train`.

SD 1.x takes its text encoder from CLIP, trained with pictures beforehand and frozen. Here the drawings' known
attributes stand in for CLIP's pictures: from the states at and after the end mark, linear heads must read shape,
colour, background, size and which tokens occurred (so that unknown words leave a trace that a LoRA can use).
The last layer and the one before it are trained alike, so that clip skip 2 means something.
"""

import logging
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional as fn
from transformers import CLIPTextModel, CLIPTokenizer

from lora_tinybase import drawings
from lora_tinybase.progress import Checkpoint, set_cosine_rate

log = logging.getLogger(__name__)

PEAK_RATE = 1e-3
BATCH = 64
SHORT = 40  # positions in most batches: the longest caption fits
BAG_WEIGHT = 30.0  # mean over the vocabulary is small; this gives it about one attribute's share

ATTRIBUTES: tuple[tuple[str, ...], ...] = (
    tuple(drawings.SHAPES),
    tuple(drawings.COLOURS),
    tuple(drawings.BACKGROUNDS),
    ("big",),
)


@dataclass(frozen=True)
class Captions:
    """Token ids [n, positions], attribute classes [n, 4] (0 = not said) and tokens present [n, vocabulary]."""

    ids: torch.Tensor
    classes: torch.Tensor
    present: torch.Tensor


def classes_of(scene: drawings.Scene, text: str, named: tuple[bool, bool, bool]) -> list[int]:
    """What the caption says about shape, colour, background and size, as class numbers, 0 = nothing."""
    words = (scene.shape, scene.colour, scene.background)
    said = [ATTRIBUTES[i].index(word) + 1 if named[i] else 0 for i, word in enumerate(words)]
    return [*said, int("big" in text.split())]


def sample_captions(tokenizer: CLIPTokenizer, rng: np.random.Generator, *, count: int, positions: int) -> Captions:
    """`count` random captions; held-out combinations stay unseen here too."""
    picks = rng.integers(len(drawings.TRAINED), size=count)
    scenes = [drawings.place(drawings.TRAINED[i], rng) for i in picks]
    told = [drawings.caption(scene, rng) for scene in scenes]
    texts = [text for text, _ in told]
    ids = tokenizer(texts, padding="max_length", max_length=positions, truncation=True, return_tensors="pt").input_ids
    classes = [classes_of(scene, text, named) for scene, (text, named) in zip(scenes, told, strict=True)]
    present = torch.zeros(count, len(tokenizer)).scatter_(1, ids, 1.0)
    return Captions(ids, torch.tensor(classes), present)


class Readers(nn.Module):
    """Linear heads that read the attributes and the set of tokens from states [n, width]."""

    def __init__(self, width: int, vocabulary: int) -> None:
        super().__init__()
        self.attributes = nn.ModuleList(nn.Linear(width, len(words) + 1) for words in ATTRIBUTES)
        self.bag = nn.Linear(width, vocabulary)

    def loss(self, states: torch.Tensor, captions: Captions) -> torch.Tensor:
        """Cross entropy of the attributes plus the weighted one of the tokens."""
        said = [fn.cross_entropy(head(states), captions.classes[:, i]) for i, head in enumerate(self.attributes)]
        bag = fn.binary_cross_entropy_with_logits(self.bag(states), captions.present)
        return torch.stack(said).sum() + BAG_WEIGHT * bag

    def accuracy(self, states: torch.Tensor, captions: Captions) -> float:
        """Share of captions whose four attributes are all read right."""
        right = [head(states).argmax(1) == captions.classes[:, i] for i, head in enumerate(self.attributes)]
        return float(torch.stack(right).all(0).float().mean())


def states_of(encoder: CLIPTextModel, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """States [n, positions, width] after the final norm, for clip skip 1 and for clip skip 2."""
    text_model = getattr(encoder, "text_model", encoder)  # transformers 5.6 dropped the inner module
    layers = encoder(ids, output_hidden_states=True).hidden_states
    return text_model.final_layer_norm(layers[-1]), text_model.final_layer_norm(layers[-2])


def _read_positions(ids: torch.Tensor, end_id: int, generator: torch.Generator) -> torch.Tensor:
    """For each caption one random position at or after its first end mark, [n]."""
    first = (ids == end_id).int().argmax(1)
    return first + (torch.rand(len(ids), generator=generator) ** 2 * (ids.shape[1] - first)).long()


def train(encoder: CLIPTextModel, tokenizer: CLIPTokenizer, *, steps: int, seed: int, checkpoint: Checkpoint) -> None:
    """Trains in place for `steps`; cosine rate; every eighth batch has all 77 positions. Resumes."""
    width, vocabulary = encoder.config.hidden_size, len(tokenizer)
    readers = [Readers(width, vocabulary), Readers(width, vocabulary)]
    both = nn.ModuleDict({"encoder": encoder, "readers": nn.ModuleList(readers)})
    optimizer = torch.optim.AdamW(both.parameters(), lr=PEAK_RATE, weight_decay=0.01, fused=True)
    state = {"model": both, "optimizer": optimizer}
    for step in range(checkpoint.restore(state), steps):
        key = seed * 1_000_003 + step
        generator = torch.Generator().manual_seed(key)
        positions = encoder.config.max_position_embeddings if step % 8 == 7 else SHORT
        captions = sample_captions(tokenizer, np.random.default_rng(key), count=BATCH, positions=positions)
        where = _read_positions(captions.ids, tokenizer.eos_token_id, generator)
        rows = torch.arange(len(where))
        read = [states[rows, where] for states in states_of(encoder, captions.ids)]
        losses = [reader.loss(states, captions) for reader, states in zip(readers, read, strict=True)]
        torch.autograd.backward(torch.stack(losses).sum())
        torch.nn.utils.clip_grad_norm_(both.parameters(), 1.0)
        set_cosine_rate(optimizer, step, steps=steps, peak=PEAK_RATE)
        optimizer.step()
        optimizer.zero_grad()
        right = [reader.accuracy(states, captions) for reader, states in zip(readers, read, strict=True)]
        checkpoint.report(step + 1, steps, state, loss=losses[0].item(), read=right[0], read_skip_2=right[1])
