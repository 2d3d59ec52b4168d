"""The rules of structural schemas, checked as strictly as a real API server checks them.

https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema
"""

import re
from collections.abc import Iterator

from lora_devcluster.errors import Cause, Json, forbidden, invalid_value, required, unsupported
from lora_devcluster.schema import prune, violations

_TYPES = ("array", "boolean", "integer", "number", "object", "string")
_SCALARS = ("boolean", "integer", "number", "string")
_NEVER = ("$ref", "additionalItems", "definitions", "dependencies", "patternProperties", "id")
_JUNCTORS = ("allOf", "anyOf", "oneOf")
_NOT_IN_JUNCTORS = (
    "type", "title", "description", "default", "additionalProperties", "nullable", "x-kubernetes-embedded-resource",
    "x-kubernetes-int-or-string", "x-kubernetes-list-map-keys", "x-kubernetes-list-type", "x-kubernetes-map-type",
    "x-kubernetes-preserve-unknown-fields", "x-kubernetes-validations",
)  # fmt: skip
_NOT_IN_RE2 = re.compile(r"\(\?(=|!|<=|<!|>|\()|\\[1-9]|[*+?}]\+")
_INT_OR_STRING = [{"type": "integer"}, {"type": "string"}]


def structure_faults(schema: Json, path: str) -> Iterator[Cause]:
    """Everything that keeps the schema of whole objects from being structural."""
    if not schema.get("type"):
        yield required(f"{path}.type", "must not be empty at the root")
    elif schema["type"] != "object":
        yield invalid_value(f"{path}.type", schema["type"], "must be object at the root")
    yield from _metadata_faults((schema.get("properties") or {}).get("metadata"), f"{path}.properties[metadata]")
    yield from _node_faults(schema, path)


def _metadata_faults(schema: Json | None, path: str) -> Iterator[Cause]:
    if schema is None:
        return
    if set(schema.get("properties") or {}) - {"name", "generateName"} or schema.get("additionalProperties"):
        words = "must not specify anything other than name and generateName, but metadata is implicitly specified"
        yield forbidden(path, words)
    if "default" in schema or any("default" in child for child in (schema.get("properties") or {}).values()):
        yield forbidden(f"{path}.default", "must not be set in metadata")


def _node_faults(schema: Json, path: str) -> Iterator[Cause]:
    yield from _type_faults(schema, path)
    yield from _keyword_faults(schema, path)
    yield from _list_faults(schema, path)
    yield from _default_faults(schema, path)
    for junctor in _JUNCTORS:
        if _is_int_or_string_form(schema, junctor):
            continue
        for index, part in enumerate(schema.get(junctor) or ()):
            yield from _junctor_faults(part, schema, f"{path}.{junctor}[{index}]")
    if schema.get("not"):
        yield from _junctor_faults(schema["not"], schema, f"{path}.not")
    for name, child in (schema.get("properties") or {}).items():
        yield from _child_faults(child, f"{path}.properties[{name}]", "specified object fields")
    for keyword, words in (("items", "specified array items"), ("additionalProperties", "specified object fields")):
        if isinstance(schema.get(keyword), dict):
            yield from _child_faults(schema[keyword], f"{path}.{keyword}", words)


def _child_faults(schema: Json, path: str, what: str) -> Iterator[Cause]:
    free = schema.get("x-kubernetes-int-or-string") or schema.get("x-kubernetes-preserve-unknown-fields")
    if not schema.get("type") and not free:
        yield required(f"{path}.type", f"must not be empty for {what}")
    yield from _node_faults(schema, path)


def _is_int_or_string_form(schema: Json, junctor: str) -> bool:
    marked = bool(schema.get("x-kubernetes-int-or-string"))
    return marked and junctor == "anyOf" and schema.get(junctor) == _INT_OR_STRING


def _type_faults(schema: Json, path: str) -> Iterator[Cause]:
    kind = schema.get("type")
    if kind is not None and kind not in _TYPES:
        yield unsupported(f"{path}.type", kind, _TYPES)
    if kind == "array" and schema.get("items") is None:
        yield required(f"{path}.items", "must be specified")
    if isinstance(schema.get("items"), list):
        yield forbidden(f"{path}.items", "items must be a schema object and not an array")
    if schema.get("x-kubernetes-int-or-string") and kind:
        yield invalid_value(f"{path}.type", kind, "must be empty if x-kubernetes-int-or-string is true")
    if schema.get("x-kubernetes-preserve-unknown-fields") is False:
        yield invalid_value(f"{path}.x-kubernetes-preserve-unknown-fields", False, "must be true or undefined")
    if schema.get("x-kubernetes-embedded-resource") and kind != "object":
        yield invalid_value(f"{path}.type", kind or "", "must be object if x-kubernetes-embedded-resource is true")


def _keyword_faults(schema: Json, path: str) -> Iterator[Cause]:
    for keyword in _NEVER:
        if schema.get(keyword):
            yield forbidden(f"{path}.{keyword}", f"{keyword} is not supported")
    if schema.get("uniqueItems"):
        words = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic"
        yield forbidden(f"{path}.uniqueItems", words)
    if schema.get("additionalProperties") is False:
        yield forbidden(f"{path}.additionalProperties", "additionalProperties cannot be set to false")
    if schema.get("properties") and schema.get("additionalProperties"):
        words = "additionalProperties and properties are mutual exclusive"
        yield forbidden(f"{path}.additionalProperties", words)
    if "enum" in schema and not schema["enum"]:
        yield required(f"{path}.enum", "must have at least one value")
    names = schema.get("required") or []
    if len(set(names)) != len(names):
        yield invalid_value(f"{path}.required", names, "must not contain duplicates")
    if schema.get("pattern"):
        yield from _pattern_faults(schema["pattern"], f"{path}.pattern")


