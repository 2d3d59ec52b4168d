"""Deployments and ReplicaSets, small: one ReplicaSet per template, old ones go when the new one is ready."""

import hashlib
import json

from lora_devcluster.api import Api, DeleteOptions, WriteOptions, random_suffix
from lora_devcluster.conditions import is_true, set_condition
from lora_devcluster.controller import Controller
from lora_devcluster.documents import copied
from lora_devcluster.errors import ApiError, Json
from lora_devcluster.events import Recorder
from lora_devcluster.job_policy import is_finished
from lora_devcluster.ownership import Writer
from lora_devcluster.store import Change, Key

HASH = "pod-template-hash"
_AS_CONTROLLER = WriteOptions(Writer("kube-controller-manager"))
_SAFE_DIGITS = "bcdf4567890gh2jk"


def template_hash(template: Json) -> str:
    digest = hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:10]
    return "".join(_SAFE_DIGITS[int(digit, 16)] for digit in digest)


def _owner(obj: Json, kind: str) -> Json:
    meta = obj["metadata"]
    identity = {"apiVersion": "apps/v1", "kind": kind, "name": meta["name"], "uid": meta["uid"]}
    return {**identity, "controller": True, "blockOwnerDeletion": True}


def _owner_key(obj: Json, kind: str, plural: str) -> Key | None:
    for reference in obj["metadata"].get("ownerReferences") or ():
        if reference.get("controller") and reference["kind"] == kind:
            return Key("apps", plural, obj["metadata"]["namespace"], reference["name"])
    return None


class ReplicaSetController(Controller):
    """As many pods as a ReplicaSet asks for."""

    def __init__(self, api: Api, recorder: Recorder) -> None:
        super().__init__()
        self._api = api
        self._recorder = recorder
        api.store.subscribe(self._listen)

    def _listen(self, change: Change) -> None:
        if change.key.collection == ("apps", "replicasets"):
            self.enqueue(change.key)
        elif change.key.collection == ("", "pods"):
            owner = _owner_key(change.object, "ReplicaSet", "replicasets")
            if owner is not None:
                self.enqueue(owner)

    def reconcile(self, key: Key) -> None:
        replica_set = self._api.store.get(key)
        if replica_set is None or replica_set["metadata"].get("deletionTimestamp"):
            return
        pods = [
            self._api.store.get(k)
            for k in self._api.store.dependents(replica_set["metadata"]["uid"])
            if k.plural == "pods"
        ]
        live = [pod for pod in pods if pod and not pod["metadata"].get("deletionTimestamp") and not is_finished(pod)]
        wanted = replica_set["spec"]["replicas"]
        for _ in range(wanted - len(live)):
            self._create_pod(key, replica_set)
        for pod in live[wanted:]:
            self._api.discard(Key("", "pods", key.namespace, pod["metadata"]["name"]), DeleteOptions())
        ready = sum(is_true(pod["status"], "Ready") for pod in live[:wanted])
        present = sum(1 for pod in pods if pod and not is_finished(pod))
        status = {"replicas": present, "readyReplicas": ready, "availableReplicas": ready}
        status["observedGeneration"] = replica_set["metadata"]["generation"]
        self._api.modify(key, lambda obj: obj.update(status=status))

    def _create_pod(self, key: Key, replica_set: Json) -> None:
        template = copied(replica_set["spec"]["template"])
        meta = template.get("metadata") or {}
        named = {"name": f"{key.name}-{random_suffix()}", "generateName": f"{key.name}-"}
        meta = {**meta, **named, "ownerReferences": [_owner(replica_set, "ReplicaSet")]}
        resource = self._api.registry.builtin("", "pods")
        try:
            self._api.create(resource, key.namespace, {"metadata": meta, "spec": template["spec"]}, _AS_CONTROLLER)
        except ApiError as error:
            self._recorder.warning(
                replica_set, "replicaset-controller", "FailedCreate", f"Error creating: {error.message}"
            )
            self.enqueue_after(key, 5.0)


