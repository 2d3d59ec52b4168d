"""A laptop-sized cluster with the definition of LoraTraining, and the operator as a process beside it.

Used by the benchmarks of the operator. Everything listens on loopback, and ends with its `async with`.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from lora_api import names
from lora_devcluster import DevCluster
from lora_devcluster.cluster import ClusterSetting
from lora_devcluster.requests import RequestInfo

ROOT = Path(__file__).resolve().parents[1]
TRAINER = ("python", str(ROOT / "benchmarks" / "resuming_trainer.py"))
NAMESPACE = "ml"
TRAININGS = f"/apis/{names.API_VERSION}/namespaces/{NAMESPACE}/{names.PLURAL}"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
WRITES = frozenset({"create", "update", "patch", "delete"})

Manifest = dict[str, Any]
Stored = Callable[[str, str], list[Manifest]]
"""The objects of an API group and plural."""


@dataclass
class Bed:
    """One cluster and what a user does in it."""

    cluster: DevCluster
    folder: Path
    session: aiohttp.ClientSession

    def environment(self, **changes: str) -> dict[str, str]:
        """The environment of an operator of this cluster."""
        return {
            "KUBECONFIG": str(self.cluster.kubeconfig),
            "LORA_PROFILES_FILE": str(self.folder / "profiles.yaml"),
            "LORA_HTTP_ADDRESS": "127.0.0.1",
            "LORA_HTTP_PORT": "0",
            "LORA_LOG_LEVEL": "ERROR",
            **changes,
        }

    async def start_operator(self, **changes: str) -> asyncio.subprocess.Process:
        """The operator as a process of its own."""
        environment = {**os.environ, **self.environment(**changes)}
        return await asyncio.create_subprocess_exec(sys.executable, "-m", "lora_operator", env=environment)

    async def send(self, method: str, path: str, body: object) -> Manifest:
        """One request as a user makes it. Raises RuntimeError in the server's words."""
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        headers = {"Content-Type": kind, "User-Agent": "user"}
        async with self.session.request(method, self.cluster.url + path, json=body, headers=headers) as response:
            answer: Manifest = await response.json()
            if response.status >= 300:
                raise RuntimeError(answer.get("message"))
            return answer

    def stored(self, group: str, plural: str) -> list[Manifest]:
        """The objects of a kind."""
        return self.cluster.store.objects(group, plural, NAMESPACE)

    def calls(self, since: int = 0) -> list[RequestInfo]:
        """What operators asked of the API server, watches and kopf's own lists aside."""
        return [request for request in self.cluster.requests[since:] if is_call(request)]

    async def until(self, holds: Callable[[], Any], *, seconds: float = 120.0) -> Any:
        """Looks after every change in the cluster; what `holds` returned when it first was true."""
        changed = asyncio.Event()
        unsubscribe = self.cluster.store.subscribe(lambda _: changed.set())
        try:
            async with asyncio.timeout(seconds):
                while not (found := holds()):
                    await changed.wait()
                    changed.clear()
                return found
        except TimeoutError:
            found = [body.get("status") for body in self.stored(names.GROUP, names.PLURAL)]
            raise RuntimeError(f"never came; the trainings are {found[:5]}") from None
        finally:
            unsubscribe()


@asynccontextmanager
async def open_bed(folder: Path, setting: ClusterSetting, profiles: Manifest) -> AsyncIterator[Bed]:
    """A cluster with the definition, a namespace and a file of profiles; no operator yet."""
    async with DevCluster(folder / "cluster", setting) as cluster, aiohttp.ClientSession() as session:
        bed = Bed(cluster, folder, session)
        (folder / "profiles.yaml").write_text(yaml.safe_dump(profiles))
        definition = yaml.safe_load((ROOT / "crds" / "loratrainings.yaml").read_text())
        await bed.send("POST", DEFINITIONS, definition)
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
        await bed.send("POST", "/api/v1/namespaces", namespace)
        yield bed


def is_call(request: RequestInfo) -> bool:
    """Whether the operator itself made the request."""
    return request.user_agent.startswith(f"{names.MANAGER}/")


def make_training(
    name: str, *, gpus: int = 0, env: dict[str, str] | None = None, namespace: str = NAMESPACE, **spec: Any
) -> Manifest:
    """A LoraTraining of few words."""
    entries = [{"name": key, "value": value} for key, value in (env or {}).items()]
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "baseModel": {"uri": "s3://models/sd15"},
            "dataset": {"uri": "s3://data/pictures"},
            "output": {"uri": f"s3://runs/{name}"},
            "parallelism": {"gpusPerNode": gpus},
            **({"pod": {"env": entries}} if entries else {}),
            **spec,
        },
    }


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mib(pid: int, field: str) -> float:
    """Memory of a process: VmRSS now, VmHWM at its peak."""
    usage = Path(f"/proc/{pid}/status").read_text().splitlines()
    (line,) = [line for line in usage if line.startswith(f"{field}:")]
    return int(line.split()[1]) / 1024
