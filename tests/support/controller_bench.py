"""A controller on an API server made of a dictionary, for tests."""

import copy
from datetime import datetime
from pathlib import Path
from typing import Any

from lora_api import LoraTrainingStatus, names
from lora_operator.cache import Cache
from lora_operator.controller import Controller, World
from lora_operator.errors import Conflict
from lora_operator.metrics import Metrics
from lora_operator.profiles import ProfileFile
from lora_operator.queue import WorkQueue
from lora_operator.recorder import EventRecorder
from lora_operator.subject import Key
from tests.support.observations import NOW, job_body, pod_body, training_body

KEY = Key("ml", "hina")


class FakeCluster:
    """Objects by resource and name; counts versions; refuses what the test wants refused."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        self.calls: list[str] = []
        self.events: list[dict[str, Any]] = []
        self.refuse: Any = lambda verb, resource, body: None
        self.version = 100

    def put(self, plural: str, body: dict[str, Any]) -> dict[str, Any]:
        self.version += 1
        meta = {"uid": f"uid-{self.version}", "creationTimestamp": "2026-11-22T11:59:00Z", **body["metadata"]}
        stored = {**copy.deepcopy(body), "metadata": {**meta, "resourceVersion": str(self.version)}}
        self.objects[plural, meta["name"]] = stored
        return stored

    async def get(self, resource: Any, _namespace: str, name: str) -> dict[str, Any] | None:
        self._called("get", resource)
        return self.objects.get((resource.plural, name))

    async def list(self, resource: Any, _namespace: str, *, labels: str = "", fields: str = "") -> list[dict[str, Any]]:
        self._called("list", resource)
        if resource.plural == "events":
            return self.events
        return [body for (plural, _), body in self.objects.items() if plural == resource.plural]

    async def create(self, resource: Any, manifest: dict[str, Any]) -> dict[str, Any] | None:
        self._called("create", resource, manifest)
        name = manifest["metadata"]["name"]
        return None if (resource.plural, name) in self.objects else self.put(resource.plural, manifest)

    async def apply(self, resource: Any, manifest: dict[str, Any]) -> dict[str, Any]:
        self._called("apply", resource, manifest)
        return self.put(resource.plural, manifest)

    async def patch(
        self, resource: Any, _namespace: str, name: str, body: dict[str, Any], *, subresource: str = ""
    ) -> dict[str, Any] | None:
        self._called("patch", resource, body)
        known = self.objects.get((resource.plural, name))
        if known is None:
            return None
        wanted = body.get("metadata", {}).get("resourceVersion")
        if wanted and wanted != known["metadata"]["resourceVersion"]:
            raise Conflict("the object has been modified")
        return self.put(resource.plural, _merged(known, {k: v for k, v in body.items() if k != "metadata"}))

    async def delete(self, resource: Any, _namespace: str, name: str, *, uid: str | None = None) -> None:
        self._called("delete", resource)
        self.objects.pop((resource.plural, name), None)

    def _called(self, verb: str, resource: Any, body: Any = None) -> None:
        self.calls.append(f"{verb} {resource.plural}")
        error = self.refuse(verb, resource.plural, body)
        if error:
            raise error


def _merged(old: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """RFC 7386, in its own words: null removes, objects merge, everything else replaces."""
    new = dict(old)
    for key, value in patch.items():
        if value is None:
            new.pop(key, None)
        elif isinstance(value, dict):
            new[key] = _merged(new.get(key) if isinstance(new.get(key), dict) else {}, value)
        else:
            new[key] = value
    return new


def named(body: dict[str, Any], key: Key) -> dict[str, Any]:
    """The same of another training."""
    labels = {**body["metadata"].get("labels", {}), names.LABEL_TRAINING: key.name}
    return {**body, "metadata": {**body["metadata"], "name": key.name, "labels": labels}}


class Bench:
    """A controller with everything around it."""

    def __init__(self, folder: Path) -> None:
        path = folder / "profiles.yaml"
        path.write_text("{default: {image: 'trainer:1', preflight: Off}, checked: {image: 'trainer:1'}}")
        self.cluster = FakeCluster()
        self.cache = Cache()
        self.queue: WorkQueue[Key] = WorkQueue()
        self.metrics = Metrics()
        self.now: datetime = NOW
        recorder = EventRecorder(self.cluster, "test")  # type: ignore[arg-type]
        world = World(self.cluster, self.cache, self.queue, ProfileFile.open(path), self.metrics, recorder)  # type: ignore[arg-type]
        self.controller = Controller(world, resync_seconds=300, clock=lambda: self.now)

    def training(self, *changes: tuple[str, Any], **state: Any) -> dict[str, Any]:
        body = self.cluster.put("loratrainings", training_body(*changes, **state))
        self.cache.put("training", body)
        return body

    def add(self, key: Key, **job: Any) -> None:
        """Another training with its Job."""
        for kind, plural, body in (("training", "loratrainings", training_body()), ("job", "jobs", job_body(**job))):
            self.cache.put(kind, self.cluster.put(plural, named(body, key)))  # type: ignore[arg-type]

    def job(self, attempt: int = 1, **changes: Any) -> None:
        self.cache.put("job", self.cluster.put("jobs", job_body(attempt, **changes)))

    def pod(self, **changes: Any) -> None:
        self.cache.put("pod", self.cluster.put("pods", pod_body(**changes)))

    async def look(self, times: int = 1) -> float | None:
        delay = None
        for _ in range(times):
            self.cluster.calls.clear()
            delay = await self.controller.reconcile(KEY)
        return delay

    @property
    def status(self) -> LoraTrainingStatus:
        body = self.cluster.objects["loratrainings", "hina"]
        return LoraTrainingStatus.model_validate(body.get("status", {}), strict=False)

    def reason(self, kind: str) -> str:
        return next(condition.reason for condition in self.status.conditions if condition.type == kind)
