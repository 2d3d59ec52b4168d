"""`network.blocks` from sd-scripts' ranks, alphas and learning-rate weights of each block of the UNet."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lora_trainer.migration.unusable import UnusableSettings
from lora_trainer.migration.values import Kind, read_value

_SD = ([f"IN{i:02}" for i in range(12)], ["M00"], [f"OUT{i:02}" for i in range(12)])
_SDXL = ([f"IN{i:02}" for i in range(9)], ["M00", "M01", "M02"], [f"OUT{i:02}" for i in range(9)])
_PARTS = ("down_lr_weight", "mid_lr_weight", "up_lr_weight")
_PRESETS: Mapping[str, Callable[[int, int], float]] = {
    "sine": lambda i, n: math.sin(math.pi / 2 * i / (n - 1)),
    "cosine": lambda i, n: math.sin(math.pi / 2 * (n - 1 - i) / (n - 1)),
    "linear": lambda i, n: i / (n - 1),
    "reverse_linear": lambda i, n: (n - 1 - i) / (n - 1),
    "zeros": lambda i, n: 0.0,
}


def block_entries(options: Mapping[str, str], network: Mapping[str, Any], *, is_sdxl: bool) -> list[dict[str, Any]]:
    """Entries for the blocks that differ from `network` (its fields by path).

    Raises:
        UnusableSettings: a list has not as many numbers as there are blocks, or holds no numbers.
    """
    parts = _SDXL if is_sdxl else _SD
    names = [name for part in parts for name in part]
    entries: dict[str, dict[str, Any]] = {name: {} for name in names}
    for option, field, same in (
        ("block_dims", "rank", network.get("network.rank")),
        ("block_alphas", "alpha", network.get("network.alpha")),
        ("conv_block_dims", "convRank", network.get("network.convRank")),
        ("conv_block_alphas", "convAlpha", network.get("network.convAlpha")),
    ):
        if option in options:
            for name, value in zip(names, _per_block(option, options[option], is_sdxl=is_sdxl), strict=True):
                if value != same:
                    entries[name][field] = int(value) if field.endswith("ank") else value
    for name, factor in _factors(options, parts).items():
        if factor != 1:
            entries[name]["learningRateFactor"] = factor
    return [{"name": name, **entry} for name, entry in entries.items() if entry]


def _per_block(option: str, text: str, *, is_sdxl: bool) -> tuple[float, ...]:
    """One number a block; of the 23 of SDXL the first and the last belong to layers without adapters."""
    numbers = _numbers(option, text)
    expected = 23 if is_sdxl else 25
    if len(numbers) != expected:
        raise UnusableSettings(
            f"network_args {option} has {len(numbers)} numbers, but must have {expected}, one a block; change it"
        )
    return numbers[1:-1] if is_sdxl else numbers


def _factors(options: Mapping[str, str], parts: Sequence[Sequence[str]]) -> dict[str, float]:
    threshold = float(_numbers("block_lr_zero_threshold", options.get("block_lr_zero_threshold", "0"))[0])
    factors: dict[str, float] = {}
    for option, part in zip(_PARTS, parts, strict=True):
        if option in options:
            weights = _weights(option, options[option], len(part))
            factors |= {name: 0.0 if value <= threshold else value for name, value in zip(part, weights, strict=True)}
    return factors


def _weights(option: str, text: str, count: int) -> list[float]:
    """As many weights as blocks: too few are filled up with 1, too many cut off, as in sd-scripts."""
    name, _, base = text.partition("+")
    if name.strip() in _PRESETS:
        offset = float(_numbers(option, base or "0")[0])
        # With a single block a curve has its first value.
        return [_PRESETS[name.strip()](i, max(count, 2)) + offset for i in range(count)]
    numbers = list(_numbers(option, text))
    return (numbers + [1.0] * count)[:count]


def _numbers(option: str, text: str) -> tuple[float, ...]:
    try:
        numbers: tuple[float, ...] = read_value(Kind.NUMBERS, text)
    except ValueError as error:
        raise UnusableSettings(f"network_args {option} is '{text}', but must be numbers; change it") from error
    return numbers
