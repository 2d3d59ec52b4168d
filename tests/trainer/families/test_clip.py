"""Chunks of tokens, and what is made of the encoder's states."""

from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from lora_trainer.families.clip import ClipText, Reading, caption_states, prompt_states, tokenize_for
from lora_trainer.families.vocabulary import clip_tokenizer

START, END = 49406, 49407
CAT = 2368


def ids_of(text: str, *, max_tokens: int = 75, pad: str = "<|endoftext|>", weighted: bool = False) -> list[list[int]]:
    """Ids of the chunks of a text."""
    ids, _ = ClipText(None, clip_tokenizer(pad)).tokenize([text], Reading(1, max_tokens, weighted))
    chunks: list[list[int]] = ids[0].tolist()
    return chunks


def sd_scripts_chunks(count: int, *, max_tokens: int, pad: int) -> list[list[int]]:
    """Chunks of a text of `count` equal words by windows over one padded row, as sd-scripts cuts them."""
    words = [CAT] * min(count, max_tokens)
    row = [START, *words, END] + [pad] * (max_tokens - len(words))
    if max_tokens == 75:
        return [row]
    chunks = [[START, *row[first : first + 75], row[-1]] for first in range(1, max_tokens + 1, 75)]
    for chunk in chunks:
        if chunk[-2] not in (END, pad):
            chunk[-1] = END
        if chunk[1] == pad:
            chunk[1] = END
    return chunks


def cats(count: int) -> str:
    """A text of `count` words that are one token each."""
    return " ".join(["cat"] * count)


@pytest.mark.parametrize("pad", [("<|endoftext|>", END), ("!", 0)], ids=["pad end", "pad 0"])
@pytest.mark.parametrize("max_tokens", [75, 150, 225])
@pytest.mark.parametrize("count", [0, 1, 10, 74, 75, 76, 80, 149, 150, 160, 225, 300])
def test_chunks_equal_those_of_sd_scripts(count: int, max_tokens: int, pad: tuple[str, int]) -> None:
    chunks = ids_of(cats(count), max_tokens=max_tokens, pad=pad[0])

    assert chunks == sd_scripts_chunks(count, max_tokens=max_tokens, pad=pad[1])


def test_a_long_text_fills_chunk_after_chunk() -> None:
    chunks = ids_of(cats(160), max_tokens=225)

    assert [chunk.count(CAT) for chunk in chunks] == [75, 75, 10]
    assert all(chunk[0] == START and chunk[-1] == END and len(chunk) == 77 for chunk in chunks)


def test_a_text_of_exactly_75_tokens_is_kept_whole() -> None:
    assert ids_of(cats(75)) == [[START, *[CAT] * 75, END]]


def test_an_empty_chunk_that_is_padded_with_zero_still_has_its_end() -> None:
    chunks = ids_of(cats(10), max_tokens=150, pad="!")

    assert chunks[1] == [START, END, *[0] * 75]


def test_emphasis_weighs_words_and_nothing_else() -> None:
    text = ClipText(None, clip_tokenizer())

    ids, weights = text.tokenize(["a (red:1.5) cat"], Reading(weighted=True))

    assert weights[0, 0, :5].tolist() == [1.0, 1.0, 1.5, 1.0, 1.0]
    assert weights[0, 0, 5:].eq(1).all()
    assert ids[0].tolist() == ids_of("a red cat")


def test_brackets_are_words_unless_captions_are_weighted() -> None:
    tokens = tokenize_for(["a (red:1.5) cat"], [ClipText(None, clip_tokenizer())], Reading())

    assert tokens.weights is None
    assert tokens.ids[0, 0].tolist() == ids_of("a ( red : 1 . 5 ) cat")


@dataclass(frozen=True)
class CountingEncoder:
    """Its state at a place of a chunk is (layer, number of the chunk, place); the norm adds 1000 to the layer."""

    layers: int = 3

    def __call__(self, ids: Tensor, *, output_hidden_states: bool) -> SimpleNamespace:
        rows, length = ids.shape
        places = torch.stack(torch.meshgrid(torch.arange(rows), torch.arange(length), indexing="ij"), dim=-1).float()
        states = [torch.cat([torch.full((rows, length, 1), layer), places], -1) for layer in range(self.layers + 1)]
        return SimpleNamespace(hidden_states=states, last_hidden_state=self.final_layer_norm(states[-1]))

    def final_layer_norm(self, states: Tensor) -> Tensor:
        return states + torch.tensor([1000.0, 0.0, 0.0])

    def text_projection(self, states: Tensor) -> Tensor:
        return -states