def _pattern_faults(pattern: str, path: str) -> Iterator[Cause]:
    """Patterns are Go's RE2: no look-around, no back references, no possessive repetition."""
    if _NOT_IN_RE2.search(re.sub(r"\\\\|\[[^\]]*\]", "", pattern)):
        words = "must be a valid regular expression, but isn't: invalid or unsupported Perl syntax"
        yield invalid_value(path, pattern, words)
        return
    try:
        re.compile(pattern)
    except re.error as error:
        yield invalid_value(
            path, pattern, f"must be a valid regular expression, but isn't: error parsing regexp: {error}"
        )


def _junctor_faults(part: Json, outer: Json, path: str) -> Iterator[Cause]:
    for keyword in _NOT_IN_JUNCTORS:
        if part.get(keyword) is not None:
            yield forbidden(f"{path}.{keyword}", "must be undefined to be structural")
    known = outer.get("properties") or {}
    for name, child in (part.get("properties") or {}).items():
        if name not in known:
            yield required(f"properties[{name}]", f"because it is defined in {path}.properties[{name}]")
        yield from _junctor_faults(child, known.get(name) or {}, f"{path}.properties[{name}]")
    if isinstance(part.get("items"), dict):
        yield from _junctor_faults(part["items"], outer.get("items") or {}, f"{path}.items")
    for junctor in _JUNCTORS:
        for index, inner in enumerate(part.get(junctor) or ()):
            yield from _junctor_faults(inner, outer, f"{path}.{junctor}[{index}]")
    if part.get("not"):
        yield from _junctor_faults(part["not"], outer, f"{path}.not")


def _list_faults(schema: Json, path: str) -> Iterator[Cause]:
    kind, keys = schema.get("x-kubernetes-list-type"), schema.get("x-kubernetes-list-map-keys")
    where = f"{path}.x-kubernetes-list-type"
    if kind is not None and kind not in ("atomic", "set", "map"):
        yield unsupported(where, kind, ("atomic", "set", "map"))
    if kind is not None and schema.get("type") != "array":
        yield invalid_value(
            f"{path}.type", schema.get("type", ""), "must be array if x-kubernetes-list-type is specified"
        )
    if keys is not None and kind != "map":
        yield invalid_value(where, kind or "", "must be map if x-kubernetes-list-map-keys is non-empty")
    if kind == "map":
        yield from _list_map_faults(schema, path)
    elif kind == "set":
        yield from _set_faults(schema.get("items") or {}, f"{path}.items")
    map_type = schema.get("x-kubernetes-map-type")
    if map_type is not None and map_type not in ("granular", "atomic"):
        yield unsupported(f"{path}.x-kubernetes-map-type", map_type, ("granular", "atomic"))
    if map_type is not None and schema.get("type") != "object":
        yield invalid_value(
            f"{path}.type", schema.get("type", ""), "must be object if x-kubernetes-map-type is specified"
        )


def _set_faults(items: Json, path: str) -> Iterator[Cause]:
    if items.get("nullable"):
        yield forbidden(f"{path}.nullable", 'cannot be nullable when x-kubernetes-list-type is "set"')
    if items.get("type") == "object" and items.get("x-kubernetes-map-type") != "atomic":
        words = "must be atomic as item of a list with x-kubernetes-list-type=set"
        yield invalid_value(f"{path}.x-kubernetes-map-type", items.get("x-kubernetes-map-type", ""), words)
    if items.get("type") == "array" and items.get("x-kubernetes-list-type", "atomic") != "atomic":
        words = "must be atomic as item of a list with x-kubernetes-list-type=set"
        yield invalid_value(f"{path}.x-kubernetes-list-type", items["x-kubernetes-list-type"], words)


def _list_map_faults(schema: Json, path: str) -> Iterator[Cause]:
    keys, items = schema.get("x-kubernetes-list-map-keys") or [], schema.get("items") or {}
    where = f"{path}.x-kubernetes-list-map-keys"
    if not keys:
        yield required(where, "must not be empty if x-kubernetes-list-type is map")
    if len(set(keys)) != len(keys):
        yield invalid_value(where, keys, "must not contain duplicate entries")
    if items.get("type") != "object":
        yield invalid_value(
            f"{path}.items.type",
            items.get("type", ""),
            "must be object if parent array's x-kubernetes-list-type is map",
        )
    if items.get("nullable"):
        yield forbidden(f"{path}.items.nullable", 'cannot be nullable when x-kubernetes-list-type is "map"')
    properties = items.get("properties") or {}
    for index, key in enumerate(keys):
        child = properties.get(key)
        if child is None:
            yield invalid_value(f"{where}[{index}]", key, "entries must all be names of item properties")
            continue
        if child.get("type") not in _SCALARS:
            words = "must be a scalar type if parent array's x-kubernetes-list-type is map"
            yield invalid_value(f"{path}.items.properties[{key}].type", child.get("type", ""), words)
        if key not in (items.get("required") or ()) and "default" not in child:
            words = (
                "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property"
            )
            yield required(f"{path}.items.properties[{key}].default", words)


def _default_faults(schema: Json, path: str) -> Iterator[Cause]:
    if "default" not in schema:
        return
    value, where = schema["default"], f"{path}.default"
    if value is None and not schema.get("nullable"):
        words = f'{where} in body must be of type {schema.get("type", "")}: "null"'
        yield invalid_value(where, "null", words)
        return
    if prune(schema, value) != value:
        yield invalid_value(where, value, "must not have unknown fields")
        return
    yield from violations(schema, value, where)
