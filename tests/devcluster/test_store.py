"""The store: versions, history, owners."""

from typing import Any

import pytest

from lora_devcluster.errors import ApiError
from lora_devcluster.store import Change, Key, Store


def key(name: str, namespace: str = "ns") -> Key:
    return Key("g", "things", namespace, name)


def thing(name: str, **meta: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "uid": f"uid-{name}", **meta}}


def test_every_write_gets_a_higher_version() -> None:
    store = Store()

    versions = [store.put(key("a"), thing("a"))["metadata"]["resourceVersion"] for _ in range(3)]

    assert [int(version) for version in versions] == sorted({int(version) for version in versions})


def test_what_a_reader_got_is_not_changed_by_a_later_write() -> None:
    store = Store()
    first = store.put(key("a"), thing("a", labels={"x": "1"}))

    store.put(key("a"), thing("a", labels={"x": "2"}))

    assert first["metadata"]["labels"] == {"x": "1"}


def test_objects_are_listed_by_namespace_and_name() -> None:
    store = Store()
    for name, namespace in (("b", "n2"), ("a", "n2"), ("c", "n1")):
        store.put(key(name, namespace), thing(name))

    assert [obj["metadata"]["name"] for obj in store.objects("g", "things")] == ["c", "a", "b"]
    assert [obj["metadata"]["name"] for obj in store.objects("g", "things", "n2")] == ["a", "b"]


def test_changes_since_a_version_are_those_after_it() -> None:
    store = Store()
    seen = int(store.put(key("a"), thing("a"))["metadata"]["resourceVersion"])
    store.put(key("a"), thing("a", labels={}))
    store.remove(key("a"))

    assert [change.type for change in store.changes_since("g", "things", seen)] == ["MODIFIED", "DELETED"]


def test_a_version_older_than_the_history_is_gone() -> None:
    store = Store(history=2)
    first = int(store.put(key("a"), thing("a"))["metadata"]["resourceVersion"])
    for _ in range(4):
        store.put(key("a"), thing("a"))

    with pytest.raises(ApiError) as refusal:
        store.changes_since("g", "things", first)

    assert refusal.value.code == 410


def test_one_collections_writes_do_not_shorten_anothers_history() -> None:
    store = Store(history=2)
    store.put(key("a"), thing("a"))
    for number in range(10):
        store.put(Key("g", "others", "ns", str(number)), thing(str(number)))

    assert [change.type for change in store.changes_since("g", "things", 0)] == ["ADDED"]


def test_dependents_follow_owner_references_as_they_change() -> None:
    store = Store()
    store.put(key("child"), thing("child", ownerReferences=[{"uid": "uid-parent"}]))
    before = store.dependents("uid-parent")

    store.put(key("child"), thing("child", ownerReferences=[]))

    assert (before, store.dependents("uid-parent")) == ([key("child")], [])


def test_a_removed_object_is_no_dependent_and_has_no_uid() -> None:
    store = Store()
    store.put(key("child"), thing("child", ownerReferences=[{"uid": "uid-parent"}]))

    store.remove(key("child"))

    assert (store.dependents("uid-parent"), store.key_of("uid-child")) == ([], None)


def test_listeners_see_the_state_before_and_after() -> None:
    store, seen = Store(), list[Change]()
    store.put(key("a"), thing("a", labels={"x": "1"}))
    unsubscribe = store.subscribe(seen.append)

    store.put(key("a"), thing("a", labels={"x": "2"}))
    unsubscribe()
    store.remove(key("a"))

    [change] = seen
    assert change.previous is not None
    assert (change.previous["metadata"]["labels"], change.object["metadata"]["labels"]) == ({"x": "1"}, {"x": "2"})
