"""CLIP's byte-pair vocabulary, which ships with the package, and counting tokens with it; never imports torch.

Used for single-file checkpoints, which hold no tokenizer, and by `lora plan`.
"""

import gzip
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from transformers import CLIPTokenizer

from lora_trainer.families.emphasis import Piece, split_emphasis

START, END = "<|startoftext|>", "<|endoftext|>"

_FILE = Path(__file__).parent / "clip_vocabulary" / "bpe_simple_vocab_16e6.txt.gz"
_MERGES = 48_894
"""CLIP uses this many of the file's merges, after its first line."""


@cache
def clip_tokenizer(pad: str = END) -> Any:
    """The tokenizer of all CLIP models; SD 2.x and the second encoder of SDXL pad with `!`, the others with the end."""
    with gzip.open(_FILE, "rt", encoding="utf-8") as file:
        lines = file.read().split("\n")[1 : _MERGES + 1]
    merges = [(left, right) for left, right in (line.split() for line in lines)]
    letters = _byte_letters()
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *(f"{left}{right}" for left, right in merges)]
    vocabulary = {token: index for index, token in enumerate([*tokens, START, END])}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77, pad_token=pad)


def count_tokens(texts: Sequence[str], *, weighted: bool = False) -> list[int]:
    """Tokens of each text, without start and end; `weighted`: emphasis is syntax and does not count."""
    return [len(weighted_ids(text, clip_tokenizer(), weighted=weighted)) for text in texts]


def weighted_ids(text: str, tokenizer: Any, *, weighted: bool) -> list[tuple[int, float]]:
    """Id and weight of each token of a text; stretches of different weight are tokenised one by one."""
    pieces = split_emphasis(text) if weighted else (Piece(text, 1.0),)
    return [
        (token, piece.weight)
        for piece in pieces
        # verbose: else it warns of texts that are too long for one chunk.
        for token in tokenizer(piece.text, add_special_tokens=False, verbose=False).input_ids
    ]


def _byte_letters() -> list[str]:
    """The printable letter that stands for each byte in byte-level BPE (GPT-2), printable bytes first."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = 256 - len(printable)
    return [chr(code) for code in printable] + [chr(256 + index) for index in range(others)]
