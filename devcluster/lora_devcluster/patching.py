"""JSON patch, merge patch and strategic merge patch: pure functions from object and patch to the new object."""

from typing import Any

import jsonpatch

from lora_devcluster.documents import copied
from lora_devcluster.errors import ApiError, Json, bad_request
from lora_devcluster.shapes import field_of, items_of


def json_patch(obj: Json, operations: Any) -> Json:
    """RFC 6902.

    Raises:
        ApiError: 400 for a malformed patch, 422 for one that does not fit the object.
    """
    try:
        patched: Json = jsonpatch.JsonPatch(operations).apply(obj)
    except jsonpatch.InvalidJsonPatch as error:
        raise bad_request(f"error decoding patch: {error}") from error
    except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException, KeyError, TypeError) as error:
        raise ApiError(
            422, "Invalid", f"the server rejected our request due to an error in our request: {error}"
        ) from error
    return patched


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7396: null removes, objects merge, everything else replaces."""
    if not isinstance(patch, dict):
        return copied(patch)
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), value)
    return merged


def strategic_patch(target: Json, patch: Json, schema: Json | None) -> Json:
    """A merge patch that merges keyed lists element by element, with `$patch` and its relatives.

    https://kubernetes.io/docs/reference/using-api/api-concepts/#patch-types
    """
    return _merge_object(target, patch, schema, at_root=True)


def _merge_object(target: Any, patch: Json, schema: Json | None, at_root: bool = False) -> Json:
    directive = patch.get("$patch")
    if directive == "replace":
        return copied({name: value for name, value in patch.items() if name != "$patch"})
    merged = dict(target) if isinstance(target, dict) else {}
    retained = patch.get("$retainKeys")
    for name, value in patch.items():
        if not name.startswith("$"):
            _merge_field(merged, name, value, field_of(schema, name, at_root))
    _apply_list_directives(merged, patch)
    return {name: value for name, value in merged.items() if retained is None or name in retained}


def _merge_field(merged: Json, name: str, value: Any, schema: Json | None) -> None:
    if value is None or (isinstance(value, dict) and value.get("$patch") == "delete"):
        merged.pop(name, None)
    elif isinstance(value, dict):
        merged[name] = _merge_object(merged.get(name), value, schema)
    elif isinstance(value, list) and (schema or {}).get("x-kubernetes-patch-strategy", "").startswith("merge"):
        merged[name] = _merge_list(merged.get(name) or [], value, schema or {})
    else:
        merged[name] = copied(value)


def _merge_list(target: list[Any], patch: list[Any], schema: Json) -> list[Any]:
    key = schema.get("x-kubernetes-patch-merge-key")
    if key is None:
        return [*target, *(value for value in patch if value not in target)]
    if any(element.get("$patch") == "replace" for element in patch):
        return [copied(element) for element in patch if "$patch" not in element]
    merged = {element.get(key): element for element in target}
    for element in patch:
        if key not in element:
            raise bad_request(f"map: {element} does not contain declared merge key: {key}")
        if element.get("$patch") == "delete":
            merged.pop(element[key], None)
        else:
            merged[element[key]] = _merge_object(merged.get(element[key]), element, items_of(schema))
    return list(merged.values())


def _apply_list_directives(merged: Json, patch: Json) -> None:
    for name, value in patch.items():
        directive, _, target = name.partition("/")
        if directive == "$deleteFromPrimitiveList" and isinstance(merged.get(target), list):
            merged[target] = [element for element in merged[target] if element not in value]
        elif directive == "$setElementOrder" and isinstance(merged.get(target), list):
            merged[target] = _ordered(merged[target], value)


def _ordered(elements: list[Any], order: list[Any]) -> list[Any]:
    """The elements in the asked order; those not named stay behind them."""

    def place(element: Any) -> int:
        for index, wanted in enumerate(order):
            same = element == wanted
            if isinstance(wanted, dict) and isinstance(element, dict):
                same = all(element.get(name) == value for name, value in wanted.items())
            if same:
                return index
        return len(order)

    return sorted(elements, key=place)
