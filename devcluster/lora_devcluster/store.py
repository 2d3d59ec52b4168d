"""Keeps the objects in memory: versions, bounded history for watches, an index by owner. Used by the API only.

Stored objects are never changed in place: a write replaces the whole object, so that a reader may keep what it got.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from lora_devcluster.errors import Json, expired


class Key(NamedTuple):
    """Where an object lies; the namespace is empty for cluster-wide kinds."""

    group: str
    plural: str
    namespace: str
    name: str

    @property
    def collection(self) -> tuple[str, str]:
        return self.group, self.plural


@dataclass(frozen=True)
class Change:
    """One write: what happened, the object after it and before it."""

    type: Literal["ADDED", "MODIFIED", "DELETED"]
    key: Key
    object: Json
    previous: Json | None
    version: int


Listener = Callable[[Change], None]


def owner_uids(obj: Json) -> list[str]:
    """The uids of the object's owners."""
    return [ref["uid"] for ref in obj["metadata"].get("ownerReferences") or ()]


class Store:
    """All objects of the cluster, one counter of versions, and a bounded history per collection.

    `history` is how many changes of each collection a late watcher may still ask for.
    """

    def __init__(self, history: int = 2000) -> None:
        self.version = 1
        self._history_limit = history
        self._objects: dict[tuple[str, str], dict[tuple[str, str], Json]] = defaultdict(dict)
        self._history: dict[tuple[str, str], deque[Change]] = {}
        self._oldest: dict[tuple[str, str], int] = defaultdict(int)
        self._listeners: list[Listener] = []
        self._uids: dict[str, Key] = {}
        self._dependents: dict[str, set[Key]] = defaultdict(set)

    def get(self, key: Key) -> Json | None:
        return self._objects[key.collection].get((key.namespace, key.name))

    def objects(self, group: str, plural: str, namespace: str = "") -> list[Json]:
        """The objects of a collection, ordered by namespace and name; all namespaces when none is given."""
        found = self._objects[group, plural]
        return [found[place] for place in sorted(found) if not namespace or place[0] == namespace]

    def in_namespace(self, namespace: str) -> Iterator[Key]:
        """Every object that lies in the namespace."""
        for (group, plural), objects in self._objects.items():
            for place, name in objects:
                if place == namespace:
                    yield Key(group, plural, place, name)

    def put(self, key: Key, obj: Json) -> Json:
        """Stores the object, new or changed, under a new version, and tells the listeners; the stored object."""
        previous = self.get(key)
        self.version += 1
        stored = {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(self.version)}}
        self._unindex(key, previous)
        self._objects[key.collection][key.namespace, key.name] = stored
        self._uids[stored["metadata"]["uid"]] = key
        for uid in owner_uids(stored):
            self._dependents[uid].add(key)
        self._record(Change("MODIFIED" if previous else "ADDED", key, stored, previous, self.version))
        return stored

    def remove(self, key: Key, last: Json | None = None) -> Json:
        """Removes the object and tells the listeners; its last state, with the version of the removal.

        `last` is that state when the write that ends the object also changed it.
        """
        previous = self._objects[key.collection].pop((key.namespace, key.name))
        self.version += 1
        self._unindex(key, previous)
        del self._uids[previous["metadata"]["uid"]]
        state = last or previous
        state = {**state, "metadata": {**state["metadata"], "resourceVersion": str(self.version)}}
        self._record(Change("DELETED", key, state, previous, self.version))
        return state

    def key_of(self, uid: str) -> Key | None:
        """Where the object with this uid lies, or None when it is gone."""
        return self._uids.get(uid)

    def dependents(self, uid: str) -> list[Key]:
        """The objects that name this uid as an owner."""
        return sorted(self._dependents.get(uid, ()))

    def drop_collection(self, group: str, plural: str) -> None:
        """Forgets the history of a collection whose kind is gone: its watchers must start again."""
        self._history.pop((group, plural), None)
        self._oldest[group, plural] = self.version

    def changes_since(self, group: str, plural: str, version: int) -> list[Change]:
        """The collection's changes after the version.

        Raises:
            ApiError: 410 when the history no longer reaches back so far.
        """
        oldest = self._oldest[group, plural]
        if version < oldest:
            raise expired(oldest, version)
        return [change for change in self._history.get((group, plural), ()) if change.version > version]

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Calls the listener after every write; the returned function ends that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def _unindex(self, key: Key, previous: dict[str, Any] | None) -> None:
        for uid in owner_uids(previous) if previous else ():
            self._dependents[uid].discard(key)
            if not self._dependents[uid]:
                del self._dependents[uid]

    def _record(self, change: Change) -> None:
        history = self._history.setdefault(change.key.collection, deque())
        history.append(change)
        if len(history) > self._history_limit:
            self._oldest[change.key.collection] = history.popleft().version
        for listener in tuple(self._listeners):
            listener(change)
