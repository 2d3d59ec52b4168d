"""Copies of JSON values; several times faster than `copy.deepcopy`, which a cluster of objects would feel."""

from typing import TypeVar, cast

T = TypeVar("T")


def copied(value: T) -> T:
    """The value with dictionaries and lists of its own, all the way down."""
    if isinstance(value, dict):
        return cast(T, {name: copied(part) for name, part in value.items()})
    if isinstance(value, list):
        return cast(T, [copied(part) for part in value])
    return value
