"""OpenAPI v3 documents: what `kubectl explain` prints and what `kubectl apply` looks at before it sends."""

import json
from functools import cache

from lora_devcluster.builtin import definitions, type_name
from lora_devcluster.errors import Json
from lora_devcluster.resources import Registry, Resource

_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
_PATCHES = ("application/apply-patch+yaml", "application/json-patch+json", "application/merge-patch+json")
_QUERY = ("dryRun", "fieldManager", "fieldValidation")


def document_path(api_version: str) -> str:
    return f"apis/{api_version}" if "/" in api_version else f"api/{api_version}"


def index(registry: Registry) -> Json:
    """Where the document of each group and version lies."""
    versions = sorted({resource.api_version for resource in registry})
    paths = {
        document_path(version): {"serverRelativeURL": f"/openapi/v3/{document_path(version)}"} for version in versions
    }
    return {"paths": paths}


def _converted(schema: Json) -> Json:
    """A published type in the form of OpenAPI v3: references into components, no lists of types."""
    if "$ref" in schema:
        target = schema["$ref"].rsplit("/", 1)[1]
        words = {"description": schema["description"]} if "description" in schema else {}
        return {"allOf": [{"$ref": f"#/components/schemas/{target}"}], **words}
    converted = dict(schema)
    if "properties" in schema:
        converted["properties"] = {name: _converted(part) for name, part in schema["properties"].items()}
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), dict):
            converted[name] = _converted(schema[name])
    if schema.get("additionalProperties") is False:
        del converted["additionalProperties"]
    if "oneOf" in schema:
        converted["oneOf"] = [_converted(part) for part in schema["oneOf"]]
    if isinstance(schema.get("type"), list):
        converted["type"] = next(name for name in schema["type"] if name != "null")
    return converted


@cache
def _published(name: str) -> tuple[Json, frozenset[str]]:
    """A published type and the names of those it refers to."""
    schema: Json = _converted(definitions()[name])
    text = json.dumps(schema)
    marker = '"#/components/schemas/'
    return schema, frozenset(part.split('"', 1)[0] for part in text.split(marker)[1:])


def _closure(names: set[str]) -> Json:
    """The named types with all that they refer to."""
    found: Json = {}
    waiting = set(names)
    while waiting:
        name = waiting.pop()
        found[name], below = _published(name)
        waiting |= below - found.keys()
    return found


def _component(resource: Resource) -> str:
    published = type_name(resource.group, resource.version, resource.kind)
    if not resource.custom and published:
        return published
    reversed_group = ".".join(reversed(resource.group.split("."))) or "core"
    return f"{reversed_group}.{resource.version}.{resource.kind}"


def _kind(resource: Resource) -> Json:
    return {"group": resource.group, "version": resource.version, "kind": resource.kind}


def _custom_schema(resource: Resource) -> Json:
    schema = resource.schema or {}
    properties = {
        **(schema.get("properties") or {}),
        "apiVersion": {"type": "string", "description": "The group and version of this object."},
        "kind": {"type": "string", "description": "The kind of this object."},
        "metadata": {"allOf": [{"$ref": f"#/components/schemas/{_META}"}], "description": "The object's metadata."},
    }
    return {**schema, "properties": properties, "x-kubernetes-group-version-kind": [_kind(resource)]}


def _operation(resource: Resource, action: str, content: tuple[str, ...] = ("application/json",)) -> Json:
    body = {"schema": {"$ref": f"#/components/schemas/{_component(resource)}"}}
    operation: Json = {
        "responses": {"200": {"description": "OK", "content": {"application/json": body}}},
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": _kind(resource),
    }
    if action in ("post", "put", "patch"):
        text = {"type": "string"}
        operation["parameters"] = [{"name": name, "in": "query", "schema": text} for name in _QUERY]
        operation["requestBody"] = {"content": dict.fromkeys(content, body)}
    return operation


def _paths(resource: Resource) -> Json:
    root = "/" + document_path(resource.api_version)
    collection = (
        f"{root}/namespaces/{{namespace}}/{resource.plural}" if resource.namespaced else f"{root}/{resource.plural}"
    )
    one = {action: _operation(resource, action) for action in ("get", "put", "delete")}
    one["patch"] = _operation(resource, "patch", _PATCHES)
    many = {"get": _operation(resource, "list"), "post": _operation(resource, "post")}
    return {collection: many, f"{collection}/{{name}}": one}


def document(registry: Registry, api_version: str) -> Json | None:
    """The document of one group and version, or None when nothing is served there."""
    found = [resource for resource in registry if resource.api_version == api_version]
    if not found:
        return None
    published = {_component(r) for r in found if not r.custom and _component(r) in definitions()}
    schemas = _closure(published | ({_META} if any(r.custom for r in found) else set()))
    schemas |= {_component(r): _custom_schema(r) for r in found if r.custom}
    paths: Json = {}
    for resource in found:
        paths |= _paths(resource)
    info = {"title": "Kubernetes", "version": "devcluster"}
    return {"openapi": "3.0.0", "info": info, "paths": paths, "components": {"schemas": schemas}}
