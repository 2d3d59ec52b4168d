"""What may be done with objects: create, replace, patch, delete, with the life cycle that Kubernetes gives them.

Used by the HTTP routes and by the controllers of this process. Every operation is atomic: nothing here waits.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import uuid4

from lora_devcluster import clock
from lora_devcluster.admission import decode, fill_defaults, object_schema, validate
from lora_devcluster.documents import copied
from lora_devcluster.errors import ApiError, Json, already_exists, bad_request, conflict, forbidden_request, not_found
from lora_devcluster.ownership import Writer, apply, record_update
from lora_devcluster.patching import json_patch, merge_patch, strategic_patch
from lora_devcluster.pod_admission import admit_pod
from lora_devcluster.resources import Registry, Resource
from lora_devcluster.store import Key, Store

SUFFIX_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
_SERVER_META = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation", "selfLink")
_STRATEGIC = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"
JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"


@dataclass(frozen=True)
class WriteOptions:
    """How a write is meant: its author, what to do about unknown fields, and whether to keep the outcome."""

    writer: Writer = field(default_factory=lambda: Writer("devcluster"))
    dry_run: bool = False
    field_validation: str = "Warn"
    force: bool = False

    @property
    def subresource(self) -> str:
        return self.writer.subresource


@dataclass(frozen=True)
class Written:
    """The outcome of a write."""

    object: Json
    created: bool = False
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class DeleteOptions:
    """How an object goes: what becomes of its dependents, and how long a pod may take."""

    propagation: str = ""
    grace_seconds: int | None = None
    uid: str = ""
    resource_version: str = ""
    dry_run: bool = False


def key_for(resource: Resource, namespace: str, name: str) -> Key:
    return Key(resource.group, resource.plural, namespace if resource.namespaced else "", name)


def random_suffix(length: int = 5) -> str:
    return "".join(random.choices(SUFFIX_LETTERS, k=length))


def _generated_name(meta: Json) -> str:
    return str(meta["generateName"])[:58] + random_suffix() if meta.get("generateName") else ""


class Api:
    """All operations on the objects of one store."""

    def __init__(self, store: Store, registry: Registry) -> None:
        self.store = store
        self.registry = registry
        self.mutators: list[Callable[[Resource, Json], None]] = []
        """Change new objects before they are checked, as mutating webhooks do."""

    def get(self, resource: Resource, key: Key) -> Json:
        """The object in the asked version of its kind.

        Raises:
            ApiError: 404.
        """
        found = self.store.get(key)
        if found is None:
            raise not_found(resource.group, resource.plural, key.name)
        return self.in_version(resource, found)

    @staticmethod
    def in_version(resource: Resource, obj: Json) -> Json:
        if obj["apiVersion"] == resource.api_version:
            return obj
        return {**obj, "apiVersion": resource.api_version}

    def create(self, resource: Resource, namespace: str, body: Any, options: WriteOptions) -> Written:
        """A new object.

        Raises:
            ApiError: 400, 403, 404 (no such namespace), 409 (exists already) or 422.
        """
        obj, warnings = decode(resource, body, options.field_validation)
        meta = obj["metadata"]
        self._check_namespace(resource, namespace, meta)
        if meta.get("resourceVersion"):
            raise bad_request("resourceVersion should not be set on objects to be created")
        meta["name"] = meta.get("name") or _generated_name(meta)
        for name in _SERVER_META:
            meta.pop(name, None)
        meta |= {"uid": str(uuid4()), "creationTimestamp": clock.timestamp()}
        meta["generation"] = 1
        if resource.namespaced:
            meta["namespace"] = namespace
        if resource.has_status:
            obj.pop("status", None)
        key = key_for(resource, namespace, meta["name"])
        obj = self._prepared(resource, obj, None, options)
        if self.store.get(key) is not None:
            raise already_exists(resource.group, resource.plural, key.name)
        return Written(self._keep(key, obj, options), True, tuple(warnings))

    def _prepared(self, resource: Resource, obj: Json, old: Json | None, options: WriteOptions) -> Json:
        if old is None:
            for mutate in self.mutators:
                mutate(resource, obj)
        obj = fill_defaults(resource, obj)
        validate(resource, obj, old)
        if resource.plural == "pods" and old is None:
            admit_pod(self.store, obj)
        if options.writer.operation != "Apply":
            entries = record_update(object_schema(resource), obj, old, options.writer, clock.timestamp())
            obj["metadata"] = {**obj["metadata"], "managedFields": entries}
        _tidy(obj["metadata"])
        return obj

    def _check_namespace(self, resource: Resource, namespace: str, meta: Json) -> None:
        if not resource.namespaced:
            return
        if meta.get("namespace", namespace) != namespace:
            raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
        found = self.store.get(Key("", "namespaces", "", namespace))
        if found is None:
            raise not_found("", "namespaces", namespace)
        if found["metadata"].get("deletionTimestamp"):
            words = f"unable to create new content in namespace {namespace} because it is being terminated"
            raise forbidden_request(resource.group, resource.plural, meta.get("name", ""), words)

    def replace(self, resource: Resource, key: Key, body: Any, options: WriteOptions) -> Written:
        """The object with a new content (PUT).

        Raises:
            ApiError: 400, 404, 409 (written by someone else since it was read) or 422.
        """
        old = self.get(resource, key)
        obj, warnings = decode(resource, body, options.field_validation)
        return self._replaced(resource, key, (old, obj), options, tuple(warnings))

    def _replaced(
        self, resource: Resource, key: Key, change: tuple[Json, Json], options: WriteOptions, warnings: tuple[str, ...]
    ) -> Written:
        old, obj = change
        meta, old_meta = obj["metadata"], old["metadata"]
        _check_identity(resource, key, meta, old_meta)
        for name in _SERVER_META:
            meta.pop(name, None)
        meta |= {name: old_meta[name] for name in _SERVER_META if name in old_meta}
        meta["resourceVersion"] = old_meta["resourceVersion"]
        meta.setdefault("managedFields", old_meta.get("managedFields") or [])
        if resource.namespaced:
            meta["namespace"] = key.namespace
        obj = _of_subresource(resource, obj, old, options.subresource)
        obj = self._prepared(resource, obj, old, options)
        if _is_new_generation(resource, obj, old):
            obj["metadata"]["generation"] = old_meta.get("generation", 1) + 1
        if _same(obj, old):
            return Written(old, warnings=warnings)
        return Written(self._keep(key, obj, options), warnings=warnings)

    def patch(self, resource: Resource, key: Key, media_type: str, patch: Any, options: WriteOptions) -> Written:
        """The object after a patch; a server-side apply of an object that is not there creates it.

        Raises:
            ApiError: 400, 404, 409, 415 (a kind of patch that the resource does not take) or 422.
        """
        if media_type == APPLY:
            return self._apply(resource, key, patch, options)
        old = self.get(resource, key)
        obj = self._patched(resource, old, media_type, patch)
        decoded, warnings = decode(resource, obj, options.field_validation)
        return self._replaced(resource, key, (old, decoded), options, tuple(warnings))

    @staticmethod
    def _patched(resource: Resource, old: Json, media_type: str, patch: Any) -> Json:
        if media_type == JSON_PATCH:
            return json_patch(copied(old), patch)
        if not isinstance(patch, dict):
            raise bad_request("the patch must be an object")
        if media_type == MERGE_PATCH:
            merged: Json = merge_patch(old, patch)
            return merged
        if media_type == _STRATEGIC and not resource.custom:
            return strategic_patch(old, patch, object_schema(resource))
        accepted = [JSON_PATCH, MERGE_PATCH, APPLY, *([] if resource.custom else [_STRATEGIC])]
        words = "the body of the request was in an unknown format - accepted media types include: " + ", ".join(
            accepted
        )
        raise ApiError(415, "UnsupportedMediaType", words)

    def _apply(self, resource: Resource, key: Key, body: Any, options: WriteOptions) -> Written:
        applied, warnings = decode(resource, body, options.field_validation)
        meta = applied["metadata"]
        if "managedFields" in meta:
            raise bad_request("metadata.managedFields must be nil")
        if meta.get("name", key.name) != key.name:
            raise bad_request(
                f"the name of the object ({meta['name']}) does not match the name on the URL ({key.name})"
            )
        meta["name"] = key.name
        live = self.store.get(key)
        writer = replace(options.writer, operation="Apply")
        options = replace(options, writer=writer)
        if live is None:
            if options.subresource:
                raise not_found(resource.group, resource.plural, key.name)
            empty: Json = {"metadata": {}}
            body = apply(object_schema(resource), empty, applied, writer, force=True, now=clock.timestamp())
            return replace(self.create(resource, key.namespace, body, options), warnings=tuple(warnings))
        live = copied(self.in_version(resource, live))
        merged = apply(object_schema(resource), live, applied, writer, force=options.force, now=clock.timestamp())
        return self._replaced(resource, key, (live, merged), options, tuple(warnings))

    def _keep(self, key: Key, obj: Json, options: WriteOptions) -> Json:
        if options.dry_run:
            return obj
        return self._write(key, obj)

    def _write(self, key: Key, obj: Json) -> Json:
        """Stores the object, or removes it when its deletion waits for nothing any more."""
        meta = obj["metadata"]
        waits = meta.get("finalizers") or meta.get("deletionGracePeriodSeconds")
        if key.plural == "namespaces":
            waits = waits or obj["spec"].get("finalizers")
        if meta.get("deletionTimestamp") and not waits and self.store.get(key) is not None:
            return self.store.remove(key, obj)
        return self.store.put(key, obj)

    def modify(self, key: Key, change: Callable[[Json], None]) -> Json | None:
        """Changes an object in place of a controller, without admission; None when it is gone."""
        old = self.store.get(key)
        if old is None:
            return None
        obj = copied(old)
        change(obj)
        _tidy(obj["metadata"])
        if obj == old:
            return old
        return self._write(key, obj)

    def discard(self, key: Key, options: DeleteOptions) -> None:
        """Deletes an object on behalf of a controller; nothing when it is gone, or going, already."""
        obj, resource = self.store.get(key), self.registry.collection(*key.collection)
        if obj is not None and resource is not None and not obj["metadata"].get("deletionTimestamp"):
            self.delete(resource, key, options)

    def delete(self, resource: Resource, key: Key, options: DeleteOptions) -> Json:
        """The object as it goes, or as it waits for its finalizers, its dependents or its processes.

        Raises:
            ApiError: 404 or 409 (not the object that was meant).
        """
        old = self.get(resource, key)
        _check_preconditions(resource, key, old["metadata"], options)
        obj = copied(old)
        meta = obj["metadata"]
        _plan_deletion(resource, obj, options)
        if options.dry_run:
            return obj
        if meta.get("generation"):
            meta["generation"] += 0 if "deletionTimestamp" in old["metadata"] else 1
        if obj == old:
            return old
        return self._write(key, obj)


def _tidy(meta: Json) -> None:
    """Leaves out what is empty, as the server does when it writes an object."""
    for name in ("labels", "annotations", "finalizers", "ownerReferences", "managedFields"):
        if name in meta and not meta[name]:
            del meta[name]


def _check_identity(resource: Resource, key: Key, meta: Json, old: Json) -> None:
    if meta.get("name") != key.name:
        raise bad_request(
            f"the name of the object ({meta.get('name', '')}) does not match the name on the URL ({key.name})"
        )
    if resource.namespaced and (meta.get("namespace") or key.namespace) != key.namespace:
        raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
    if meta.get("uid") and meta["uid"] != old["uid"]:
        words = f"Precondition failed: UID in precondition: {meta['uid']}, UID in object meta: {old['uid']}"
        raise conflict(resource.group, resource.plural, key.name, words)
    if meta.get("resourceVersion") and meta["resourceVersion"] != old["resourceVersion"]:
        raise conflict(resource.group, resource.plural, key.name)


def _of_subresource(resource: Resource, obj: Json, old: Json, subresource: str) -> Json:
    """What a write may touch: the status alone through `/status`, everything else without it."""
    if subresource == "status":
        entries = obj["metadata"].get("managedFields")
        kept = {**old, "metadata": {**old["metadata"], "managedFields": entries}}
        kept.pop("status", None)
        return {**kept, "status": obj["status"]} if "status" in obj else kept
    if resource.has_status:
        obj.pop("status", None)
        return {**obj, "status": old["status"]} if "status" in old else obj
    return obj


def _is_new_generation(resource: Resource, obj: Json, old: Json) -> bool:
    ignored = {"metadata", "status"} if resource.has_status or not resource.custom else {"metadata"}
    return {k: v for k, v in obj.items() if k not in ignored} != {k: v for k, v in old.items() if k not in ignored}


def _same(obj: Json, old: Json) -> bool:
    """Whether nothing but the record of field owners' times differs."""

    def essence(one: Json) -> Json:
        entries = [{**entry, "time": ""} for entry in one["metadata"].get("managedFields") or ()]
        return {**one, "metadata": {**one["metadata"], "managedFields": entries}}

    return essence(obj) == essence(old)