class DeploymentController(Controller):
    """The newest template's ReplicaSet, and the counts that clients wait for."""

    def __init__(self, api: Api) -> None:
        super().__init__()
        self._api = api
        api.store.subscribe(self._listen)

    def _listen(self, change: Change) -> None:
        if change.key.collection == ("apps", "deployments"):
            self.enqueue(change.key)
        elif change.key.collection == ("apps", "replicasets"):
            owner = _owner_key(change.object, "Deployment", "deployments")
            if owner is not None:
                self.enqueue(owner)

    def reconcile(self, key: Key) -> None:
        deployment = self._api.store.get(key)
        if deployment is None or deployment["metadata"].get("deletionTimestamp"):
            return
        name = f"{key.name}-{template_hash(deployment['spec']['template'])}"
        owned = self._api.store.dependents(deployment["metadata"]["uid"])
        sets = [found for one in owned if one.plural == "replicasets" and (found := self._api.store.get(one))]
        current = next((one for one in sets if one["metadata"]["name"] == name), None)
        old = [
            one
            for one in sets
            if one is not current and (one.get("status") or {}).get("replicas", one["spec"]["replicas"])
        ]
        wanted = deployment["spec"]["replicas"]
        recreate = deployment["spec"]["strategy"]["type"] == "Recreate"
        if recreate and old:
            self._scale(old, 0)
        elif current is None:
            self._create_set(key, deployment, name)
        else:
            self._scale([current], wanted)
            if (current.get("status") or {}).get("availableReplicas", 0) >= wanted:
                self._scale(old, 0)
        self._report(key, deployment, current, old)

    def _scale(self, sets: list[Json], replicas: int) -> None:
        for one in sets:
            key = Key("apps", "replicasets", one["metadata"]["namespace"], one["metadata"]["name"])
            self._api.modify(key, lambda obj: _set_replicas(obj, replicas))

    def _create_set(self, key: Key, deployment: Json, name: str) -> None:
        template = copied(deployment["spec"]["template"])
        label = {HASH: name.rpartition("-")[2]}
        meta = template.setdefault("metadata", {})
        meta["labels"] = {**(meta.get("labels") or {}), **label}
        selector = copied(deployment["spec"]["selector"])
        selector["matchLabels"] = {**(selector.get("matchLabels") or {}), **label}
        spec = {"replicas": deployment["spec"]["replicas"], "selector": selector, "template": template}
        owned = {"name": name, "labels": meta["labels"], "ownerReferences": [_owner(deployment, "Deployment")]}
        resource = self._api.registry.builtin("apps", "replicasets")
        self._api.create(resource, key.namespace, {"metadata": owned, "spec": spec}, _AS_CONTROLLER)

    def _report(self, key: Key, deployment: Json, current: Json | None, old: list[Json]) -> None:
        wanted, now = deployment["spec"]["replicas"], (current or {}).get("status") or {}
        lingering = sum((one.get("status") or {}).get("replicas", 0) for one in old)
        available = now.get("availableReplicas", 0)
        counts = {
            "replicas": now.get("replicas", 0) + lingering,
            "updatedReplicas": now.get("replicas", 0),
            "readyReplicas": now.get("readyReplicas", 0),
            "availableReplicas": available,
            "unavailableReplicas": max(wanted - available, 0),
        }

        def change(obj: Json) -> None:
            status = obj.setdefault("status", {})
            for name, count in counts.items():
                status.pop(name, None)
                if count:
                    status[name] = count
            status["observedGeneration"] = obj["metadata"]["generation"]
            obj["metadata"].setdefault("annotations", {})["deployment.kubernetes.io/revision"] = "1"
            good = "True" if available >= wanted else "False"
            reason = "MinimumReplicasAvailable" if available >= wanted else "MinimumReplicasUnavailable"
            set_condition(status, "Available", good, reason)
            done = available >= wanted and not lingering
            set_condition(status, "Progressing", "True", "NewReplicaSetAvailable" if done else "ReplicaSetUpdated")

        self._api.modify(key, change)


def _set_replicas(obj: Json, replicas: int) -> None:
    if obj["spec"]["replicas"] != replicas:
        obj["spec"]["replicas"] = replicas
        obj["metadata"]["generation"] += 1
