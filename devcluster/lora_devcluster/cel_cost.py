"""An estimate of what a CEL rule may cost at worst, in the spirit of the API server's own.

Every operation costs about 1; work on strings and lists costs in proportion to their largest size, which the schema
bounds by maxLength, maxItems and maxProperties, or the size of a request where it does not.
https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#resource-use-by-validation-functions
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from lora_devcluster.cel_ast import Call, Comprehension, Constant, Create, Expr, Ident, Select
from lora_devcluster.cel_types import escaped
from lora_devcluster.errors import Json

RULE_LIMIT = 10_000_000.0
DEFINITION_LIMIT = 100_000_000.0
_REQUEST_BYTES = 3 * 1024 * 1024
_STRING_FACTOR, _REGEX_FACTOR = 0.1, 0.25
_LITERAL_COSTS = {"list": 10.0, "map": 30.0, "message": 40.0}
_FORMAT_SIZES = {"date": 10, "date-time": 25, "datetime": 25, "duration": 32}
_CONCATENATIONS = ("_+_", "join", "format")
_SAME_SIZE = (
    "lowerAscii", "upperAscii", "replace", "substring", "trim", "charAt", "reverse", "sort", "filter", "split",
    "flatten", "slice", "distinct", "string", "bytes",
)  # fmt: skip
_LINEAR = (
    "indexOf", "lastIndexOf", "sum", "min", "max", "isSorted", "sets.contains",
    "sets.equivalent", "sets.intersects", *_SAME_SIZE,
)  # fmt: skip
_COMPARISONS = ("_==_", "_!=_", "_<_", "_<=_", "_>_", "_>=_")


def min_serialized(schema: Json) -> int:
    """The fewest bytes that a value of the schema takes in JSON."""
    match schema.get("type"):
        case "object":
            properties = schema.get("properties") or {}
            named = [name for name in schema.get("required") or () if name in properties]
            return 2 + sum(len(name) + 4 + min_serialized(properties[name]) for name in named)
        case "boolean":
            return 4
        case "number" | "integer":
            return 1
        case _:
            return 2


def max_elements(schema: Json | None) -> float:
    """How many characters, items or entries a value of the schema holds at most."""
    if schema is None:
        return float(_REQUEST_BYTES)
    match schema.get("type"):
        case "string":
            return _string_size(schema)
        case "array":
            return float(schema.get("maxItems", (_REQUEST_BYTES - 2) // (min_serialized(schema["items"]) + 1)))
        case "object" if schema.get("properties"):
            return float(len(schema["properties"]))
        case "object":
            values = schema.get("additionalProperties")
            smallest = min_serialized(values) if isinstance(values, dict) else 2
            return float(schema.get("maxProperties", (_REQUEST_BYTES - 2) // (smallest + 5)))
        case "integer" | "number" | "boolean":
            return 1.0
        case _:
            return float(_REQUEST_BYTES)


def _string_size(schema: Json) -> float:
    if schema.get("enum"):
        return float(max(len(str(value)) for value in schema["enum"]))
    if schema.get("format") in _FORMAT_SIZES:
        return float(_FORMAT_SIZES[schema["format"]])
    # A character takes up to four bytes, and the server counts bytes.
    return 4.0 * schema["maxLength"] if "maxLength" in schema else float(_REQUEST_BYTES - 2)


@dataclass(frozen=True)
class Size:
    """How large a value may be, and its schema where that is known."""

    elements: float
    schema: Json | None = None

    @classmethod
    def of(cls, schema: Json | None) -> "Size":
        return cls(max_elements(schema), schema)


_SCALAR = Size(1.0, {"type": "boolean"})
_KEY = Size(0.0, {"type": "string"})
"""A map's key. The server's estimate has no length for keys and counts none."""


def _field(size: Size, name: str) -> Size:
    schema = size.schema or {}
    for plain, child in (schema.get("properties") or {}).items():
        if escaped(plain) == name:
            return Size.of(child)
    values = schema.get("additionalProperties")
    return Size.of(values if isinstance(values, dict) else None)


def _element(size: Size, as_key: bool) -> Size:
    """What iteration or indexing yields: items of a list; the keys, or when indexed the values, of a map."""
    schema = size.schema or {}
    if schema.get("type") == "object":
        values = schema.get("additionalProperties")
        return _KEY if as_key else Size.of(values if isinstance(values, dict) else None)
    items = schema.get("items")
    return Size.of(items if isinstance(items, dict) else None)


class Estimator:
    """Walks a rule's tree; `cost` and `size` are worst cases."""

    def __init__(self, schema: Json) -> None:
        self._schema = schema

    def cost(self, expr: Expr) -> float:
        """The cost of one evaluation."""
        root = Size.of(self._schema)
        return self._visit(expr, {"self": root, "oldSelf": root})[0]

    def _visit(self, expr: Expr, names: Mapping[str, Size]) -> tuple[float, Size]:
        match expr:
            case Constant(size=size):
                return 0.0, Size(float(size), {"type": "string"})
            case Ident(name=name):
                return 1.0, names.get(name, _SCALAR)
            case Select():
                cost, operand = self._visit(expr.operand, names)
                return cost + 1, _SCALAR if expr.is_test else _field(operand, expr.field)
            case Create():
                return self._literal(expr, names)
            case Call():
                return self._call(expr, names)
            case Comprehension():
                return self._comprehension(expr, names)

    def _literal(self, expr: Create, names: Mapping[str, Size]) -> tuple[float, Size]:
        visited = [self._visit(part, names) for part in expr.parts]
        item = max((size for _, size in visited), key=lambda size: size.elements, default=_SCALAR)
        shape = {"type": "array", "items": item.schema or {}}
        return _LITERAL_COSTS[expr.kind] + sum(cost for cost, _ in visited), Size(float(len(visited)), shape)

    def _call(self, expr: Call, names: Mapping[str, Size]) -> tuple[float, Size]:
        visited = [self._visit(part, names) for part in expr.arguments]
        costs, sizes = [cost for cost, _ in visited], [size for _, size in visited]
        if expr.function == "_?_:_":
            return costs[0] + max(costs[1:]), max(sizes[1:], key=lambda size: size.elements)
        own = _own_cost(expr.function, [size.elements for size in sizes])
        return sum(costs) + own, _result_size(expr.function, sizes)

    def _comprehension(self, expr: Comprehension, names: Mapping[str, Size]) -> tuple[float, Size]:
        over_cost, over = self._visit(expr.over, names)
        start_cost, start = self._visit(expr.start, names)
        grown = Size(over.elements, start.schema) if isinstance(expr.start, Create) else start
        inner = {**names, expr.variable: _element(over, as_key=True), expr.accumulator: grown}
        turn = self._visit(expr.condition, inner)[0] + self._visit(expr.step, inner)[0]
        result_cost, result = self._visit(expr.result, inner)
        return over_cost + start_cost + over.elements * turn + result_cost, result


