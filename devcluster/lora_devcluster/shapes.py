"""What a schema says about merging: which child belongs to a field, and how lists are keyed.

Works on schemas of custom resources and on the built-in types alike. Used by patching and server-side apply.
"""

from typing import Literal

from lora_devcluster.builtin import object_meta, resolve
from lora_devcluster.errors import Json

ListType = Literal["atomic", "set", "map"]


def field_of(schema: Json | None, name: str, at_root: bool = False) -> Json | None:
    """The schema of an object's field, or None when nothing is known about it."""
    if at_root and name == "metadata":
        return object_meta()
    if schema is None:
        return None
    schema = resolve(schema)
    properties = schema.get("properties") or {}
    if name in properties:
        return resolve(properties[name])
    additional = schema.get("additionalProperties")
    return resolve(additional) if isinstance(additional, dict) else None


def items_of(schema: Json | None) -> Json | None:
    items = (schema or {}).get("items")
    return resolve(items) if isinstance(items, dict) else None


def list_type(schema: Json | None) -> ListType:
    """How a list merges; built-in lists without a word about it are replaced as a whole."""
    kind: ListType = (schema or {}).get("x-kubernetes-list-type", "atomic")
    return kind


def list_keys(schema: Json | None) -> tuple[str, ...]:
    """The fields that identify an element of a list of type map."""
    return tuple((schema or {}).get("x-kubernetes-list-map-keys") or ())


def is_atomic_map(schema: Json | None) -> bool:
    return (schema or {}).get("x-kubernetes-map-type") == "atomic"


def key_defaults(schema: Json | None) -> Json:
    """Defaults of list keys, so that an element that leaves one out is still found."""
    properties = (items_of(schema) or {}).get("properties") or {}
    found = {key: resolve(properties.get(key, {})).get("default") for key in list_keys(schema)}
    if "protocol" in found and found["protocol"] is None:
        found["protocol"] = "TCP"
    return found


def element_key(element: Json, schema: Json | None) -> tuple[tuple[str, object], ...]:
    """An element's identity in a list of type map: (field, value) in the order of the field names."""
    defaults = key_defaults(schema)
    return tuple((key, element.get(key, defaults.get(key))) for key in sorted(list_keys(schema)))
