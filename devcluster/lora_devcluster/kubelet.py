"""The kubelet of the one node: a worker for each pod bound to it, their addresses, files and logs."""

import asyncio
import json
import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from lora_devcluster import clock
from lora_devcluster.addresses import PodAddresses
from lora_devcluster.api import Api
from lora_devcluster.builtin import KUBERNETES_VERSION
from lora_devcluster.conditions import set_condition
from lora_devcluster.errors import Json
from lora_devcluster.events import Recorder
from lora_devcluster.hostnames import Hostnames
from lora_devcluster.images import Table
from lora_devcluster.job_policy import is_finished
from lora_devcluster.mounts import remove_files, user_of
from lora_devcluster.pod_worker import PodSetting, PodWorker
from lora_devcluster.scheduler import NodeSpec
from lora_devcluster.store import Change, Key

_INHERITED = ("LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "SSL_CERT_FILE")


@dataclass(frozen=True)
class KubeletSetting:
    """Where the kubelet keeps files, what stands for images, and what every pod's environment holds."""

    folder: Path
    images: Table
    environment: Mapping[str, str] = field(default_factory=dict)
    retry_seconds: float = 0.5
    restart_seconds: float = 10.0

    @property
    def claims(self) -> Path:
        """Where the files of volume claims lie: `<namespace>/<name>`."""
        return self.folder / "claims"


class Kubelet:
    """Runs the pods of the node as local processes. There is no isolation: they run as this user, on this machine."""

    def __init__(self, api: Api, recorder: Recorder, node: NodeSpec, setting: KubeletSetting) -> None:
        self._api = api
        self._recorder = recorder
        self._node = node
        self._setting = setting
        self._workers: dict[str, PodWorker] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._addresses = PodAddresses()
        self._hostnames = Hostnames(api.store, self._addresses.next)
        self._is_gone = False
        self._refusal: tuple[str, str, str] | None = None
        self.server_url = ""
        api.store.subscribe(self._listen)

    @property
    def _pods(self) -> Path:
        return self._setting.folder / "pods"

    def register(self) -> None:
        """Makes the Node object; what an earlier cluster in the same folder left of its pods goes."""
        remove_files(self._pods)
        self._api.store.put(Key("", "nodes", "", self._node.name), _node_object(self._node))

    def _listen(self, change: Change) -> None:
        if self._is_gone:
            return
        if change.key.collection == ("", "pods") and change.object["spec"].get("nodeName") == self._node.name:
            asyncio.get_running_loop().call_soon(self._follow, change)

    def _follow(self, change: Change) -> None:
        if self._is_gone:
            return
        pod, uid = change.object, change.object["metadata"]["uid"]
        worker = self._workers.get(uid)
        if change.type == "DELETED":
            if worker is not None:
                worker.stop(0)
            else:
                remove_files(self._pods / uid)
        elif worker is None and not is_finished(pod) and self._api.store.key_of(uid) == change.key:
            self._start(change.key, pod)
        if worker is not None and pod["metadata"].get("deletionTimestamp"):
            worker.stop(pod["metadata"].get("deletionGracePeriodSeconds") or 0)

    def _start(self, key: Key, pod: Json) -> None:
        uid = pod["metadata"]["uid"]
        if uid in self._tasks:
            return
        if self._refusal is not None and pod["metadata"]["name"].startswith(self._refusal[0]):
            _, reason, words = self._refusal
            self._refusal = None
            self._api.modify(key, lambda obj: obj["status"].update(phase="Failed", reason=reason, message=words))
            return
        address = self._hostnames.address_for(pod)

        def place(obj: Json) -> None:
            addresses = {"hostIP": "127.0.0.1", "podIP": address, "podIPs": [{"ip": address}]}
            obj["status"] |= {**addresses, "startTime": clock.timestamp(), "qosClass": "Burstable"}

        self._api.modify(key, place)
        worker = PodWorker(self._api, self._recorder, key, self._pod_setting(pod))
        self._workers[uid] = worker
        self._tasks[uid] = asyncio.get_running_loop().create_task(self._run(key, worker), name=f"pod {key.name}")
        if pod["metadata"].get("deletionTimestamp"):
            worker.stop(pod["metadata"].get("deletionGracePeriodSeconds") or 0)

    async def _run(self, key: Key, worker: PodWorker) -> None:
        uid = worker.pod["metadata"]["uid"]
        try:
            await worker.run()
        finally:
            del self._workers[uid]
            del self._tasks[uid]
        current = self._api.store.get(key)
        if current is None or current["metadata"]["uid"] != uid:
            remove_files(worker.files)
        elif current["metadata"].get("deletionTimestamp"):
            self._api.modify(key, lambda pod: pod["metadata"].update(deletionGracePeriodSeconds=0))

    def _pod_setting(self, pod: Json) -> PodSetting:
        inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
        environment = {**inherited, "PATH": path, **self._setting.environment, **self._api_access(pod)}
        return PodSetting(
            self._pods,
            self._setting.claims,
            self._setting.images,
            environment,
            self._setting.retry_seconds,
            self._setting.restart_seconds,
            self._hostnames.resolve,
        )

    def _api_access(self, pod: Json) -> dict[str, str]:
        """A kubeconfig in the place of the token file that a real kubelet mounts."""
        account = self._api.store.get(
            Key("", "serviceaccounts", pod["metadata"]["namespace"], pod["spec"].get("serviceAccountName") or "default")
        )
        mounts = pod["spec"].get("automountServiceAccountToken", (account or {}).get("automountServiceAccountToken"))
        if mounts is False or account is None:
            return {}
        folder = self._pods / pod["metadata"]["uid"]
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "kubeconfig"
        path.write_text(kubeconfig(self.server_url, user_of(pod), pod["metadata"]["namespace"]))
        return {"KUBECONFIG": str(path)}

    def log_file(self, pod: Json, container: str, previous: bool) -> Path | None:
        """The file that holds what the container printed, or None when it has not started."""
        folder = self._pods / pod["metadata"]["uid"] / "logs"
        own = [path for path in folder.glob("*.log") if path.stem.rpartition("-")[0] == container]
        runs = sorted(own, key=lambda path: int(path.stem.rpartition("-")[2]))
        wanted = runs[:-1] if previous else runs
        return wanted[-1] if wanted else None

    def is_running(self, pod: Json, container: str) -> bool:
        worker = self._workers.get(pod["metadata"]["uid"])
        return worker is not None and worker.is_running(container)

    def kill_for_memory(self, namespace: str, pod: str, container: str) -> None:
        """Ends a running container as the kernel does when its memory is used up.

        Raises:
            KeyError: there is no such running container.
        """
        found = self._api.store.get(Key("", "pods", namespace, pod))
        if found is None:
            raise KeyError(f"{namespace}/{pod}")
        self._workers[found["metadata"]["uid"]].kill_for_memory(container)

    def end(self, pod: Json, grace_seconds: float, reason: str, message: str) -> None:
        """Ends a running pod on the kubelet's own account."""
        worker = self._workers.get(pod["metadata"]["uid"])
        if worker is not None:
            worker.stop(grace_seconds, reason, message)

    def refuse_next(self, prefix: str, reason: str, message: str) -> None:
        """The next pod bound whose name begins so is not admitted, as when a device has just failed."""
        self._refusal = (prefix, reason, f"Pod was rejected: {message}")

    def vanish(self) -> None:
        """Falls silent as a node does that loses its power: processes are gone, and nothing is reported."""
        self._is_gone = True
        for worker in self._workers.values():
            worker.abandon()
        for task in self._tasks.values():
            task.cancel()

    def return_empty(self) -> None:
        """Comes back as a new node without pods."""
        self._is_gone = False

    async def stop(self) -> None:
        """Kills every process that is left."""
        for worker in tuple(self._workers.values()):
            worker.stop(0)
        if self._tasks:
            await asyncio.wait(tuple(self._tasks.values()), timeout=5)
        self._addresses.close()


def kubeconfig(url: str, token: str, namespace: str) -> str:
    """A kubeconfig for a server without TLS. JSON is YAML, and needs no library to write."""
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "devcluster", "cluster": {"server": url}}],
        "users": [{"name": "user", "user": {"token": token}}],
        "contexts": [
            {"name": "devcluster", "context": {"cluster": "devcluster", "user": "user", "namespace": namespace}}
        ],
        "current-context": "devcluster",
    }
    return json.dumps(content, indent=1) + "\n"


def _node_object(node: NodeSpec) -> Json:
    labels = {"kubernetes.io/hostname": node.name, "kubernetes.io/os": "linux", **node.labels}
    version = f"v{KUBERNETES_VERSION}+devcluster"
    info = dict.fromkeys(("machineID", "systemUUID", "bootID", "kubeProxyVersion"), "") | {
        "kubeletVersion": version,
        "containerRuntimeVersion": "process://1",
        "kernelVersion": platform.release(),
        "operatingSystem": "linux",
        "osImage": platform.platform(),
        "architecture": "amd64",
    }
    status: Json = {
        "capacity": node.capacity(),
        "allocatable": node.capacity(),
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "nodeInfo": info,
    }
    set_condition(status, "Ready", "True", "KubeletReady", "the kubelet is ready")
    meta = {"name": node.name, "uid": str(uuid4()), "creationTimestamp": clock.timestamp(), "labels": labels}
    spec = {"taints": [dict(taint) for taint in node.taints]} if node.taints else {}
    return {"apiVersion": "v1", "kind": "Node", "metadata": meta, "spec": spec, "status": status}
