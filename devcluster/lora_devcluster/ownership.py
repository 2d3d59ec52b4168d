"""Server-side apply and the record of who set which field (`metadata.managedFields`).

A field is a path of `fieldsV1` elements: `f:name` of an object, `k:{…}` of a keyed list, `v:…` of a set.
https://kubernetes.io/docs/reference/using-api/server-side-apply/
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lora_devcluster.documents import copied
from lora_devcluster.errors import ApiError, Json
from lora_devcluster.shapes import element_key, field_of, is_atomic_map, items_of, list_type

Path = tuple[str, ...]

_IDENTITY: frozenset[Path] = frozenset(
    {("f:apiVersion",), ("f:kind",), ("f:metadata",), *((("f:metadata", f"f:{name}")) for name in (
        "name", "namespace", "generateName", "uid", "resourceVersion", "generation", "creationTimestamp",
        "deletionTimestamp", "deletionGracePeriodSeconds", "managedFields", "selfLink",
    ))}
)  # fmt: skip


@dataclass(frozen=True)
class Writer:
    """Who writes: the field manager's name, how, and through which subresource."""

    manager: str
    operation: str = "Update"
    subresource: str = ""

    def owns(self, entry: Json) -> bool:
        seen = (entry.get("manager"), entry.get("operation"), entry.get("subresource", ""))
        return seen == (self.manager, self.operation, self.subresource)


def _element(part: Any, schema: Json | None) -> str:
    if list_type(schema) == "map":
        return "k:" + json.dumps(dict(element_key(part, schema)), separators=(",", ":"), sort_keys=True)
    return "v:" + json.dumps(part, separators=(",", ":"), sort_keys=True)


