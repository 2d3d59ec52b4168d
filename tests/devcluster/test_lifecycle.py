"""What becomes of objects: finalizers, owners, namespaces, definitions."""

from typing import Any

import pytest

from lora_devcluster.errors import ApiError
from lora_devcluster.ownership import Writer
from tests.support.control import Plane, with_gc, with_lifecycle
from tests.support.devcluster import Manifest, definition, job, until, widget


def reference(owner: Manifest) -> Manifest:
    named = {"name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"]}
    return {"apiVersion": owner["apiVersion"], "kind": owner["kind"], **named, "blockOwnerDeletion": True}


def config(name: str, *owners: Manifest, **meta: Any) -> Manifest:
    owned = {"ownerReferences": [reference(owner) for owner in owners]} if owners else {}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, **owned, **meta}}


async def gone(plane: Plane, obj: Manifest) -> None:
    await until(plane.store, lambda: plane.now(obj) is None)


def test_an_object_with_finalizers_waits_for_them() -> None:
    plane = Plane()
    obj = plane.create(config("c", finalizers=["example.com/clean"]))

    plane.delete(obj)
    waiting = plane.now(obj)
    plane.patch(obj, {"metadata": {"finalizers": []}})

    assert waiting is not None
    assert waiting["metadata"]["deletionTimestamp"]
    assert plane.now(obj) is None


def test_the_last_finalizers_removal_is_seen_as_one_deletion() -> None:
    plane, seen = Plane(), list[str]()
    obj = plane.create(config("c", finalizers=["example.com/clean"]))
    plane.delete(obj)
    plane.store.subscribe(lambda change: seen.append(change.type))

    plane.patch(obj, {"metadata": {"finalizers": []}})

    assert seen == ["DELETED"]


def test_no_finalizer_may_join_an_object_that_is_going() -> None:
    plane = Plane()
    obj = plane.create(config("c", finalizers=["example.com/clean"]))
    plane.delete(obj)

    with pytest.raises(ApiError, match="no new finalizers can be added if the object is being deleted"):
        plane.patch(obj, {"metadata": {"finalizers": ["example.com/clean", "example.com/more"]}})


async def test_dependents_follow_their_owner_in_the_background() -> None:
    plane = Plane()
    with_gc(plane)
    owner = plane.create(config("owner"))
    child = plane.create(config("child", owner))
    grandchild = plane.create(config("grandchild", child))

    plane.delete(owner)

    await gone(plane, grandchild)
    assert plane.now(child) is None


async def test_a_dependent_with_another_owner_stays() -> None:
    plane = Plane()
    with_gc(plane)
    first, second = plane.create(config("first")), plane.create(config("second"))
    child = plane.create(config("child", first, second))

    plane.delete(first)

    await until(plane.store, lambda: len((plane.now(child) or {})["metadata"]["ownerReferences"]) == 1)


async def test_in_the_foreground_the_owner_goes_last() -> None:
    plane = Plane()
    with_gc(plane)
    owner = plane.create(config("owner"))
    child = plane.create(config("child", owner, finalizers=["example.com/clean"]))
    plane.delete(owner, propagation="Foreground")
    await until(plane.store, lambda: (plane.now(child) or {})["metadata"].get("deletionTimestamp"))
    before = plane.now(owner)

    plane.patch(child, {"metadata": {"finalizers": []}})

    await gone(plane, owner)
    assert before is not None


async def test_orphans_lose_their_owner_and_stay() -> None:
    plane = Plane()
    with_gc(plane)
    owner = plane.create(config("owner"))
    child = plane.create(config("child", owner))

    plane.delete(owner, propagation="Orphan")

    await gone(plane, owner)
    assert "ownerReferences" not in (plane.now(child) or {})["metadata"]


async def test_a_job_deleted_without_a_policy_leaves_orphans() -> None:
    plane = Plane()
    with_gc(plane)
    owner = plane.create(job())
    child = plane.create(config("child", owner))

    plane.delete(owner)

    await gone(plane, owner)
    assert plane.now(child) is not None


async def test_an_object_made_for_an_owner_that_is_gone_goes_too() -> None:
    plane = Plane()
    with_gc(plane)
    owner = plane.create(config("owner"))
    plane.delete(owner)

    child = plane.create(config("child", owner))

    await gone(plane, child)


