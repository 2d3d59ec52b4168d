"""JSON, merge and strategic merge patches."""

from typing import Any

import pytest

from lora_devcluster.builtin import schema_of
from lora_devcluster.errors import ApiError
from lora_devcluster.patching import json_patch, merge_patch, strategic_patch

POD = schema_of("", "v1", "Pod")


# The examples of RFC 7396, appendix A.
@pytest.mark.parametrize(
    ("target", "patch", "merged"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patches_follow_the_rfc(target: Any, patch: Any, merged: Any) -> None:
    assert merge_patch(target, patch) == merged


def test_a_json_patch_changes_what_it_names() -> None:
    operations = [{"op": "test", "path": "/a", "value": 1}, {"op": "replace", "path": "/a", "value": 2}]

    assert json_patch({"a": 1, "b": 1}, operations) == {"a": 2, "b": 1}


def test_a_json_patch_whose_test_fails_is_refused_as_invalid() -> None:
    with pytest.raises(ApiError) as refusal:
        json_patch({"a": 1}, [{"op": "test", "path": "/a", "value": 2}])

    assert refusal.value.code == 422


def test_a_json_patch_that_is_none_is_a_bad_request() -> None:
    with pytest.raises(ApiError) as refusal:
        json_patch({"a": 1}, [{"op": "explode", "path": "/a"}])

    assert refusal.value.code == 400


def containers(*names: str, **more: Any) -> dict[str, Any]:
    return {"spec": {"containers": [{"name": name, **more} for name in names]}}


def test_a_strategic_patch_merges_containers_by_name() -> None:
    patched = strategic_patch(containers("a", "b", image="1"), containers("b", image="2"), POD)

    assert patched["spec"]["containers"] == [{"name": "a", "image": "1"}, {"name": "b", "image": "2"}]


def test_a_strategic_patch_deletes_an_element_by_directive() -> None:
    patch = {"spec": {"containers": [{"$patch": "delete", "name": "a"}]}}

    assert strategic_patch(containers("a", "b"), patch, POD) == containers("b")


def test_a_strategic_patch_orders_elements_as_told() -> None:
    patch = {"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}}

    assert strategic_patch(containers("a", "b"), patch, POD) == containers("b", "a")


def test_a_strategic_patch_adds_to_and_takes_from_lists_of_plain_values() -> None:
    target = {"metadata": {"finalizers": ["x/1", "x/2"]}}
    patch = {"metadata": {"finalizers": ["x/3"], "$deleteFromPrimitiveList/finalizers": ["x/1"]}}

    assert strategic_patch(target, patch, POD) == {"metadata": {"finalizers": ["x/2", "x/3"]}}


def test_a_strategic_patch_can_replace_an_object_or_keep_only_named_fields() -> None:
    target = {"spec": {"securityContext": {"runAsUser": 1}, "volumes": [{"name": "v", "emptyDir": {}}]}}
    replaced = {"spec": {"securityContext": {"$patch": "replace", "runAsGroup": 2}}}
    volume = {"name": "v", "$retainKeys": ["name", "configMap"], "configMap": {"name": "c"}}

    patched = strategic_patch(target, {"spec": {**replaced["spec"], "volumes": [volume]}}, POD)

    assert patched["spec"]["securityContext"] == {"runAsGroup": 2}
    assert patched["spec"]["volumes"] == [{"name": "v", "configMap": {"name": "c"}}]


def test_a_strategic_patch_replaces_atomic_lists() -> None:
    target = {"spec": {"containers": [{"name": "a", "args": ["1", "2"]}]}}
    patch = {"spec": {"containers": [{"name": "a", "args": ["3"]}]}}

    assert strategic_patch(target, patch, POD)["spec"]["containers"][0]["args"] == ["3"]