def _check_preconditions(resource: Resource, key: Key, meta: Json, options: DeleteOptions) -> None:
    for name, wanted in (("uid", options.uid), ("resourceVersion", options.resource_version)):
        if wanted and wanted != meta[name]:
            label = name if name != "uid" else "UID"
            words = f"Precondition failed: {label} in precondition: {wanted}, {label} in object meta: {meta[name]}"
            raise conflict(resource.group, resource.plural, key.name, words)


def _plan_deletion(resource: Resource, obj: Json, options: DeleteOptions) -> None:
    meta = obj["metadata"]
    policy = options.propagation or (
        "Orphan" if (resource.group, resource.plural) == ("batch", "jobs") else "Background"
    )
    if policy not in ("Orphan", "Background", "Foreground"):
        raise bad_request(f'invalid propagationPolicy "{policy}": needs to be Orphan, Background or Foreground')
    finalizers = [name for name in meta.get("finalizers") or () if name not in ("orphan", "foregroundDeletion")]
    if policy != "Background":
        finalizers.append("orphan" if policy == "Orphan" else "foregroundDeletion")
    meta["finalizers"] = finalizers
    if not finalizers:
        del meta["finalizers"]
    grace = _grace_seconds(resource, obj, options.grace_seconds)
    if grace is not None and meta.get("deletionGracePeriodSeconds") is not None:
        grace = min(grace, meta["deletionGracePeriodSeconds"])
    if "deletionTimestamp" not in meta or grace is not None:
        meta["deletionTimestamp"] = clock.later(grace or 0)
        meta["deletionGracePeriodSeconds"] = grace or 0
    if resource.plural == "namespaces":
        obj.setdefault("status", {})["phase"] = "Terminating"


def _grace_seconds(resource: Resource, obj: Json, asked: int | None) -> int | None:
    """How long the kubelet may take to stop a pod; None for everything else."""
    if resource.plural != "pods":
        return None
    idle = not obj["spec"].get("nodeName") or obj["status"].get("phase") in ("Succeeded", "Failed")
    if idle:
        return 0
    return asked if asked is not None else int(obj["spec"]["terminationGracePeriodSeconds"])
