"""Namespaces and CustomResourceDefinitions: how they come into use, and how they go."""

from lora_devcluster.api import Api, DeleteOptions, WriteOptions, key_for
from lora_devcluster.conditions import set_condition
from lora_devcluster.controller import Controller
from lora_devcluster.errors import Json
from lora_devcluster.store import Change, Key

_CLEANUP = "customresourcecleanup.apiextensions.k8s.io"
_DEFINITIONS = ("apiextensions.k8s.io", "customresourcedefinitions")
_BACKGROUND = DeleteOptions(propagation="Background")


class NamespaceController(Controller):
    """Furnishes new namespaces and empties those that are being deleted."""

    def __init__(self, api: Api) -> None:
        super().__init__()
        self._api = api
        api.store.subscribe(self._listen)

    def _listen(self, change: Change) -> None:
        if change.key.collection == ("", "namespaces") and change.type != "DELETED":
            self.enqueue(change.key)
        elif change.type == "DELETED" and change.key.namespace:
            self.enqueue(Key("", "namespaces", "", change.key.namespace))

    def reconcile(self, key: Key) -> None:
        namespace = self._api.store.get(key)
        if namespace is None:
            return
        if not namespace["metadata"].get("deletionTimestamp"):
            self._furnish(key.name)
            return
        for inside in list(self._api.store.in_namespace(key.name)):
            self._api.discard(inside, _BACKGROUND)
        if next(self._api.store.in_namespace(key.name), None) is None:
            self._api.modify(key, lambda obj: obj["spec"].update(finalizers=[]))

    def _furnish(self, namespace: str) -> None:
        furniture: list[tuple[str, Json]] = [
            ("serviceaccounts", {"metadata": {"name": "default"}}),
            ("configmaps", {"metadata": {"name": "kube-root-ca.crt"}, "data": {"ca.crt": ""}}),
        ]
        for plural, body in furniture:
            resource = self._api.registry.builtin("", plural)
            if self._api.store.get(key_for(resource, namespace, body["metadata"]["name"])) is None:
                self._api.create(resource, namespace, body, WriteOptions())


class DefinitionController(Controller):
    """Serves the kinds that CustomResourceDefinitions define, and removes their objects with them."""

    def __init__(self, api: Api) -> None:
        super().__init__()
        self._api = api
        self._going: set[tuple[str, str]] = set()
        api.store.subscribe(self._listen)

    def _listen(self, change: Change) -> None:
        if change.key.collection == _DEFINITIONS:
            if change.type == "DELETED":
                self._withdraw(change.object)
            else:
                self.enqueue(change.key)
        elif change.type == "DELETED" and change.key.collection in self._going:
            self.enqueue(Key(*_DEFINITIONS, "", f"{change.key.plural}.{change.key.group}"))

    def _withdraw(self, definition: Json) -> None:
        place = definition["spec"]["group"], definition["spec"]["names"]["plural"]
        self._api.registry.undefine(definition)
        self._api.store.drop_collection(*place)
        self._going.discard(place)

    def reconcile(self, key: Key) -> None:
        definition = self._api.store.get(key)
        if definition is None:
            return
        if definition["metadata"].get("deletionTimestamp"):
            self._remove_objects(key, definition)
        else:
            self._api.registry.define(definition)
            self._api.modify(key, _establish)

    def _remove_objects(self, key: Key, definition: Json) -> None:
        group, plural = definition["spec"]["group"], definition["spec"]["names"]["plural"]
        self._going.add((group, plural))
        for obj in self._api.store.objects(group, plural):
            meta = obj["metadata"]
            self._api.discard(Key(group, plural, meta.get("namespace", ""), meta["name"]), _BACKGROUND)
        if not self._api.store.objects(group, plural):
            self._api.modify(key, _release)


def _establish(definition: Json) -> None:
    names = {name: value for name, value in definition["spec"]["names"].items() if value}
    status = definition.setdefault("status", {})
    status["acceptedNames"] = names
    stored = next(version["name"] for version in definition["spec"]["versions"] if version["storage"])
    status["storedVersions"] = [*(v for v in status.get("storedVersions") or () if v != stored), stored]
    set_condition(status, "NamesAccepted", "True", "NoConflicts", "no conflicts found")
    set_condition(status, "Established", "True", "InitialNamesAccepted", "the initial names have been accepted")
    finalizers = definition["metadata"].get("finalizers") or []
    definition["metadata"]["finalizers"] = [*(name for name in finalizers if name != _CLEANUP), _CLEANUP]


def _release(definition: Json) -> None:
    finalizers = definition["metadata"].get("finalizers") or []
    definition["metadata"]["finalizers"] = [name for name in finalizers if name != _CLEANUP]
