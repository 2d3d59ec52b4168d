"""Randomness as a function of (seed, what for): no generator is kept, so none has to be saved or shared.

Used wherever something is drawn at random; tensors are drawn by `generators`. Without torch, so that planning is
quick.
"""

import hashlib
from enum import StrEnum


class Purpose(StrEnum):
    """What a random number is for; the first part after the seed, so that no two purposes share a stream."""

    NOISE = "noise"
    NOISE_OFFSET = "noise offset"
    MULTIRES_NOISE = "multires noise"
    PERTURBATION = "perturbation"
    TIMESTEP = "timestep"
    ORDER = "order"
    FLIP = "flip"
    INIT = "init"
    SAMPLE = "sample"
    NETWORK_DROPOUT = "network dropout"
    VARIANT = "variant"
    CROP = "crop"
    COLOR = "color"
    CAPTION = "caption"
    HOLD_OUT = "hold out"
    EVALUATION = "evaluation"


def derive_seed(seed: int, *parts: int | str) -> int:
    """A 63-bit seed that depends on all of `parts` and their order, the same on every machine and for ever.

    BLAKE2b-64 over the length-prefixed texts of `seed` and `parts`, without its top bit
    (torch and NumPy both take 63 bits).
    """
    digest = hashlib.blake2b(digest_size=8)
    for part in (seed, *parts):
        text = f"{'i' if isinstance(part, int) else 's'}{part}".encode()
        digest.update(len(text).to_bytes(4, "little") + text)
    return int.from_bytes(digest.digest(), "little") >> 1


def uniform(seed: int, *parts: int | str) -> float:
    """A number in [0, 1), evenly spread: the upper 53 bits of `derive_seed(seed, *parts)`."""
    return (derive_seed(seed, *parts) >> 10) / 2**53