def _own_cost(function: str, sizes: list[float]) -> float:
    match function:
        case "contains":
            return math.prod(max(size * _STRING_FACTOR, 1.0) for size in sizes)
        case "matches":
            return max((sizes[0] + 1) * _STRING_FACTOR, 1.0) * max(sizes[1] * _REGEX_FACTOR, 1.0)
        case "startsWith" | "endsWith":
            return max(sizes[1] * _STRING_FACTOR, 1.0)
        case "@in" | "in":
            return max(sizes[1], 1.0)
        case _ if function in _COMPARISONS:
            return max(min(sizes) * _STRING_FACTOR, 1.0)
        case _ if function in _CONCATENATIONS:
            return max(sum(sizes) * _STRING_FACTOR, 1.0)
        case _ if function in _LINEAR:
            return max(sizes[0] * _STRING_FACTOR, 1.0)
        case _:
            return 1.0


def _result_size(function: str, sizes: list[Size]) -> Size:
    if function in ("_[_]", "_[?_]", "_?._"):
        return _element(sizes[0], as_key=False)
    if function in _CONCATENATIONS:
        return Size(sum(size.elements for size in sizes), sizes[0].schema)
    if function in _SAME_SIZE:
        inner = {"type": "array", "items": {"type": "string"}} if function == "split" else sizes[0].schema
        return Size(sizes[0].elements, inner)
    if function in ("orValue", "optional.of", "value", "dyn", "_?_"):
        return max(sizes, key=lambda size: size.elements)
    return _SCALAR
