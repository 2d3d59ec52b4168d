"""The tokenizer: one token per known word, ids for any text, and a folder that transformers reads back."""

from pathlib import Path

import pytest
from transformers import CLIPTokenizer

from lora_tinybase import tokenizer


@pytest.fixture(scope="module")
def words() -> CLIPTokenizer:
    return tokenizer.build()


def test_every_known_word_is_one_token(words: CLIPTokenizer) -> None:
    lengths = {word: len(words(word).input_ids) - 2 for word in tokenizer.words()}

    assert set(lengths.values()) == {1}, lengths


@pytest.mark.parametrize("text", ["a big red circle on a pink background", "zwx emblem", "naïve 日本 café!"])
def test_decoding_gives_the_text_back(words: CLIPTokenizer, text: str) -> None:
    ids = words(text).input_ids

    decoded = words.decode(ids, skip_special_tokens=True)

    assert decoded.replace(" ", "") == text.replace(" ", "")


def test_a_prompt_is_padded_to_77_with_the_end_mark(words: CLIPTokenizer) -> None:
    ids = words("a red circle", padding="max_length").input_ids

    assert len(ids) == 77
    assert ids[0] == words.bos_token_id
    assert set(ids[4:]) == {words.eos_token_id}


def test_saved_folder_gives_the_same_ids(words: CLIPTokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)

    loaded = CLIPTokenizer.from_pretrained(tmp_path)

    text = "a zwx emblem on a gray background, clean edges"
    assert loaded(text, padding="max_length").input_ids == words(text, padding="max_length").input_ids
    assert {path.name for path in tmp_path.iterdir()} == {
        "vocab.json",
        "merges.txt",
        "tokenizer_config.json",
        "special_tokens_map.json",
    }


def test_merges_join_the_most_frequent_pair_first() -> None:
    assert tokenizer.learn_merges(["aab", "aac"])[0] == ("a", "a")
