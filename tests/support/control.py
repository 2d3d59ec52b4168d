"""An API with controllers but without a node: tests play the kubelet."""

from typing import Any

from lora_devcluster.api import Api, DeleteOptions, WriteOptions, Written, key_for
from lora_devcluster.errors import ApiError
from lora_devcluster.events import Recorder
from lora_devcluster.gc import GarbageCollector
from lora_devcluster.jobs import JobController
from lora_devcluster.lifecycle import DefinitionController, NamespaceController
from lora_devcluster.resources import Registry, Resource
from lora_devcluster.store import Key, Store
from tests.support.devcluster import Manifest

NAMESPACE = "default"


class Plane:
    """A control plane in this process: the API with a namespace, and any controllers a test adds."""

    def __init__(self) -> None:
        self.store = Store()
        self.api = Api(self.store, Registry())
        self.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}, namespace="")

    def resource(self, obj: Manifest) -> Resource:
        found = self.api.registry.of_kind(obj["apiVersion"], obj["kind"])
        assert found is not None, obj["kind"]
        return found

    def create(self, obj: Manifest, *, namespace: str = NAMESPACE, **options: Any) -> Manifest:
        return self.api.create(self.resource(obj), namespace, obj, WriteOptions(**options)).object

    def patch(
        self, obj: Manifest, change: Any, *, media: str = "application/merge-patch+json", **options: Any
    ) -> Written:
        return self.api.patch(self.resource(obj), self.key(obj), media, change, WriteOptions(**options))

    def delete(self, obj: Manifest, **options: Any) -> None:
        self.api.delete(self.resource(obj), self.key(obj), DeleteOptions(**options))

    def key(self, obj: Manifest) -> Key:
        return key_for(self.resource(obj), obj["metadata"].get("namespace", NAMESPACE), obj["metadata"]["name"])

    def now(self, obj: Manifest) -> Manifest | None:
        """The object as it is stored, or None."""
        return self.store.get(self.key(obj))

    def refusal(self, obj: Manifest, **options: Any) -> ApiError:
        """Why the object cannot be created."""
        try:
            self.create(obj, **options)
        except ApiError as error:
            return error
        raise AssertionError(f"{obj['kind']} was accepted")

    def pods(self) -> list[Manifest]:
        return self.store.objects("", "pods", NAMESPACE)

    def live_pods(self) -> list[Manifest]:
        return [p for p in self.pods() if p["status"]["phase"] in ("Pending", "Running")]

    # What the kubelet does.

    def run(self, pod: Manifest) -> None:
        def change(obj: Manifest) -> None:
            obj["spec"]["nodeName"] = "node"
            obj["status"]["phase"] = "Running"

        self.api.modify(self.key(pod), change)

    def finish(self, pod: Manifest, code: int, conditions: list[Manifest] | None = None) -> None:
        def change(obj: Manifest) -> None:
            ended = {"terminated": {"exitCode": code}}
            statuses = [{"name": c["name"], "state": ended, "restartCount": 0} for c in obj["spec"]["containers"]]
            phase = "Failed" if code else "Succeeded"
            obj["status"] |= {"phase": phase, "containerStatuses": statuses, "conditions": conditions or []}
            obj["metadata"].pop("deletionGracePeriodSeconds", None)

        self.api.modify(self.key(pod), change)


def with_jobs(plane: Plane, backoff_seconds: float = 0.0) -> JobController:
    return JobController(plane.api, Recorder(plane.api), backoff_seconds)


def with_gc(plane: Plane) -> GarbageCollector:
    return GarbageCollector(plane.api)


def with_lifecycle(plane: Plane) -> tuple[NamespaceController, DefinitionController]:
    return NamespaceController(plane.api), DefinitionController(plane.api)
