"""From a request's body to an object fit for storing: decoding, pruning, defaults, validation. Used by the API only."""

from collections.abc import Iterator
from typing import Any

from lora_devcluster.builtin import object_meta, schema_of
from lora_devcluster.cel import rule_faults
from lora_devcluster.defaults import DEFAULTS
from lora_devcluster.documents import copied
from lora_devcluster.errors import ApiError, Cause, Json, bad_request, invalid
from lora_devcluster.names import finalizer_faults, metadata_faults
from lora_devcluster.resources import Resource
from lora_devcluster.schema import prune, unknown_fields, violations, with_defaults
from lora_devcluster.structural import definition_faults
from lora_devcluster.validation import CHECKS

_SKIPPED_RULES = Cause(
    "",
    "FieldValueInvalid",
    'Invalid value: "null": some validation rules were not checked because the object was invalid; '
    "correct the existing errors to complete validation",
)


def object_schema(resource: Resource) -> Json | None:
    """The schema of whole objects of a kind, metadata included."""
    if resource.schema is None:
        return schema_of(resource.group, resource.version, resource.kind)
    text = {"type": "string"}
    properties = {
        **(resource.schema.get("properties") or {}),
        "apiVersion": text,
        "kind": text,
        "metadata": object_meta(),
    }
    return {**resource.schema, "properties": properties}


def decode(resource: Resource, body: Any, field_validation: str) -> tuple[Json, list[str]]:
    """The body as an object of the kind without unknown fields, and warnings about those.

    Raises:
        ApiError: 400 for a wrong kind, wrong types of built-in fields, or unknown fields under `Strict`.
    """
    if not isinstance(body, dict):
        raise bad_request(f"couldn't get version/kind; json parse error: expected an object, got {type(body).__name__}")
    obj = copied(body)
    _check_kind(resource, obj)
    schema = object_schema(resource)
    if schema is None:
        return obj, []
    unknown = list(unknown_fields(schema, obj))
    if unknown and field_validation == "Strict":
        words = ", ".join(f'unknown field "{path}"' for path in unknown)
        raise _undecodable(resource, f"strict decoding error: {words}")
    meta_faults = violations({"properties": {"metadata": object_meta()}}, {"metadata": obj.get("metadata")})
    faults = list(meta_faults) if resource.custom else list(violations(schema, _without_nulls(obj)))
    wrong_types = [fault for fault in faults if fault.reason == "FieldValueTypeInvalid"]
    if wrong_types:
        raise _undecodable(resource, "json: cannot unmarshal: " + "; ".join(str(fault) for fault in wrong_types))
    warnings = [f'unknown field "{path}"' for path in unknown] if field_validation == "Warn" else []
    return (prune(schema, obj) if unknown else obj), warnings


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(part) for name, part in value.items() if part is not None}
    return [_without_nulls(part) for part in value] if isinstance(value, list) else value


def _undecodable(resource: Resource, detail: str) -> ApiError:
    return bad_request(
        f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}: {detail}'
    )


def _check_kind(resource: Resource, obj: Json) -> None:
    if resource.custom and not obj.get("kind"):
        raise bad_request("Object 'Kind' is missing in the request's body")
    obj.setdefault("apiVersion", resource.api_version)
    obj.setdefault("kind", resource.kind)
    if obj["apiVersion"] != resource.api_version:
        raise bad_request(
            f"the API version in the data ({obj['apiVersion']}) does not match the expected API version "
            f"({resource.api_version})"
        )
    if obj["kind"] != resource.kind:
        raise bad_request(f"the kind in the data ({obj['kind']}) does not match the expected kind ({resource.kind})")
    if not isinstance(obj.get("metadata") or {}, dict):
        raise _undecodable(resource, "metadata must be an object")
    obj["metadata"] = obj.get("metadata") or {}


def fill_defaults(resource: Resource, obj: Json) -> Json:
    """The object with everything filled in that its author left out."""
    if resource.schema is not None:
        return {**with_defaults(resource.schema, obj), "metadata": obj["metadata"]}
    obj = _without_nulls(obj)
    schema = object_schema(resource) or {}
    # The server lets built-in lists repeat a key, of environment variables or ports; it warns at most.
    faults = [fault for fault in violations(schema, obj) if fault.reason != "FieldValueDuplicate"]
    if faults:
        raise invalid(resource.group, resource.kind, obj["metadata"].get("name", ""), faults)
    fill = DEFAULTS.get((resource.group, resource.plural))
    if fill:
        fill(obj)
    return obj


def validate(resource: Resource, obj: Json, old: Json | None) -> None:
    """Refuses an object that breaks a rule.

    Raises:
        ApiError: 422 with every cause.
    """
    faults = list(_faults(resource, obj, old))
    if faults:
        raise invalid(resource.group, resource.kind, obj["metadata"].get("name", ""), faults)


def _faults(resource: Resource, obj: Json, old: Json | None) -> Iterator[Cause]:
    if obj["metadata"] != (old or {}).get("metadata"):
        yield from metadata_faults(obj["metadata"], resource.plural)
        if old is not None:
            yield from finalizer_faults(obj["metadata"], old["metadata"])
    if resource.schema is not None:
        yield from _custom_faults(resource, obj, old)
    elif resource.plural == "customresourcedefinitions":
        yield from definition_faults(obj, old)
    else:
        check = CHECKS.get((resource.group, resource.plural))
        if check:
            yield from check(obj, old)


def _custom_faults(resource: Resource, obj: Json, old: Json | None) -> Iterator[Cause]:
    schema = resource.schema or {}
    name = {"name": obj["metadata"].get("name")}
    faults = list(violations(schema, {**obj, "metadata": name}))
    yield from faults
    if not faults:
        yield from rule_faults(resource.rules, obj, old)
    elif resource.rules:
        yield _SKIPPED_RULES
