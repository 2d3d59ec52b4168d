"""Which further arguments each optimizer takes, and what they may be; read by the spec, so before any download.

Pure data: the classes themselves are known to the trainer only, and a test compares this table with them.
"""

import ast
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

Value = bool | int | float | tuple[float, ...] | None
"""What an argument may be: a Python literal."""


@dataclass(frozen=True)
class Kind:
    """What an argument may be, in words and as a test."""

    words: str
    fits: Callable[[Value], bool]


def _is_number(value: Value, low: float, high: float = math.inf) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value < high


def _are_shares(value: Value, count: int) -> bool:
    return isinstance(value, tuple) and len(value) == count and all(_is_number(one, 0, 1) for one in value)


_FLAG = Kind("True or False", lambda value: isinstance(value, bool))
_COUNT = Kind("a whole number of at least 0", lambda value: isinstance(value, int) and _is_number(value, 0))
_SIZE = Kind("a whole number of at least 1", lambda value: isinstance(value, int) and _is_number(value, 1))
_AMOUNT = Kind("a number of at least 0", lambda value: _is_number(value, 0))
_POSITIVE = Kind("a number above 0", lambda value: _is_number(value, 0) and value != 0)
_GROWTH = Kind("a number of at least 1", lambda value: _is_number(value, 1))
_EXPONENT = Kind("a number below 0", lambda value: _is_number(value, -math.inf, 0))
_SHARE = Kind("a number from 0 to below 1", lambda value: _is_number(value, 0, 1))
_MOMENTUM = Kind("a number above 0 and below 1", lambda value: _is_number(value, 0, 1) and value != 0)
_SHARE_OR_NONE = Kind("None, or a number from 0 to below 1", lambda value: value is None or _is_number(value, 0, 1))
_TWO = Kind("two numbers from 0 to below 1, such as (0.9, 0.99)", lambda value: _are_shares(value, 2))
_THREE = Kind("three numbers from 0 to below 1, such as (0.98, 0.92, 0.99)", lambda value: _are_shares(value, 3))
_TWO_POSITIVE = Kind(
    "two numbers above 0, such as (1e-30, 1e-3)",
    lambda value: isinstance(value, tuple) and len(value) == 2 and all(_is_number(v, 0) and v != 0 for v in value),
)
_ONLY_FALSE = Kind(
    "False: with True, learningRate and schedule would have no effect", lambda value: value is False
)  # fmt: skip

_Arguments = Mapping[str, Kind]
_ADAM: _Arguments = {"betas": _TWO, "eps": _POSITIVE, "weight_decay": _AMOUNT}
_LION: _Arguments = {"betas": _TWO, "weight_decay": _AMOUNT}
_SGD: _Arguments = {"momentum": _MOMENTUM, "weight_decay": _AMOUNT}
_IN_8_BIT: _Arguments = {"min_8bit_size": _COUNT}
_ADAPTATION: _Arguments = {"d0": _POSITIVE, "growth_rate": _GROWTH, "log_every": _COUNT, "weight_decay": _AMOUNT}
_DADAPT_ADAM: _Arguments = {**_ADAPTATION, "betas": _TWO, "eps": _POSITIVE, "decouple": _FLAG}
_DADAPT_ADAN: _Arguments = {**_ADAPTATION, "betas": _THREE, "eps": _POSITIVE, "no_prox": _FLAG}
_AVERAGING: _Arguments = {"r": _AMOUNT, "weight_lr_power": _AMOUNT, "weight_decay": _AMOUNT}

ARGUMENTS: Mapping[str, _Arguments] = {
    "adamw": {**_ADAM, "amsgrad": _FLAG},
    "adamw8bit": {**_ADAM, **_IN_8_BIT},
    "pagedadamw": {**_ADAM, **_IN_8_BIT},
    "pagedadamw8bit": {**_ADAM, **_IN_8_BIT},
    "pagedadamw32bit": {**_ADAM, **_IN_8_BIT},
    "lion": {**_LION, **_IN_8_BIT},
    "lion8bit": {**_LION, **_IN_8_BIT},
    "pagedlion8bit": {**_LION, **_IN_8_BIT},
    "sgdnesterov": _SGD,
    "sgdnesterov8bit": {**_SGD, **_IN_8_BIT},
    "adafactor": {
        "eps": _TWO_POSITIVE,
        "clip_threshold": _POSITIVE,
        "decay_rate": _EXPONENT,
        "beta1": _SHARE_OR_NONE,
        "weight_decay": _AMOUNT,
        "scale_parameter": _FLAG,
        "relative_step": _ONLY_FALSE,
        "warmup_init": _ONLY_FALSE,
    },
    "prodigy": {
        "betas": _TWO,
        "beta3": _SHARE_OR_NONE,
        "eps": _POSITIVE,
        "weight_decay": _AMOUNT,
        "decouple": _FLAG,
        "use_bias_correction": _FLAG,
        "safeguard_warmup": _FLAG,
        "d0": _POSITIVE,
        "d_coef": _POSITIVE,
        "growth_rate": _GROWTH,
        "slice_p": _SIZE,
    },
    "dadaptation": _DADAPT_ADAM,
    "dadaptadagrad": {**_ADAPTATION, "momentum": _SHARE, "eps": _POSITIVE},
    "dadaptadam": {**_DADAPT_ADAM, "use_bias_correction": _FLAG},
    "dadaptadan": _DADAPT_ADAN,
    "dadaptadanip": _DADAPT_ADAN,
    "dadaptlion": {"d0": _POSITIVE, "log_every": _COUNT, "weight_decay": _AMOUNT, "betas": _TWO},
    "dadaptsgd": {**_ADAPTATION, "momentum": _SHARE},
    "schedulefree": {**_AVERAGING, "betas": _TWO, "eps": _POSITIVE, "warmup_steps": _COUNT},
    "radamschedulefree": {**_AVERAGING, "betas": _TWO, "eps": _POSITIVE, "silent_sgd_phase": _FLAG},
    "sgdschedulefree": {**_AVERAGING, "momentum": _MOMENTUM, "warmup_steps": _COUNT},
}
"""Optimizer -> argument -> what it may be."""


def problems_with(optimizer: str, texts: Mapping[str, str]) -> dict[str, str]:
    """What is wrong with each argument, as the rest of a sentence that starts with its path; empty when all fit."""
    known = ARGUMENTS[optimizer]
    problems = {}
    for name, text in texts.items():
        if name not in known:
            problems[name] = f"is no argument of {optimizer}; known are {', '.join(sorted(known))}"
        elif not _fits(text, known[name]):
            problems[name] = f"is '{text}', but must be {known[name].words}"
    return problems


def argument_values(texts: Mapping[str, str]) -> dict[str, Value]:
    """The arguments as Python values, in their order; `problems_with` has found none."""
    return {name: ast.literal_eval(text) for name, text in texts.items()}


def _fits(text: str, kind: Kind) -> bool:
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return False
    return kind.fits(value)
