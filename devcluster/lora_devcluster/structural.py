"""Whether a CustomResourceDefinition is one that a real API server accepts: names, versions, columns, schemas.

The schema's own rules are in `structure`, the budget for CEL rules in `rule_budget`. Used by admission.
"""

import re
from collections.abc import Iterator

from lora_devcluster.errors import Cause, Json, forbidden, invalid_value, required, unsupported
from lora_devcluster.names import is_subdomain
from lora_devcluster.rule_budget import rule_tree_faults
from lora_devcluster.structure import structure_faults
from lora_devcluster.table import is_json_path

_LABEL_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_COLUMN_TYPES = ("integer", "number", "string", "boolean", "date")
_COLUMN_FORMATS = ("int32", "int64", "float", "double", "byte", "date", "date-time", "password", "name")
_SUBRESOURCES = ("status",)


def definition_faults(obj: Json, old: Json | None) -> Iterator[Cause]:
    """Everything that is wrong with a definition whose types are right."""
    spec = obj["spec"]
    yield from _name_faults(obj)
    if spec["scope"] not in ("Cluster", "Namespaced"):
        yield unsupported("spec.scope", spec["scope"], ("Cluster", "Namespaced"))
    if spec.get("preserveUnknownFields"):
        words = "must be false in order to use defaults in the schema"
        yield invalid_value("spec.preserveUnknownFields", True, words)
    if (spec.get("conversion") or {}).get("strategy", "None") != "None":
        yield forbidden("spec.conversion.strategy", "this laptop-sized cluster does not call conversion webhooks")
    yield from _versions_faults(spec)
    if old is not None:
        yield from _change_faults(obj, old)


def _dns_1035(path: str, value: str) -> Iterator[Cause]:
    if len(value) > 63 or not _LABEL_1035.fullmatch(value):
        words = (
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic "
            "character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for "
            "validation is '[a-z]([-a-z0-9]*[a-z0-9])?')"
        )
        yield invalid_value(path, value, words)


def _name_faults(obj: Json) -> Iterator[Cause]:
    spec, names = obj["spec"], obj["spec"]["names"]
    if not is_subdomain(spec["group"]) or "." not in spec["group"]:
        yield invalid_value("spec.group", spec["group"], "should be a domain with at least one dot")
    wanted = f"{names['plural']}.{spec['group']}"
    if obj["metadata"]["name"] != wanted:
        yield invalid_value("metadata.name", obj["metadata"]["name"], 'must be spec.names.plural+"."+spec.group')
    for field in ("plural", "singular"):
        yield from _dns_1035(f"spec.names.{field}", names.get(field) or "")
    for field in ("kind", "listKind"):
        yield from _dns_1035(f"spec.names.{field}", (names.get(field) or "").lower())
    for field in ("shortNames", "categories"):
        for index, name in enumerate(names.get(field) or ()):
            yield from _dns_1035(f"spec.names.{field}[{index}]", name)
    if names["kind"] == names.get("listKind"):
        yield invalid_value("spec.names.listKind", names["kind"], "kind and listKind may not be the same")


def _versions_faults(spec: Json) -> Iterator[Cause]:
    versions = spec["versions"]
    if not versions:
        yield required("spec.versions")
    if sum(bool(version["storage"]) for version in versions) != 1:
        yield invalid_value("spec.versions", versions, "must have exactly one version marked as storage version")
    seen: set[str] = set()
    for index, version in enumerate(versions):
        path = f"spec.versions[{index}]"
        yield from _dns_1035(f"{path}.name", version["name"])
        if version["name"] in seen:
            yield Cause(f"{path}.name", "FieldValueDuplicate", f'Duplicate value: "{version["name"]}"')
        seen.add(version["name"])
        yield from _version_faults(version, path)


def _version_faults(version: Json, path: str) -> Iterator[Cause]:
    for name, value in (version.get("subresources") or {}).items():
        if name not in _SUBRESOURCES and value is not None:
            yield forbidden(f"{path}.subresources.{name}", "this laptop-sized cluster does not serve it")
    if version.get("selectableFields"):
        yield forbidden(f"{path}.selectableFields", "this laptop-sized cluster does not select by them")
    for index, column in enumerate(version.get("additionalPrinterColumns") or ()):
        yield from _column_faults(column, f"{path}.additionalPrinterColumns[{index}]")
    schema = (version.get("schema") or {}).get("openAPIV3Schema")
    where = f"{path}.schema.openAPIV3Schema"
    if schema is None:
        yield required(where, "schemas are required")
        return
    faults = list(structure_faults(schema, where))
    yield from faults
    if not faults:
        yield from rule_tree_faults(schema, where)


def _column_faults(column: Json, path: str) -> Iterator[Cause]:
    if not column.get("name"):
        yield required(f"{path}.name")
    if column.get("type") not in _COLUMN_TYPES:
        yield unsupported(f"{path}.type", column.get("type", ""), _COLUMN_TYPES)
    if column.get("format") and column["format"] not in _COLUMN_FORMATS:
        yield unsupported(f"{path}.format", column["format"], _COLUMN_FORMATS)
    if not column.get("jsonPath"):
        yield required(f"{path}.jsonPath")
    elif not is_json_path(column["jsonPath"]):
        yield invalid_value(f"{path}.jsonPath", column["jsonPath"], "must be a simple json path starting with .")


def _change_faults(obj: Json, old: Json) -> Iterator[Cause]:
    for parts in (("scope",), ("group",), ("names", "plural"), ("names", "kind")):
        new_value, old_value = obj["spec"], old["spec"]
        for part in parts:
            new_value, old_value = new_value[part], old_value[part]
        if new_value != old_value:
            yield invalid_value("spec." + ".".join(parts), new_value, "field is immutable")
    names = {version["name"] for version in obj["spec"]["versions"]}
    for index, stored in enumerate((old.get("status") or {}).get("storedVersions") or ()):
        if stored not in names:
            words = f"missing from spec.versions; {stored} was previously a storage version, and must remain in "
            words += f"spec.versions until a storage migration ensures no data remains persisted in {stored} and "
            words += f"removes {stored} from status.storedVersions"
            yield invalid_value(f"status.storedVersions[{index}]", stored, words)
