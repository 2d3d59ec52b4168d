"""CustomResourceDefinitions that a real API server refuses are refused here, with its reasons."""

from copy import deepcopy
from typing import Any

import pytest

from lora_devcluster.defaults import custom_resource_definition
from lora_devcluster.structural import definition_faults
from tests.support.devcluster import definition

TEXT = {"type": "string"}


def faults(obj: dict[str, Any], old: dict[str, Any] | None = None) -> list[str]:
    obj = deepcopy(obj)
    custom_resource_definition(obj)
    return [str(cause) for cause in definition_faults(obj, old)]


def with_field(**schema: Any) -> dict[str, Any]:
    return definition({"type": "object", "properties": {"a": schema}})


def with_column(**column: str) -> dict[str, Any]:
    return definition(additionalPrinterColumns=[{"name": "A", "type": "string", "jsonPath": ".a", **column}])


def keyed(items: dict[str, Any], *keys: str) -> dict[str, Any]:
    return with_field(
        **{"type": "array", "items": items, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}
    )


def test_a_structural_definition_is_accepted() -> None:
    assert faults(with_field(type="string", maxLength=3, default="x")) == []


@pytest.mark.parametrize(
    ("obj", "words"),
    [
        (with_field(description="no type"), "must not be empty for specified object fields"),
        (with_field(type="text"), 'Unsupported value: "text"'),
        (with_field(type="array"), "items: Required value: must be specified"),
        (with_field(type="array", items={}), "must not be empty for specified array items"),
        (with_field(type="array", items=TEXT, uniqueItems=True), "uniqueItems cannot be set to true"),
        (with_field(type="object", additionalProperties=False), "additionalProperties cannot be set to false"),
        (
            with_field(type="object", properties={"b": TEXT}, additionalProperties=TEXT),
            "additionalProperties and properties are mutual exclusive",
        ),
        (with_field(type="string", default=1), 'must be of type string: "integer"'),
        (with_field(type="string", default=None), 'must be of type string: "null"'),
        (with_field(type="string", enum=["x"], default="y"), 'Unsupported value: "y"'),
        (with_field(type="object", properties={"b": TEXT}, default={"c": "x"}), "must not have unknown fields"),
        (
            with_field(type="string", anyOf=[{"type": "string"}]),
            "anyOf[0].type: Forbidden: must be undefined",
        ),
        (
            with_field(type="object", allOf=[{"properties": {"b": {}}}]),
            "Required value: because it is defined in",
        ),
        (with_field(type="string", **{"not": {"description": "x"}}), "not.description: Forbidden"),
        (
            with_field(type="integer", **{"x-kubernetes-int-or-string": True}),
            "must be empty if",
        ),
        (with_field(type="object", **{"x-kubernetes-preserve-unknown-fields": False}), "must be true or undefined"),
        (with_field(type="string", **{"x-kubernetes-list-type": "set"}), "must be array if x-kubernetes-list-type"),
        (with_field(type="array", items=TEXT, **{"x-kubernetes-list-type": "bag"}), 'Unsupported value: "bag"'),
        (
            with_field(type="array", items={"type": "object"}, **{"x-kubernetes-list-type": "set"}),
            "must be atomic",
        ),
        (keyed(TEXT, "n"), "must be object if parent array's x-kubernetes-list-type is map"),
        (keyed({"type": "object", "properties": {"m": TEXT}}, "n"), "entries must all be names of item properties"),
        (keyed({"type": "object", "properties": {"n": TEXT}}, "n"), "so it must have a default"),
        (
            keyed({"type": "object", "properties": {"n": TEXT}, "required": ["n"]}),
            "must not be empty if",
        ),
        (
            keyed({"type": "object", "properties": {"n": {"type": "object"}}, "required": ["n"]}, "n"),
            "must be a scalar type",
        ),
        (with_field(type="string", pattern="("), "must be a valid regular expression"),
        (with_field(type="string", pattern="^(?!x)"), "must be a valid regular expression"),
        (with_field(type="string", pattern=r"(a)\1"), "must be a valid regular expression"),
        (with_field(type="string", **{"$ref": "#/x"}), "$ref is not supported"),
        (definition(subresources={"scale": {"specReplicasPath": ".spec.n"}}), "does not serve it"),
        (definition(storage=False), "must have exactly one version marked as storage version"),
        (definition(name="V1"), "a DNS-1035 label"),
        (definition(schema=None), "schemas are required"),
        (
            definition(additionalPrinterColumns=[{"name": "A", "type": "text", "jsonPath": ".a"}]),
            'Unsupported value: "text"',
        ),
        (
            definition(additionalPrinterColumns=[{"name": "A", "type": "string", "jsonPath": "a"}]),
            "must be a simple json path",
        ),
    ],
)
def test_a_definition_with_a_fault_is_refused(obj: dict[str, Any], words: str) -> None:
    assert any(words in fault for fault in faults(obj)), faults(obj)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"metadata": {"name": "gadgets.example.com"}}, "must be spec.names.plural"),
        ({"spec": {"group": "example"}}, "should be a domain with at least one dot"),
        ({"spec": {"scope": "Everywhere"}}, 'Unsupported value: "Everywhere"'),
        ({"spec": {"names": {"shortNames": ["W!"]}}}, "spec.names.shortNames[0]"),
        ({"spec": {"names": {"listKind": "Widget"}}}, "kind and listKind may not be the same"),
        ({"spec": {"preserveUnknownFields": True}}, "must be false in order to use defaults"),
        ({"spec": {"conversion": {"strategy": "Webhook"}}}, "does not call conversion webhooks"),
    ],
)
def test_wrong_names_and_settings_are_refused(change: dict[str, Any], words: str) -> None:
    obj = definition()
    obj["metadata"] |= change.get("metadata", {})
    names = obj["spec"]["names"] | change.get("spec", {}).get("names", {})
    obj["spec"] |= {**change.get("spec", {}), "names": names}

    assert any(words in fault for fault in faults(obj)), faults(obj)


def test_metadata_may_only_restrict_names() -> None:
    obj = definition()
    root = obj["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    root["properties"]["metadata"] = {"type": "object", "properties": {"labels": {"type": "object"}}}

    assert any("must not specify anything other than name and generateName" in fault for fault in faults(obj))


def test_the_int_or_string_form_is_accepted() -> None:
    forms = [{"type": "integer"}, {"type": "string"}]

    assert faults(with_field(**{"x-kubernetes-int-or-string": True, "anyOf": forms})) == []


def test_a_stored_version_may_not_be_dropped() -> None:
    old = {**definition(), "status": {"storedVersions": ["v1"]}}

    assert any("v1 was previously a storage version" in fault for fault in faults(definition(name="v2"), old))


def test_the_scope_may_not_change() -> None:
    changed = definition()
    changed["spec"]["scope"] = "Cluster"

    assert any("spec.scope" in fault and "immutable" in fault for fault in faults(changed, definition()))
