"""The published OpenAPI types of the built-in kinds, read from the kubernetes-validate package.

Used for strict checks of unknown fields, for list merge keys and for `kubectl explain`.
"""

import json
from functools import cache
from importlib import resources

from lora_devcluster.errors import Json

KUBERNETES_VERSION = "1.34.0"
PREFIX = "#/$defs/"
_SCHEMA = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps"
_FILLED_IN = {"io.k8s.api.batch.v1.PodFailurePolicyOnPodConditionsPattern": ("status",)}


@cache
def definitions() -> Json:
    """Every published type by its full name."""
    folder = resources.files("kubernetes_validate") / "kubernetes-json-schema"
    text = (folder / f"v{KUBERNETES_VERSION}-local-strict" / "_definitions.json").read_text("utf-8")
    found: Json = json.loads(text)["$defs"]
    schema_of_schemas = found[_SCHEMA]
    # Published as "anything"; the server decodes them as schemas, or as true and false.
    found[f"{_SCHEMA}OrArray"] = schema_of_schemas
    found[f"{_SCHEMA}OrBool"] = {**schema_of_schemas, "type": ["object", "boolean"]}
    return {name: _corrected(name, schema) for name, schema in found.items()}


def _corrected(name: str, schema: Json) -> Json:
    """A type as the server treats it: free-form objects are open, fields that it fills in are not required."""
    if schema.get("type") == "object" and "properties" not in schema:
        return {**schema, "x-kubernetes-preserve-unknown-fields": True}
    filled_in = _FILLED_IN.get(name, ())
    required = [field for field in schema.get("required") or () if field not in filled_in]
    return {**schema, "required": required} if filled_in else schema


@cache
def _names_by_kind() -> dict[tuple[str, str, str], str]:
    return {
        (gvk["group"], gvk["version"], gvk["kind"]): name
        for name, schema in definitions().items()
        for gvk in schema.get("x-kubernetes-group-version-kind") or ()
    }


def type_name(group: str, version: str, kind: str) -> str | None:
    """The full name of a kind's type, or None when it is not published."""
    return _names_by_kind().get((group, version, kind))


def schema_of(group: str, version: str, kind: str) -> Json | None:
    name = type_name(group, version, kind)
    return definitions()[name] if name else None


def resolve(schema: Json) -> Json:
    """The schema itself, or the one that it refers to."""
    reference = schema.get("$ref")
    if reference is None:
        return schema
    target: Json = definitions()[reference.rsplit(PREFIX, 1)[1]]
    if len(schema) == 1 or (len(schema) == 2 and "description" in schema):
        return target
    extras = {key: value for key, value in schema.items() if key != "$ref"}
    return {**target, **extras} if extras.keys() - {"description"} else target


def object_meta() -> Json:
    meta: Json = definitions()["io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"]
    return meta
