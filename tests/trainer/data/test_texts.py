"""Captions as states, computed once or for every batch."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lora_trainer.data.texts import frozen_texts, trained_texts

CPU = torch.device("cpu")
CAPTIONS = ["aa", "b", "aa", "cccc"]


def tokenize(texts: Sequence[str]) -> Tensor:
    return torch.tensor([[[len(text)]] for text in texts])


class Encoder:
    """Counts what it is asked."""

    def __init__(self) -> None:
        self.weight = torch.tensor(2.0, requires_grad=True)
        self.texts = 0

    def __call__(self, ids: Tensor) -> Tensor:
        self.texts += len(ids)
        return ids.float() * self.weight


def test_frozen_states_are_computed_once_for_each_different_caption() -> None:
    encoder = Encoder()
    states = frozen_texts(CAPTIONS, tokenize, encoder, device=CPU)

    result = states([3, 0, 2, 1])

    assert result.flatten().tolist() == [8.0, 4.0, 4.0, 2.0]
    assert encoder.texts == 3
    assert not result.requires_grad


def test_trained_states_carry_gradients_to_the_encoder() -> None:
    encoder = Encoder()
    states = trained_texts(CAPTIONS, tokenize, encoder, device=CPU)

    result = states([3, 1])
    result.sum().backward()

    assert result.flatten().tolist() == [8.0, 2.0]
    assert encoder.weight.grad is not None and float(encoder.weight.grad) == 5.0
