"""Values against schemas: unknown fields, pruning, defaults and validation, worded as a real API server does.

Works on structural schemas of custom resources and on the published types of built-in kinds.
"""

import math
import re
from collections.abc import Callable, Iterator
from typing import Any

from lora_devcluster.builtin import resolve
from lora_devcluster.documents import copied
from lora_devcluster.errors import Cause, Json, invalid_value, required, unsupported
from lora_devcluster.formats import has_format

_CHECKS: dict[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
}


def _is_integer(value: Any) -> bool:
    return (isinstance(value, int) and not isinstance(value, bool)) or (isinstance(value, float) and value.is_integer())


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_type(value: Any, name: str) -> bool:
    """Whether a JSON value has the JSON-schema type; 1.0 counts as an integer."""
    if name == "integer":
        return _is_integer(value)
    return _is_number(value) if name == "number" else _CHECKS[name](value)


def type_name(value: Any) -> str:
    """The JSON-schema type of a value."""
    kinds = ("null", "boolean", "integer", "number", "string", "array", "object")
    return next(kind for kind in kinds if is_type(value, kind))


def join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _children(schema: Json, value: Any, path: str) -> Iterator[tuple[Json, Any, str]]:
    """The value's parts that the schema describes: (schema, part, path)."""
    if isinstance(value, dict):
        properties = schema.get("properties") or {}
        additional = schema.get("additionalProperties")
        for name, part in value.items():
            if name in properties:
                yield resolve(properties[name]), part, join(path, name)
            elif isinstance(additional, dict):
                yield resolve(additional), part, f"{path}[{name}]" if "." in name else join(path, name)
    elif isinstance(value, list) and isinstance(schema.get("items"), dict):
        items = resolve(schema["items"])
        for index, part in enumerate(value):
            yield items, part, f"{path}[{index}]"


def _is_open(schema: Json) -> bool:
    """Whether an object may hold fields that the schema does not name."""
    if schema.get("x-kubernetes-preserve-unknown-fields") or schema.get("additionalProperties"):
        return True
    return "properties" not in schema and schema.get("type") != "object" and not schema.get("oneOf")


_EMBEDDED = ("apiVersion", "kind", "metadata")


def unknown_fields(schema: Json, value: Any, path: str = "") -> Iterator[str]:
    """Paths of fields that the schema does not name; null values are looked into as little as the server does."""
    schema = resolve(schema)
    if isinstance(value, dict) and not _is_open(schema):
        known = schema.get("properties") or {}
        embedded = _EMBEDDED if schema.get("x-kubernetes-embedded-resource") else ()
        yield from (join(path, name) for name in value if name not in known and name not in embedded)
    for child, part, where in _children(schema, value, path):
        yield from unknown_fields(child, part, where)


def prune(schema: Json, value: Any) -> Any:
    """The value without the fields that the schema does not name."""
    schema = resolve(schema)
    if isinstance(value, list):
        items = schema.get("items")
        return [prune(items, part) for part in value] if isinstance(items, dict) else value
    if not isinstance(value, dict):
        return value
    properties, additional = schema.get("properties") or {}, schema.get("additionalProperties")
    keep = set(value) if _is_open(schema) else set(properties)
    if schema.get("x-kubernetes-embedded-resource"):
        keep.update(_EMBEDDED)
    pruned = {}
    for name, part in value.items():
        if name in keep:
            child = properties.get(name, additional)
            pruned[name] = prune(child, part) if isinstance(child, dict) else part
    return pruned


def with_defaults(schema: Json, value: Any) -> Any:
    """The value with the schema's defaults filled in; a null that is not allowed counts as absent."""
    if isinstance(value, list):
        items = schema.get("items")
        return [with_defaults(items, part) for part in value] if isinstance(items, dict) else value
    if not isinstance(value, dict):
        return value
    properties, additional = schema.get("properties") or {}, schema.get("additionalProperties")
    filled = dict(value)
    for name, child in properties.items():
        absent = name not in filled or (filled[name] is None and not child.get("nullable"))
        if absent and "default" in child:
            filled[name] = copied(child["default"])
        elif absent and name in filled:
            del filled[name]
    for name, part in filled.items():
        child = properties.get(name, additional)
        if isinstance(child, dict):
            filled[name] = with_defaults(child, part)
    return filled


_CONSTRAINTS = frozenset(
    ("enum", "maxLength", "minLength", "pattern", "format", "minimum", "maximum", "multipleOf", "maxItems", "minItems",
     "x-kubernetes-list-type", "required", "maxProperties", "minProperties", "allOf", "anyOf", "oneOf", "not")
)  # fmt: skip
"""What a schema may say beside types and parts; most say nothing of it, and every write is checked by hundreds."""


def violations(schema: Json, value: Any, path: str = "") -> Iterator[Cause]:
    """Why a value does not fit its schema; nothing when it does."""
    schema = resolve(schema)
    if value is None and (schema.get("nullable") or not _types(schema)):
        return
    faults = list(_type_faults(schema, value, path))
    yield from faults
    if faults:
        return
    if not _CONSTRAINTS.isdisjoint(schema):
        yield from _own_faults(schema, value, path)
        yield from _combination_faults(schema, value, path)
    for child, part, where in _children(schema, value, path):
        yield from violations(child, part, where)


def _types(schema: Json) -> tuple[str, ...]:
    if schema.get("x-kubernetes-int-or-string"):
        return "integer", "string"
    kind = schema.get("type")
    return tuple(kind) if isinstance(kind, list) else (kind,) if kind else ()


