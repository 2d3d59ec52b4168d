"""Volume claims: how they are bound, kept while pods name them, made for a pod's own volumes, and emptied in the end.

After pkg/controller/volume/{pvcprotection,ephemeral} of Kubernetes.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

from lora_devcluster.api import Api, WriteOptions
from lora_devcluster.controller import Controller
from lora_devcluster.errors import Json
from lora_devcluster.store import Change, Key

CLAIMS = ("", "persistentvolumeclaims")
_PODS = ("", "pods")
_PROTECTION = "kubernetes.io/pvc-protection"


def claim_name(pod: Json, volume: Json) -> str:
    """The claim that the volume is made of; nothing for other volumes."""
    if volume.get("ephemeral") is not None:
        return f"{pod['metadata']['name']}-{volume['name']}"
    return str((volume.get("persistentVolumeClaim") or {}).get("claimName") or "")


def claim_obstacle(pod: Json, volume: Json, claim: Json | None) -> str:
    """Why the pod cannot be placed with this claim, in the scheduler's words; nothing when it can."""
    name = claim_name(pod, volume)
    own = volume.get("ephemeral") is not None
    if claim is None:
        waits = f'waiting for ephemeral volume controller to create the persistentvolumeclaim "{name}"'
        return waits if own else f'persistentvolumeclaim "{name}" not found'
    if claim["metadata"].get("deletionTimestamp"):
        return f'persistentvolumeclaim "{name}" is being deleted'
    if own and not _is_of(pod, claim):
        where = pod["metadata"]["namespace"]
        return f"PVC {where}/{name} was not created for pod {where}/{pod['metadata']['name']} (pod is not owner)"
    return ""


def _is_of(pod: Json, claim: Json) -> bool:
    owners = claim["metadata"].get("ownerReferences") or ()
    return any(owner["uid"] == pod["metadata"]["uid"] for owner in owners)


def _claims_of(pod: Json) -> Iterator[Key]:
    for volume in pod["spec"].get("volumes") or ():
        if name := claim_name(pod, volume):
            yield Key(*CLAIMS, pod["metadata"]["namespace"], name)


class ClaimController(Controller):
    """Binds every claim at once, as the kubelet gives each a folder; keeps it while a placed pod names it."""

    def __init__(self, api: Api, folder: Path) -> None:
        super().__init__()
        self._api = api
        self._folder = folder
        api.store.subscribe(self._listen)

    def _listen(self, change: Change) -> None:
        if change.key.collection == CLAIMS and change.type == "DELETED":
            shutil.rmtree(self._folder / change.key.namespace / change.key.name, ignore_errors=True)
        elif change.key.collection == CLAIMS:
            self.enqueue(change.key)
        elif change.key.collection == _PODS and change.type == "DELETED":
            for claim in _claims_of(change.object):
                self.enqueue(claim)

    def reconcile(self, key: Key) -> None:
        claim = self._api.store.get(key)
        if claim is None:
            return
        if not claim["metadata"].get("deletionTimestamp"):
            self._api.modify(key, _bind)
        elif not self._is_used(key):
            self._api.modify(key, _unprotect)

    def _is_used(self, claim: Key) -> bool:
        """Whether a pod that has a node names it; one that has ended does too, for as long as it is there."""
        return any(pod["spec"].get("nodeName") and claim in _claims_of(pod) for pod in self._api.store.objects(*_PODS))


def _bind(claim: Json) -> None:
    capacity = (claim["spec"].get("resources") or {}).get("requests") or {}
    claim["spec"].setdefault("volumeName", f"pvc-{claim['metadata']['uid']}")
    claim["status"] = {"phase": "Bound", "accessModes": claim["spec"].get("accessModes"), "capacity": capacity}
    others = [name for name in claim["metadata"].get("finalizers") or () if name != _PROTECTION]
    claim["metadata"]["finalizers"] = [*others, _PROTECTION]


def _unprotect(claim: Json) -> None:
    finalizers = claim["metadata"].get("finalizers") or ()
    claim["metadata"]["finalizers"] = [name for name in finalizers if name != _PROTECTION]


class EphemeralVolumeController(Controller):
    """Makes the claims of pods' own volumes; each goes with its pod."""

    def __init__(self, api: Api) -> None:
        super().__init__()
        self._api = api
        api.store.subscribe(self._listen)

    def _listen(self, change: Change) -> None:
        if change.key.collection == _PODS and change.type == "ADDED":
            self.enqueue(change.key)
        elif change.key.collection == CLAIMS and change.type == "DELETED":
            for pod in self._api.store.objects(*_PODS):
                if change.key in _claims_of(pod):
                    self.enqueue(Key(*_PODS, change.key.namespace, pod["metadata"]["name"]))

    def reconcile(self, key: Key) -> None:
        pod = self._api.store.get(key)
        if pod is None or pod["metadata"].get("deletionTimestamp"):
            return
        for volume in pod["spec"].get("volumes") or ():
            claim = Key(*CLAIMS, key.namespace, claim_name(pod, volume))
            if volume.get("ephemeral") is not None and self._api.store.get(claim) is None:
                self._make(claim, pod, volume["ephemeral"]["volumeClaimTemplate"])

    def _make(self, claim: Key, pod: Json, template: Json) -> None:
        meta = pod["metadata"]
        owner = {"apiVersion": "v1", "kind": "Pod", "name": meta["name"], "uid": meta["uid"]}
        wanted = template.get("metadata") or {}
        metadata = {
            "name": claim.name,
            **{name: wanted[name] for name in ("labels", "annotations") if wanted.get(name)},
            "ownerReferences": [{**owner, "controller": True, "blockOwnerDeletion": True}],
        }
        body = {"metadata": metadata, "spec": template["spec"]}
        self._api.create(self._api.registry.builtin(*CLAIMS), claim.namespace, body, WriteOptions())
