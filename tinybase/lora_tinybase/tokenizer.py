"""A byte-level BPE of CLIP's kind over the few words of the drawings. Used by `assemble` and the training stages.

Same layout and rules as CLIP's vocabulary (https://github.com/openai/CLIP, simple_tokenizer.py): 256 byte
characters, the same with the end-of-word mark, one entry per merge, start and end marks last. So any text has
ids, and every word of the captions is one token.
"""

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

from transformers import CLIPTokenizer

from lora_tinybase import drawings

POSITIONS = 77
START, END = "<|startoftext|>", "<|endoftext|>"
EXTRA_WORDS = (
    "shape",
    "emblem",
    "picture",
    "photo",
    "style",
    "the",
    "with",
    "and",
    "no",
    "small",
    "white",
    "orange",
)


def words() -> list[str]:
    """Every word that gets a token of its own, sorted."""
    phrases = [
        *drawings.PREFIXES,
        *drawings.SUFFIXES,
        *drawings.SHAPES,
        *drawings.COLOURS,
        *drawings.BACKGROUNDS,
    ]
    phrases += ["a big on background", *EXTRA_WORDS]
    return sorted({word.strip(",") for phrase in phrases for word in phrase.split()} - {""})


def byte_characters() -> list[str]:
    """One printable character for each byte, in CLIP's order of the vocabulary."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return [chr(byte) for byte in printable] + [chr(256 + i) for i in range(256 - len(printable))]


def learn_merges(corpus: list[str]) -> list[tuple[str, str]]:
    """Merges that join the most frequent pair first (ties by spelling) until each word is one token."""
    pieces = [[*word[:-1], word[-1] + "</w>"] for word in corpus]
    merges: list[tuple[str, str]] = []
    while pairs := Counter(pair for word in pieces for pair in pairwise(word)):
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        pieces = [_join(word, best) for word in pieces]
    return merges


def _join(word: list[str], pair: tuple[str, str]) -> list[str]:
    joined: list[str] = []
    for piece in word:
        if joined and (joined[-1], piece) == pair:
            joined[-1] += piece
        else:
            joined.append(piece)
    return joined


def vocabulary(merges: list[tuple[str, str]]) -> dict[str, int]:
    """Token to id, in CLIP's order."""
    characters = byte_characters()
    tokens = [*characters, *(c + "</w>" for c in characters), *("".join(m) for m in merges), START, END]
    return {token: i for i, token in enumerate(tokens)}


def build() -> CLIPTokenizer:
    """The tokenizer itself, ready to use."""
    merges = learn_merges(words())
    return CLIPTokenizer(vocab=vocabulary(merges), merges=merges, model_max_length=POSITIONS)


def save(folder: Path) -> None:
    """Writes vocab.json, merges.txt, tokenizer_config.json and special_tokens_map.json, as SD 1.x folders hold."""
    folder.mkdir(parents=True, exist_ok=True)
    merges = learn_merges(words())
    marks = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    config = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": POSITIONS,
        "do_lower_case": True,
    } | marks
    lines = ["#version: 0.2", *(" ".join(merge) for merge in merges), ""]
    (folder / "merges.txt").write_text("\n".join(lines), encoding="utf-8")
    for name, content in (
        ("vocab.json", vocabulary(merges)),
        ("tokenizer_config.json", config),
        ("special_tokens_map.json", marks),
    ):
        (folder / name).write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