def test_deletion_checks_which_object_is_meant() -> None:
    plane = Plane()
    obj = plane.create(config("c"))

    with pytest.raises(ApiError, match="Precondition failed: UID"):
        plane.delete(obj, uid="another")


async def test_a_namespace_takes_what_lies_in_it_along() -> None:
    plane = Plane()
    with_lifecycle(plane)
    namespace = plane.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}}, namespace="")
    obj = plane.create(config("c"), namespace="n")

    plane.delete(namespace)
    refusal = plane.refusal(config("late"), namespace="n")

    assert (refusal.code, "because it is being terminated" in refusal.message) == (403, True)
    await gone(plane, namespace)
    assert plane.now(obj) is None


async def test_a_new_namespace_is_furnished() -> None:
    plane = Plane()
    with_lifecycle(plane)
    plane.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}}, namespace="")

    await until(plane.store, lambda: plane.store.objects("", "serviceaccounts", "n"))


async def defined(plane: Plane) -> Manifest:
    with_lifecycle(plane)
    made = plane.create(definition(), namespace="")
    await until(plane.store, lambda: ((plane.now(made) or {}).get("status") or {}).get("conditions"))
    return made


async def test_a_definition_is_established_and_serves_its_kind() -> None:
    plane = Plane()
    made = await defined(plane)

    plane.create(widget())

    status = (plane.now(made) or {})["status"]
    assert {c["type"]: c["status"] for c in status["conditions"]} == {"NamesAccepted": "True", "Established": "True"}
    assert status["storedVersions"] == ["v1"]


async def test_a_definition_takes_its_objects_along_and_waits_for_their_finalizers() -> None:
    plane = Plane()
    made = await defined(plane)
    obj = plane.create({**widget(), "metadata": {"name": "w", "finalizers": ["example.com/clean"]}})
    plane.delete(made)
    await until(plane.store, lambda: (plane.now(obj) or {})["metadata"].get("deletionTimestamp"))
    before = plane.now(made)

    plane.patch(obj, {"metadata": {"finalizers": []}})

    await until(plane.store, lambda: not plane.store.objects("apiextensions.k8s.io", "customresourcedefinitions"))
    assert before is not None


async def test_status_and_spec_are_written_apart() -> None:
    plane = Plane()
    text = {"type": "object", "properties": {"a": {"type": "string"}}}
    with_lifecycle(plane)
    plane.create(definition(text, text), namespace="")
    await until(plane.store, lambda: plane.api.registry.find("example.com", "v1", "widgets"))
    obj = plane.create(widget(spec={"a": "1"}, status={"a": "lost"}))

    plane.patch(obj, {"spec": {"a": "2"}, "status": {"a": "lost"}})
    plane.patch(obj, {"spec": {"a": "lost"}, "status": {"a": "kept"}}, writer=Writer("us", subresource="status"))

    now = plane.now(obj) or {}
    assert (now["spec"], now["status"], now["metadata"]["generation"]) == ({"a": "2"}, {"a": "kept"}, 2)


def test_a_write_that_changes_nothing_makes_no_new_version() -> None:
    plane = Plane()
    obj = plane.create(config("c"))

    plane.patch(obj, {"metadata": {"name": "c"}})

    assert (plane.now(obj) or {})["metadata"]["resourceVersion"] == obj["metadata"]["resourceVersion"]


def test_a_write_on_top_of_an_older_version_is_a_conflict() -> None:
    plane = Plane()
    obj = plane.create(config("c"))
    plane.patch(obj, {"data": {"a": "1"}})

    with pytest.raises(ApiError, match="please apply your changes to the latest version"):
        plane.patch(obj, {"metadata": {"resourceVersion": obj["metadata"]["resourceVersion"]}, "data": {"a": "2"}})


def test_dry_run_answers_as_if_and_keeps_nothing() -> None:
    plane = Plane()

    created = plane.create(config("c"), dry_run=True)

    assert (created["metadata"]["uid"] != "", plane.now(created)) == (True, None)


def test_generated_names_start_as_asked() -> None:
    created = Plane().create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "x-"}})

    assert len(created["metadata"]["name"]) == len("x-") + 5
