"""Values of sd-scripts as they stand in command lines, JSON, TOML and metadata, made what they mean.

Used by `arguments`. `""`, `None` and `"None"` mean: not given.
"""

import ast
import shlex
from collections.abc import Callable
from enum import Enum
from typing import Any

_TRUE, _FALSE = {"true", "1", "yes"}, {"false", "0", "no"}


class Kind(Enum):
    """What an argument holds."""

    FLAG = "true or false"
    INTEGER = "a whole number"
    NUMBER = "a number"
    NUMBERS = "numbers, such as 768,512"
    SHARE = "a number of steps, a share below 1 or a percentage"
    TEXT = "text"
    TEXTS = "texts, such as name=value"


def read_value(kind: Kind, raw: object) -> Any:
    """`raw` as the argument's kind; None when nothing is given. Raises ValueError if it is nothing of the kind."""
    if raw is None or (isinstance(raw, str) and raw.strip() in {"", "None"}):
        return None
    return _READERS[kind](raw)


def _flag(raw: object) -> bool:
    if isinstance(raw, (bool, int)):
        return bool(raw)
    text = str(raw).strip().lower()
    if text in _TRUE | _FALSE:
        return text in _TRUE
    raise ValueError(raw)


def _number(raw: object) -> float:
    if isinstance(raw, bool) or not isinstance(raw, (int, float, str)):
        raise ValueError(raw)
    number = float(raw)
    if not abs(number) < float("inf"):
        raise ValueError(raw)
    return number


def _integer(raw: object) -> int:
    number = _number(raw)
    if number != int(number):
        raise ValueError(raw)
    return int(number)


def _numbers(raw: object) -> tuple[float, ...]:
    if isinstance(raw, str):
        raw = [part for part in raw.strip("()[] ").replace("x", ",").replace(" ", ",").split(",") if part]
    return tuple(_number(part) for part in (raw if isinstance(raw, (list, tuple)) else [raw]))


def _share(raw: object) -> float:
    """Below 1: a share of all steps; from 1 on: steps."""
    if isinstance(raw, str) and raw.strip().endswith("%"):
        return _number(raw.strip()[:-1]) / 100
    return _number(raw)


def _texts(raw: object) -> tuple[str, ...]:
    if isinstance(raw, str):
        return tuple(shlex.split(raw))
    return tuple(str(part) for part in (raw if isinstance(raw, (list, tuple)) else [raw]))


_READERS: dict[Kind, Callable[[object], Any]] = {
    Kind.FLAG: _flag,
    Kind.INTEGER: _integer,
    Kind.NUMBER: _number,
    Kind.NUMBERS: _numbers,
    Kind.SHARE: _share,
    Kind.TEXT: str,
    Kind.TEXTS: _texts,
}


def read_pairs(texts: tuple[str, ...]) -> dict[str, str]:
    """`("a=1", "b=2")` by name. Raises ValueError for a text without `=`."""
    pairs = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError(text)
        pairs[name.strip()] = value.strip().strip("\"'")
    return pairs


def read_literal(text: str) -> str:
    """A value as Python writes it: `0.9,0.99` as `(0.9, 0.99)`; what is no literal stays as it is."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
    return str(value) if isinstance(value, (tuple, list)) else text