TEXT = ClipText(CountingEncoder(), clip_tokenizer())


def test_states_are_the_first_start_all_words_and_the_last_end() -> None:
    states, _ = TEXT.encode(torch.zeros(1, 3, 77, dtype=torch.int64), None, layer=1, normed=True, join=caption_states)

    places = [(0, 0), *((chunk, place) for chunk in range(3) for place in range(1, 76)), (2, 76)]
    assert states.shape == (1, 227, 3)
    assert [(int(chunk), int(place)) for _, chunk, place in states[0].tolist()] == places


@pytest.mark.parametrize(("layer", "normed", "expected"), [(1, True, 1003), (2, True, 1002), (2, False, 2)])
def test_the_layer_is_counted_from_the_end_and_normed_on_demand(layer: int, normed: bool, expected: int) -> None:
    states, last = TEXT.encode(
        torch.zeros(2, 1, 77, dtype=torch.int64), None, layer=layer, normed=normed, join=caption_states
    )

    assert states[..., 0].unique().tolist() == [expected]
    assert last[..., 0].unique().tolist() == [1003]


def test_weights_multiply_states_without_a_correction_of_the_mean() -> None:
    ids = torch.zeros(1, 1, 77, dtype=torch.int64)
    weights = torch.ones(1, 1, 77)
    weights[0, 0, 2] = 1.5

    plain, _ = TEXT.encode(ids, None, layer=1, normed=True, join=caption_states)
    weighted, last = TEXT.encode(ids, weights, layer=1, normed=True, join=caption_states)

    assert weighted[0, 2].equal(plain[0, 2] * 1.5)
    assert weighted[0, [0, 1, 3, 76]].equal(plain[0, [0, 1, 3, 76]])
    assert last[0].equal(plain[0])


def test_prompts_keep_whole_chunks_as_in_the_web_ui() -> None:
    states, _ = TEXT.encode(torch.zeros(1, 2, 77, dtype=torch.int64), None, layer=1, normed=True, join=prompt_states)

    places = [(int(chunk), int(place)) for _, chunk, place in states[0].tolist()]
    assert places == [(chunk, place) for chunk in range(2) for place in range(77)]


def test_emphasis_in_prompts_leaves_the_mean_of_each_chunk_as_it_was() -> None:
    states = torch.arange(1.0, 2 * 77 * 3 + 1).view(1, 2, 77, 3)
    weights = torch.ones(1, 2, 77)
    weights[0, 0, 5] = 1.5

    first, second = prompt_states(states, weights)[0].split(77)

    factor = states[0, 0].mean() / (states[0, 0].sum() + states[0, 0, 5].sum() / 2) * 77 * 3
    torch.testing.assert_close(first[4:6], states[0, 0, 4:6] * torch.tensor([[1.0], [1.5]]) * factor)
    torch.testing.assert_close(second, states[0, 1])


@pytest.mark.parametrize("mean", [0.0, 0.004, -0.004])
def test_states_whose_mean_is_next_to_0_are_weighted_without_a_correction(mean: float) -> None:
    states = torch.tensor([mean - 1.0, mean + 1.0]).expand(1, 1, 77, 2)

    assert prompt_states(states, torch.full((1, 1, 77), 1.5)).equal(states[0] * 1.5)


@pytest.mark.parametrize("pad", ["<|endoftext|>", "!"])
def test_the_pooled_state_is_that_of_the_first_end_of_the_first_chunk(pad: str) -> None:
    text = ClipText(CountingEncoder(), clip_tokenizer(pad))
    ids, _ = text.tokenize([cats(3), cats(90)], Reading(max_tokens=150))
    _, last = text.encode(ids, None, layer=1, normed=True, join=caption_states)

    pooled = text.pool(last, ids)

    assert (-pooled).tolist() == [[1003, 0, 4], [1003, 2, 76]]
