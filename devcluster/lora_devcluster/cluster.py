"""The whole cluster as one object, for tests and the demo: on the caller's event loop, or in a thread of its own."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from lora_devcluster.api import Api, WriteOptions
from lora_devcluster.claims import ClaimController, EphemeralVolumeController
from lora_devcluster.controller import Controller
from lora_devcluster.deployments import DeploymentController, ReplicaSetController
from lora_devcluster.disruptions import Disruptions
from lora_devcluster.events import Recorder
from lora_devcluster.gc import GarbageCollector
from lora_devcluster.images import Table
from lora_devcluster.jobs import JobController
from lora_devcluster.kubelet import Kubelet, KubeletSetting, kubeconfig
from lora_devcluster.kueue import QueueController, QueueSetting
from lora_devcluster.lifecycle import DefinitionController, NamespaceController
from lora_devcluster.requests import RequestInfo
from lora_devcluster.resources import Registry
from lora_devcluster.scheduler import NodeSpec, Scheduler
from lora_devcluster.server import ApiServer, Fault
from lora_devcluster.store import Store

T = TypeVar("T")
_NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")


@dataclass(frozen=True)
class ClusterSetting:
    """How to build a cluster: its node, its images, and delays that tests shorten.

    `images` maps patterns of image names to the command that stands for their entry point, or to "noop".
    `environment` goes into every pod. `history` is how many changes of each kind a late watcher may ask for.
    """

    images: Table = field(default_factory=dict)
    node: NodeSpec = field(default_factory=NodeSpec)
    environment: Mapping[str, str] = field(default_factory=dict)
    host: str = "127.0.0.1"
    port: int = 0
    history: int = 2000
    job_backoff_seconds: float = 10.0
    restart_seconds: float = 10.0
    retry_seconds: float = 0.5


class DevCluster:
    """An API server, its controllers and one node, on the running event loop.

    `async with DevCluster(folder, images={...}, gpus=1) as cluster:` starts it; leaving ends every process.
    """

    def __init__(
        self,
        folder: Path,
        setting: ClusterSetting | None = None,
        *,
        images: Table | None = None,
        gpus: int | None = None,
    ) -> None:
        setting = setting or ClusterSetting()
        if images is not None:
            setting = replace(setting, images=images)
        if gpus is not None:
            setting = replace(setting, node=replace(setting.node, gpus=gpus))
        self.folder = folder.resolve()
        self.setting = setting
        self.store = Store(setting.history)
        self.api = Api(self.store, Registry())
        self._recorder = recorder = Recorder(self.api)
        kubelet = KubeletSetting(
            self.folder, setting.images, setting.environment, setting.retry_seconds, setting.restart_seconds
        )
        self.kubelet = Kubelet(self.api, recorder, setting.node, kubelet)
        self.disruptions = Disruptions(self.api, self.kubelet, recorder, setting.node.name)
        self.server = ApiServer(self.api, self.kubelet)
        self._controllers: tuple[Controller, ...] = (
            DefinitionController(self.api),
            NamespaceController(self.api),
            ClaimController(self.api, kubelet.claims),
            EphemeralVolumeController(self.api),
            GarbageCollector(self.api),
            JobController(self.api, recorder, setting.job_backoff_seconds),
            DeploymentController(self.api),
            ReplicaSetController(self.api, recorder),
            Scheduler(self.api, recorder, setting.node),
        )
        self.url = ""

    @property
    def kubeconfig(self) -> Path:
        """The file that KUBECONFIG should name."""
        return self.folder / "kubeconfig"

    @property
    def requests(self) -> list[RequestInfo]:
        """Every request for a resource so far, oldest first."""
        return list(self.server.requests)

    @property
    def faults(self) -> list[Fault]:
        """Functions that may answer a request with an error instead of the server."""
        return self.server.faults

    def install_queue(self, setting: QueueSetting) -> QueueController:
        """Installs the stand-in for Kueue, as an administrator would at any time."""
        controller = QueueController(self.api, self._recorder, setting)
        self._controllers = (*self._controllers, controller)
        return controller

    async def __aenter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.url = await self.server.start(self.setting.host, self.setting.port)
        self.kubelet.server_url = self.url
        self.kubelet.register()
        namespaces = self.api.registry.builtin("", "namespaces")
        for name in _NAMESPACES:
            self.api.create(namespaces, "", {"metadata": {"name": name}}, WriteOptions())
        self.kubeconfig.write_text(kubeconfig(self.url, "kubernetes-admin", "default"))
        return self

    async def __aexit__(self, *_failure: object) -> None:
        for controller in self._controllers:
            controller.stop()
        await self.kubelet.stop()
        await self.server.stop()


class ThreadedCluster:
    """A DevCluster in a thread of its own, for callers that block. `call` runs something on its event loop."""

    def __init__(self, folder: Path, setting: ClusterSetting | None = None) -> None:
        self.cluster = DevCluster(folder, setting)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="devcluster", daemon=True)

    @property
    def kubeconfig(self) -> Path:
        return self.cluster.kubeconfig

    @property
    def url(self) -> str:
        return self.cluster.url

    def call(self, function: Callable[[], T]) -> T:
        """Runs the function on the cluster's thread, where store and API may be touched, and returns its result."""

        async def run() -> T:
            return function()

        return self._await(run())

    def _await(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=30)

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self._await(self.cluster.__aenter__())
        except BaseException:
            self._end_thread()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._await(self.cluster.__aexit__(kind, error, trace))
        self._end_thread()

    def _end_thread(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)
        self._loop.close()
