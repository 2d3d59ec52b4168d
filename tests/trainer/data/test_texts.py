"""Captions as states, kept or computed for every batch."""

from collections.abc import Sequence

import pytest
import torch

from lora_trainer.conditioning import TextStates, Tokens
from lora_trainer.data.texts import FrozenTexts, TrainedTexts


def tokenize(texts: Sequence[str]) -> Tokens:
    return Tokens(torch.tensor([[[[len(text)]]] for text in texts]))


class Encoder:
    """States (B, 1, 1) of twice the length, pooled (B, 1) of three times; notes the batches it is asked for."""

    def __init__(self) -> None:
        self.weight = torch.tensor(2.0, requires_grad=True)
        self.batches: list[list[int]] = []

    def __call__(self, tokens: Tokens) -> TextStates:
        lengths = tokens.ids[:, 0, 0]  # (B, 1)
        self.batches.append(lengths.flatten().tolist())
        return TextStates((lengths * self.weight)[:, None], lengths * 3.0)


def test_frozen_states_come_in_the_order_of_the_captions_without_gradients() -> None:
    texts = FrozenTexts(tokenize, Encoder())

    result = texts.states(["cccc", "aa", "b", "aa"])

    assert result.states.flatten().tolist() == [8.0, 4.0, 2.0, 4.0]
    assert result.pooled is not None and result.pooled.flatten().tolist() == [12.0, 6.0, 3.0, 6.0]
    assert not result.states.requires_grad


def test_each_different_text_is_encoded_once_and_alone() -> None:
    encoder = Encoder()
    texts = FrozenTexts(tokenize, encoder)

    texts.prepare(["aa", "b", "aa"])
    texts.states(["b", "ccc", "aa"])

    assert encoder.batches == [[2], [1], [3]]


def test_the_text_used_longest_ago_makes_room() -> None:
    encoder = Encoder()
    texts = FrozenTexts(tokenize, encoder, kept_bytes=2 * 8)  # each takes 4 bytes of states and 4 of pooled

    for caption in ("a", "bb", "a", "ccc", "a", "bb"):
        texts.states([caption])

    assert encoder.batches == [[1], [2], [3], [2]]


def test_a_text_too_large_to_keep_is_encoded_all_the_same() -> None:
    texts = FrozenTexts(tokenize, Encoder(), kept_bytes=0)

    assert texts.states(["aa", "b"]).states.flatten().tolist() == [4.0, 2.0]


def test_trained_states_carry_gradients_to_the_encoder_of_the_whole_batch() -> None:
    encoder = Encoder()
    texts = TrainedTexts(tokenize, encoder)

    result = texts.states(["cccc", "b"])
    result.states.sum().backward()  # type: ignore[no-untyped-call]

    assert result.states.flatten().tolist() == [8.0, 2.0]
    assert encoder.weight.grad is not None and float(encoder.weight.grad) == 5.0
    assert encoder.batches == [[4, 1]]


@pytest.mark.parametrize(("kept", "calls"), [(2, 2), (1, 4)])
def test_tokens_of_trained_texts_are_kept_while_there_is_room(kept: int, calls: int) -> None:
    asked: list[str] = []

    def counting(texts: Sequence[str]) -> Tokens:
        asked.extend(texts)
        return tokenize(texts)

    texts = TrainedTexts(counting, Encoder(), kept_texts=kept)
    for _ in range(2):
        texts.states(["aa", "b"])

    assert len(asked) == calls


def test_weights_of_tokens_are_joined_with_their_ids() -> None:
    first = Tokens(torch.zeros(1, 1, 1, 77, dtype=torch.int64), torch.ones(1, 1, 1, 77))
    second = Tokens(torch.ones(1, 1, 1, 77, dtype=torch.int64), torch.full((1, 1, 1, 77), 2.0))

    joined = Tokens.cat([first, second])

    assert joined.ids[:, 0, 0, 0].tolist() == [0, 1]
    assert joined.weights is not None and joined.weights[:, 0, 0, 0].tolist() == [1.0, 2.0]
