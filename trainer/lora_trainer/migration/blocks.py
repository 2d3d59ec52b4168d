"""`network.blocks` from sd-scripts' ranks, alphas and learning-rate weights of each block of the UNet."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lora_trainer.migration.unusable import UnusableSettings
from lora_trainer.migration.values import Kind, read_value

_SD = ([f"IN{i:02}" for i in range(12)], ["M00"], [f"OUT{i:02}" for i in range(12)])
_SDXL = ([f"IN{i:02}" for i in range(9)], ["M00", "M01", "M02"], [f"OUT{i:02}" for i in range(9)])
_SIZES = ("block_dims", "block_alphas", "conv_block_dims", "conv_block_alphas")
_THRESHOLD = "block_lr_zero_threshold"
_PARTS = ("down_lr_weight", "mid_lr_weight", "up_lr_weight")
_PRESETS: Mapping[str, Callable[[int, int], float]] = {
    "sine": lambda i, n: math.sin(math.pi / 2 * i / (n - 1)),
    "cosine": lambda i, n: math.sin(math.pi / 2 * (n - 1 - i) / (n - 1)),
    "linear": lambda i, n: i / (n - 1),
    "reverse_linear": lambda i, n: (n - 1 - i) / (n - 1),
    "zeros": lambda i, n: 0.0,
}


def take_block_lists(options: dict[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Takes the lists of numbers out of `options`: those in use, and those that sd-scripts does not read.

    It reads none unless ranks or weights of learning rates are among them, and no alphas of convolutions without
    their ranks.
    """
    lists = {name: options.pop(name) for name in (*_SIZES, *_PARTS, _THRESHOLD) if name in options}
    unread: set[str] = set()
    if not {"block_dims", *_PARTS} & lists.keys():
        unread = set(lists)
    elif "conv_block_dims" not in lists:
        unread = {"conv_block_alphas"} & lists.keys()
    return ({n: text for n, text in lists.items() if n not in unread}, {n: lists[n] for n in lists if n in unread})


def block_entries(options: Mapping[str, str], network: Mapping[str, Any], *, is_sdxl: bool) -> list[dict[str, Any]]:
    """Entries for the blocks that differ from `network` (its fields by path).

    Raises:
        UnusableSettings: a list has not as many numbers as there are blocks, or holds no numbers.
    """
    parts = _SDXL if is_sdxl else _SD
    names = [name for part in parts for name in part]
    entries: dict[str, dict[str, Any]] = {name: {} for name in names}
    for ranks, alphas, rank_field, alpha_field in (
        ("block_dims", "block_alphas", "rank", "alpha"),
        ("conv_block_dims", "conv_block_alphas", "convRank", "convAlpha"),
    ):
        rank, alpha = network.get(f"network.{rank_field}"), network.get(f"network.{alpha_field}")
        own_ranks = _per_block(ranks, options, names, default=rank, is_sdxl=is_sdxl)
        own_alphas = _per_block(alphas, options, names, default=alpha, is_sdxl=is_sdxl)
        for name, own_rank, own_alpha in zip(names, own_ranks, own_alphas, strict=True):
            if own_rank != rank:
                entries[name][rank_field] = int(own_rank)
            # An alpha of 0 means the rank, as in sd-scripts.
            if (own_alpha or own_rank) != alpha and own_alpha is not None and own_rank != 0:
                entries[name][alpha_field] = float(own_alpha or own_rank)
    for name, factor in _factors(options, parts).items():
        if factor != 1:
            entries[name]["learningRateFactor"] = factor
    return [{"name": name, **entry} for name, entry in entries.items() if entry]


def _per_block(
    option: str, options: Mapping[str, str], names: Sequence[str], *, default: Any, is_sdxl: bool
) -> Sequence[Any]:
    """One number a block; of the 23 of SDXL the first and the last belong to layers without adapters."""
    if option not in options:
        return [default] * len(names)
    numbers = _numbers(option, options[option])
    expected = 23 if is_sdxl else 25
    if len(numbers) != expected:
        raise UnusableSettings(
            f"network_args {option} has {len(numbers)} numbers, but must have {expected}, one a block; change it"
        )
    return numbers[1:-1] if is_sdxl else numbers


def _factors(options: Mapping[str, str], parts: Sequence[Sequence[str]]) -> dict[str, float]:
    threshold = float(_numbers(_THRESHOLD, options.get(_THRESHOLD, "0"))[0])
    factors: dict[str, float] = {}
    for option, part in zip(_PARTS, parts, strict=True):
        if option in options:
            weights = _weights(option, options[option], len(part))
            factors |= {name: 0.0 if value <= threshold else value for name, value in zip(part, weights, strict=True)}
    return factors


def _weights(option: str, text: str, count: int) -> list[float]:
    """As many weights as blocks, as in sd-scripts: too few are filled up with 1, too many cut off, empty ones are 0."""
    name, _, base = text.partition("+")
    if name.strip() in _PRESETS:
        offset = float(_numbers(option, base or "0")[0])
        # With a single block a curve has its first value.
        return [_PRESETS[name.strip()](i, max(count, 2)) + offset for i in range(count)]
    numbers = list(_numbers(option, ",".join(part.strip() or "0" for part in text.split(","))))
    return (numbers + [1.0] * count)[:count]


def _numbers(option: str, text: str) -> tuple[float, ...]:
    try:
        numbers: tuple[float, ...] = read_value(Kind.NUMBERS, text)
    except ValueError as error:
        raise UnusableSettings(f"network_args {option} is '{text}', but must be numbers; change it") from error
    return numbers