def fields(schema: Json | None, value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """The value's fields with what they hold; keyed list elements also count as fields themselves (holding True)."""
    if isinstance(value, dict) and not is_atomic_map(schema) and (value or not path):
        for name, part in value.items():
            yield from fields(field_of(schema, name, at_root=not path), part, (*path, f"f:{name}"))
    elif isinstance(value, list) and list_type(schema) != "atomic":
        for part in value:
            here = (*path, _element(part, schema))
            yield here, True
            if list_type(schema) == "map":
                yield from fields(items_of(schema), part, here)
    else:
        yield path, value


def _owned_fields(schema: Json | None, obj: Json) -> dict[Path, Any]:
    found = fields(schema, obj)
    return {path: value for path, value in found if path not in _IDENTITY and path[:2] not in _IDENTITY}


def to_fields_v1(paths: set[Path]) -> Json:
    """The set of paths as the nested object that clients read."""
    tree: Json = {}
    for path in sorted(paths):
        here = tree
        for element in path:
            here = here.setdefault(element, {})
    for path in paths:
        here = tree
        for element in path:
            here = here[element]
        if here and path[-1][0] in "kv":
            here["."] = {}
    return tree


def from_fields_v1(tree: Json, path: Path = ()) -> Iterator[Path]:
    for element, below in tree.items():
        if element == ".":
            yield path
        elif below:
            yield from from_fields_v1(below, (*path, element))
        else:
            yield (*path, element)


def _entry(writer: Writer, api_version: str, paths: set[Path], now: str) -> Json:
    entry: Json = {
        "manager": writer.manager,
        "operation": writer.operation,
        "apiVersion": api_version,
        "time": now,
        "fieldsType": "FieldsV1",
        "fieldsV1": to_fields_v1(paths),
    }
    return {**entry, "subresource": writer.subresource} if writer.subresource else entry


def _paths(entry: Json) -> set[Path]:
    return set(from_fields_v1(entry.get("fieldsV1") or {}))


def _without(entries: list[Json], writer: Writer, lost: set[Path]) -> list[Json]:
    """The other writers' entries without the fields they have lost; empty entries go."""
    kept = []
    for entry in entries:
        if writer.owns(entry):
            continue
        owned = _paths(entry)
        if owned & lost:
            entry = {**entry, "fieldsV1": to_fields_v1(owned - lost)}
        if entry["fieldsV1"]:
            kept.append(entry)
    return kept


def record_update(schema: Json | None, obj: Json, old: Json | None, writer: Writer, now: str) -> list[Json]:
    """`managedFields` after a write that was not an apply: what it changed belongs to its writer alone."""
    entries = obj["metadata"].get("managedFields") or []
    # What is the same as a whole needs no look inside: a status is written far more often than a spec.
    parts = [name for name in {**obj, **(old or {})} if old is None or obj.get(name) != old.get(name)]
    after = _owned_fields(schema, {name: obj[name] for name in parts if name in obj})
    before = _owned_fields(schema, {name: old[name] for name in parts if name in old}) if old else {}
    changed = {path for path, value in after.items() if path not in before or before[path] != value}
    removed = before.keys() - after.keys()
    if not changed and not removed:
        return entries
    mine = {path for entry in entries if writer.owns(entry) for path in _paths(entry)}
    owned = (mine | changed) - removed
    others = _without(entries, writer, changed | removed)
    if not owned:
        return others
    return [*others, _entry(writer, obj["apiVersion"], owned, now)]


def apply(schema: Json | None, live: Json, applied: Json, writer: Writer, *, force: bool, now: str) -> Json:
    """The live object after a server-side apply.

    Raises:
        ApiError: 409 when another writer owns a field that this one wants to change, unless forced.
    """
    wanted, present = _owned_fields(schema, applied), _owned_fields(schema, live)
    entries = live["metadata"].get("managedFields") or []
    contested = {path for path, value in wanted.items() if path in present and present[path] != value}
    conflicts = [(entry["manager"], _paths(entry) & contested) for entry in entries if not writer.owns(entry)]
    conflicts = [(manager, paths) for manager, paths in conflicts if paths]
    if conflicts and not force:
        raise _apply_conflict(conflicts)
    merged: Json = _merge(schema, live, applied, at_root=True)
    others = _without(entries, writer, contested)
    mine = {path for entry in entries if writer.owns(entry) for path in _paths(entry)}
    kept = {path for entry in others for path in _paths(entry)} | set(wanted)
    for path in sorted(mine - set(wanted), key=len):
        if not _is_key_field(path) and not any(other[: len(path)] == path for other in kept):
            _remove(merged, path, schema)
    merged["metadata"]["managedFields"] = [*others, _entry(writer, applied["apiVersion"], set(wanted), now)]
    return merged


def _is_key_field(path: Path) -> bool:
    """Whether the path is part of a list element's identity: that goes only with the whole element."""
    return len(path) > 1 and path[-2].startswith("k:") and path[-1][2:] in json.loads(path[-2][2:])


def _apply_conflict(conflicts: list[tuple[str, set[Path]]]) -> ApiError:
    causes = [
        {"reason": "FieldManagerConflict", "message": f'conflict with "{manager}"', "field": _shown(path)}
        for manager, paths in conflicts
        for path in sorted(paths)
    ]
    words = [
        f'conflict with "{manager}": ' + ", ".join(_shown(path) for path in sorted(paths))
        for manager, paths in conflicts
    ]
    plural = "conflict" if len(causes) == 1 else "conflicts"
    message = f"Apply failed with {len(causes)} {plural}: " + "\n".join(words)
    return ApiError(409, "Conflict", message, {"causes": causes})


def _shown(path: Path) -> str:
    shown = ""
    for element in path:
        if element.startswith("f:"):
            shown += "." + element[2:]
        elif element.startswith("k:"):
            keys = json.loads(element[2:])
            shown += "[" + ",".join(f"{key}={json.dumps(value)}" for key, value in keys.items()) + "]"
        else:
            shown += f"[={element[2:]}]"
    return shown


def _merge(schema: Json | None, live: Any, applied: Any, at_root: bool = False) -> Any:
    if isinstance(applied, dict) and isinstance(live, dict) and not is_atomic_map(schema):
        merged = dict(live)
        for name, part in applied.items():
            merged[name] = _merge(field_of(schema, name, at_root), live.get(name), part)
        return merged
    if isinstance(applied, list) and isinstance(live, list) and list_type(schema) != "atomic":
        elements = {_element(part, schema): part for part in live}
        for part in applied:
            key = _element(part, schema)
            elements[key] = _merge(items_of(schema), elements.get(key), part)
        return list(elements.values())
    return copied(applied)


def _remove(obj: Json, path: Path, schema: Json | None) -> None:
    """Takes a field out of the object; objects left empty by that go with it."""
    _remove_below(obj, path, schema, at_root=True)


def _remove_below(here: Any, path: Path, schema: Json | None, at_root: bool = False) -> None:
    element, below = path[0], path[1:]
    if isinstance(here, dict) and element.startswith("f:"):
        name = element[2:]
        if name not in here:
            return
        if below:
            here[name] = _copy(here[name])
            _remove_below(here[name], below, field_of(schema, name, at_root))
        if not below or here[name] in ({}, []):
            del here[name]
    elif isinstance(here, list):
        for index, part in enumerate(here):
            if _element(part, schema) == element:
                _remove_element(here, index, below, schema)
                return


def _remove_element(here: list[Any], index: int, below: Path, schema: Json | None) -> None:
    if below:
        here[index] = _copy(here[index])
        _remove_below(here[index], below, items_of(schema))
    else:
        del here[index]


def _copy(value: Any) -> Any:
    return dict(value) if isinstance(value, dict) else list(value) if isinstance(value, list) else value
