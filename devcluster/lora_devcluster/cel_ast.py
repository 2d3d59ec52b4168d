"""The checked syntax tree of a CEL expression, read from its serialized form. Used by the cost estimate.

Field numbers are those of https://github.com/google/cel-spec/blob/master/proto/cel/expr/syntax.proto
"""

from dataclasses import dataclass
from typing import Any

from lora_devcluster.proto import Fields, message


@dataclass(frozen=True)
class Constant:
    """A literal; its size in characters is 0 for everything but strings and bytes."""

    size: int = 0


@dataclass(frozen=True)
class Ident:
    name: str


@dataclass(frozen=True)
class Select:
    """A field of the operand, or with `is_test` whether it is there."""

    operand: "Expr"
    field: str
    is_test: bool


@dataclass(frozen=True)
class Call:
    """A function with its target, if it is a method, as the first argument."""

    function: str
    arguments: tuple["Expr", ...]


@dataclass(frozen=True)
class Create:
    """A list, map or message literal."""

    kind: str
    parts: tuple["Expr", ...]


@dataclass(frozen=True)
class Comprehension:
    """What macros such as `all` and `map` become."""

    variable: str
    over: "Expr"
    accumulator: str
    start: "Expr"
    condition: "Expr"
    step: "Expr"
    result: "Expr"


Expr = Constant | Ident | Select | Call | Create | Comprehension

_CONSTANT, _IDENT, _SELECT, _CALL, _LIST, _STRUCT, _COMPREHENSION = range(3, 10)


def read_checked(serialized: bytes) -> Expr:
    """The tree in a checked expression as the compiler serializes it, inside a `google.protobuf.Any`."""
    checked = message(message(serialized)[2][0])
    return _expr(checked[4][0])


def _text(fields: Fields, number: int) -> str:
    return str(fields[number][0].decode()) if number in fields else ""


def _expr(data: bytes) -> Expr:
    fields = message(data)
    kind = next(number for number in range(_CONSTANT, _COMPREHENSION + 1) if number in fields)
    inner = message(fields[kind][0])
    match kind:
        case 3:
            return Constant(max((len(inner[number][0]) for number in (6, 7) if number in inner), default=0))
        case 4:
            return Ident(_text(inner, 1))
        case 5:
            return Select(_expr(inner[1][0]), _text(inner, 2), bool(inner.get(3, [0])[0]))
        case 6:
            return Call(_text(inner, 2), tuple(_expr(part) for part in [*inner.get(1, ()), *inner.get(3, ())]))
        case 7:
            return Create("list", tuple(_expr(part) for part in inner.get(1, ())))
        case 8:
            return _struct(inner)
        case _:
            return _comprehension(inner)


def _struct(fields: Fields) -> Create:
    parts: list[Any] = []
    for entry in fields.get(2, ()):
        inner = message(entry)
        parts += [*inner.get(3, ()), *inner.get(4, ())]
    return Create("message" if 1 in fields else "map", tuple(_expr(part) for part in parts))


def _comprehension(fields: Fields) -> Comprehension:
    over, start, condition, step, result = (_expr(fields[number][0]) for number in (2, 4, 5, 6, 7))
    return Comprehension(_text(fields, 1), over, _text(fields, 3), start, condition, step, result)
