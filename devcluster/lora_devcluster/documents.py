"""Copies of JSON values; many times faster than `copy.deepcopy`, which a cluster of objects would feel."""

import marshal
from typing import Any, TypeVar, cast

T = TypeVar("T")
_WITHOUT_REFERENCES = 2
"""Format of marshal that writes a part that stands twice in a value twice, so that its copies are two."""


def copied(value: T) -> T:
    """The value with dictionaries and lists of its own, all the way down."""
    try:
        return cast(T, marshal.loads(marshal.dumps(cast(Any, value), _WITHOUT_REFERENCES)))
    except ValueError:
        # YAML has dates, and enumerations are text of a type of their own.
        return _copied_by_part(value)


def _copied_by_part(value: T) -> T:
    if isinstance(value, dict):
        return cast(T, {name: _copied_by_part(part) for name, part in value.items()})
    if isinstance(value, list):
        return cast(T, [_copied_by_part(part) for part in value])
    return value