def _type_faults(schema: Json, value: Any, path: str) -> Iterator[Cause]:
    types = _types(schema)
    if types and not any(is_type(value, name) for name in types):
        wanted = ",".join(name for name in types if name != "null")
        seen = type_name(value)
        yield Cause(
            path,
            "FieldValueTypeInvalid",
            f'Invalid value: "{seen}": {path} in body must be of type {wanted}: "{seen}"',
        )


def _own_faults(schema: Json, value: Any, path: str) -> Iterator[Cause]:
    if schema.get("enum") is not None and value not in schema["enum"]:
        yield unsupported(path, value, schema["enum"])
    if isinstance(value, str):
        yield from _string_faults(schema, value, path)
    elif _is_number(value):
        yield from _number_faults(schema, value, path)
    elif isinstance(value, list):
        yield from _list_faults(schema, value, path)
    elif isinstance(value, dict):
        yield from _object_faults(schema, value, path)


def _string_faults(schema: Json, value: str, path: str) -> Iterator[Cause]:
    if len(value) > schema.get("maxLength", math.inf):
        yield Cause(path, "FieldValueTooLong", f"Too long: may not be more than {schema['maxLength']} bytes")
    if len(value) < schema.get("minLength", 0):
        yield invalid_value(path, value, f"{path} in body should be at least {schema['minLength']} chars long")
    if "pattern" in schema and not re.search(schema["pattern"], value):
        yield invalid_value(path, value, f"{path} in body should match '{schema['pattern']}'")
    if not has_format(value, schema.get("format", "")):
        yield invalid_value(path, value, f"{path} in body must be of type {schema['format']}: {value!r}")


def _number_faults(schema: Json, value: float, path: str) -> Iterator[Cause]:
    low, high = schema.get("minimum", -math.inf), schema.get("maximum", math.inf)
    if value < low or (schema.get("exclusiveMinimum") and value == low):
        words = "" if schema.get("exclusiveMinimum") else " or equal to"
        yield invalid_value(path, value, f"{path} in body should be greater than{words} {low}")
    if value > high or (schema.get("exclusiveMaximum") and value == high):
        words = "" if schema.get("exclusiveMaximum") else " or equal to"
        yield invalid_value(path, value, f"{path} in body should be less than{words} {high}")
    step = schema.get("multipleOf")
    if step and not math.isclose(value / step, round(value / step), abs_tol=1e-9):
        yield invalid_value(path, value, f"{path} in body should be a multiple of {step}")
    bits = {"int32": 31, "int64": 63}.get(schema.get("format", ""))
    if bits and not -(2**bits) <= value < 2**bits:
        yield invalid_value(path, value, f"{path} in body must be of type {schema['format']}: {value}")


def _list_faults(schema: Json, value: list[Any], path: str) -> Iterator[Cause]:
    if len(value) > schema.get("maxItems", math.inf):
        yield Cause(path, "FieldValueTooMany", f"Too many: {len(value)}: must have at most {schema['maxItems']} items")
    if len(value) < schema.get("minItems", 0):
        yield invalid_value(path, value, f"{path} in body should have at least {schema['minItems']} items")
    yield from _duplicates(schema, value, path)


def _duplicates(schema: Json, value: list[Any], path: str) -> Iterator[Cause]:
    kind, keys = schema.get("x-kubernetes-list-type"), schema.get("x-kubernetes-list-map-keys") or ()
    seen: list[Any] = []
    for index, part in enumerate(value if kind in ("set", "map") else ()):
        identity = {key: part.get(key) for key in keys} if kind == "map" and isinstance(part, dict) else part
        if identity in seen:
            shown = "{" + ", ".join(f'"{k}":"{v}"' for k, v in identity.items()) + "}" if kind == "map" else f'"{part}"'
            yield Cause(f"{path}[{index}]", "FieldValueDuplicate", f"Duplicate value: {shown}")
        seen.append(identity)


def _object_faults(schema: Json, value: Json, path: str) -> Iterator[Cause]:
    for name in schema.get("required") or ():
        if value.get(name, None) is None and not _null_is_allowed(schema, value, name):
            yield required(join(path, name))
    if len(value) > schema.get("maxProperties", math.inf):
        most = schema["maxProperties"]
        yield Cause(path, "FieldValueTooMany", f"Too many: {len(value)}: must have at most {most} items")
    if len(value) < schema.get("minProperties", 0):
        least = schema["minProperties"]
        yield invalid_value(path, value, f"{path} in body should have at least {least} properties")


def _null_is_allowed(schema: Json, value: Json, name: str) -> bool:
    return name in value and bool((schema.get("properties") or {}).get(name, {}).get("nullable"))


def _combination_faults(schema: Json, value: Any, path: str) -> Iterator[Cause]:
    def fits(part: Json) -> bool:
        return next(violations(part, value, path), None) is None

    for part in schema.get("allOf") or ():
        yield from violations(part, value, path)
    if schema.get("anyOf") and not any(fits(part) for part in schema["anyOf"]):
        yield invalid_value(path, value, f"{path} in body must validate at least one schema (anyOf)")
    if schema.get("oneOf") and sum(fits(part) for part in schema["oneOf"]) == 0:
        yield invalid_value(path, value, f"{path} in body must validate one and only one schema (oneOf)")
    if schema.get("not") and fits(schema["not"]):
        yield invalid_value(path, value, f"{path} in body must not validate the schema (not)")
