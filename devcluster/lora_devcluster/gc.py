"""The garbage collector: dependents follow their owners, in the background, in the foreground, or stay as orphans."""

from lora_devcluster.api import Api, DeleteOptions
from lora_devcluster.controller import Controller
from lora_devcluster.errors import Json
from lora_devcluster.store import Change, Key, owner_uids

_BACKGROUND = DeleteOptions(propagation="Background")


class GarbageCollector(Controller):
    """Watches every object; looks at those whose owners or deletion changed."""

    def __init__(self, api: Api) -> None:
        super().__init__()
        self._api = api
        self._store = api.store
        self._store.subscribe(self._listen)

    def _listen(self, change: Change) -> None:
        meta = change.object["metadata"]
        if change.type == "DELETED":
            for key in self._store.dependents(meta["uid"]):
                self.enqueue(key)
            for uid in owner_uids(change.object):
                owner = self._store.key_of(uid)
                if owner is not None:
                    self.enqueue(owner)
        elif meta.get("deletionTimestamp") or (change.type == "ADDED" and meta.get("ownerReferences")):
            self.enqueue(change.key)

    def reconcile(self, key: Key) -> None:
        obj = self._store.get(key)
        if obj is None:
            return
        finalizers = obj["metadata"].get("finalizers") or ()
        if obj["metadata"].get("deletionTimestamp") and "orphan" in finalizers:
            self._orphan(key, obj)
        elif obj["metadata"].get("deletionTimestamp") and "foregroundDeletion" in finalizers:
            self._delete_in_foreground(key, obj)
        elif not obj["metadata"].get("deletionTimestamp"):
            self._follow_owners(key, obj)

    def _orphan(self, key: Key, owner: Json) -> None:
        for dependent in self._store.dependents(owner["metadata"]["uid"]):
            self._drop_owners(dependent, {owner["metadata"]["uid"]})
        self._drop_finalizer(key, "orphan")

    def _delete_in_foreground(self, key: Key, owner: Json) -> None:
        uid = owner["metadata"]["uid"]
        for dependent in self._store.dependents(uid):
            self._follow_owners(dependent, self._store.get(dependent) or {"metadata": {}})
        if not any(self._blocks(dependent, uid) for dependent in self._store.dependents(uid)):
            self._drop_finalizer(key, "foregroundDeletion")

    def _blocks(self, dependent: Key, uid: str) -> bool:
        obj = self._store.get(dependent) or {"metadata": {}}
        references = obj["metadata"].get("ownerReferences") or ()
        return any(reference["uid"] == uid and reference.get("blockOwnerDeletion") for reference in references)

    def _follow_owners(self, key: Key, obj: Json) -> None:
        """Deletes an object whose owners are all gone or going; otherwise forgets the owners that are gone."""
        owners = set(owner_uids(obj)) if obj["metadata"] else set()
        gone = {uid for uid in owners if self._is_gone(uid, key)}
        if owners and gone == owners:
            self._api.discard(key, _BACKGROUND)
        elif gone:
            self._drop_owners(key, gone)

    def _is_gone(self, uid: str, dependent: Key) -> bool:
        """Absent, in a foreign namespace (which cannot own), or waiting for its dependents to go."""
        owner = self._store.key_of(uid)
        if owner is None or owner.namespace not in ("", dependent.namespace):
            return True
        meta = (self._store.get(owner) or {"metadata": {}})["metadata"]
        return bool(meta.get("deletionTimestamp")) and "foregroundDeletion" in (meta.get("finalizers") or ())

    def _drop_owners(self, key: Key, uids: set[str]) -> None:
        def change(obj: Json) -> None:
            references = obj["metadata"].get("ownerReferences") or []
            obj["metadata"]["ownerReferences"] = [one for one in references if one["uid"] not in uids]

        self._api.modify(key, change)

    def _drop_finalizer(self, key: Key, name: str) -> None:
        def change(obj: Json) -> None:
            obj["metadata"]["finalizers"] = [one for one in obj["metadata"].get("finalizers") or () if one != name]

        self._api.modify(key, change)
