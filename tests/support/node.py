"""A running laptop-sized cluster from the point of view of a test of its node."""

from dataclasses import dataclass
from typing import Any

from lora_devcluster import DevCluster
from lora_devcluster.api import DeleteOptions, WriteOptions
from lora_devcluster.store import Key
from tests.support.devcluster import Manifest, until


@dataclass(frozen=True)
class Node:
    """Creates objects in the default namespace and waits for what becomes of them."""

    cluster: DevCluster

    def create(self, obj: Manifest) -> Manifest:
        resource = self.cluster.api.registry.of_kind(obj["apiVersion"], obj["kind"])
        assert resource is not None, obj["kind"]
        return self.cluster.api.create(resource, "default", obj, WriteOptions()).object

    def keep(self, kind: str, name: str, data: Manifest) -> None:
        """A Secret (values in base64) or ConfigMap."""
        self.create({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, "data": data})

    def pod(self, name: str = "p") -> Manifest | None:
        return self.cluster.store.get(Key("", "pods", "default", name))

    def delete(self, name: str = "p", **options: Any) -> None:
        resource = self.cluster.api.registry.builtin("", "pods")
        self.cluster.api.delete(resource, Key("", "pods", "default", name), DeleteOptions(**options))

    def log(self, name: str = "p", container: str = "main", *, previous: bool = False) -> str:
        pod = self.pod(name)
        path = self.cluster.kubelet.log_file(pod, container, previous) if pod else None
        return path.read_text() if path else ""

    async def phase(self, *wanted: str, name: str = "p") -> Manifest:
        """The pod once it is in one of the phases."""
        return await until(self.cluster.store, lambda: self._in_phase(name, wanted))

    def _in_phase(self, name: str, wanted: tuple[str, ...]) -> Manifest | None:
        pod = self.pod(name)
        return pod if pod and pod["status"].get("phase") in wanted else None

    async def finished(self, name: str = "p") -> Manifest:
        return await self.phase("Succeeded", "Failed", name=name)

    async def waiting(self, reason: str, name: str = "p") -> Manifest:
        """The waiting state of the first container once it has this reason."""

        def look() -> Manifest | None:
            statuses = (self.pod(name) or {"status": {}})["status"].get("containerStatuses") or [{"state": {}}]
            state: Manifest = statuses[0]["state"].get("waiting") or {}
            return state if state.get("reason") == reason else None

        return await until(self.cluster.store, look)

    async def gone(self, name: str = "p") -> None:
        await until(self.cluster.store, lambda: self.pod(name) is None)

    async def event(self, reason: str) -> Manifest:
        store = self.cluster.store
        return await until(store, lambda: next((e for e in store.objects("", "events") if e["reason"] == reason), None))


def ended(pod: Manifest, index: int = 0) -> Manifest:
    """The terminated state of one of the pod's containers."""
    state: Manifest = pod["status"]["containerStatuses"][index]["state"]["terminated"]
    return state
