"""A laptop-sized cluster with our definition in it, operators beside it, and waits for what is to come."""

import asyncio
import copy
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from lora_api import names
from lora_devcluster import DevCluster
from lora_devcluster.cluster import ClusterSetting
from lora_devcluster.scheduler import NodeSpec
from lora_operator.application import Application
from lora_operator.settings import Settings
from tests.support.chart import NAMESPACE as SYSTEM
from tests.support.documents import make_document
from tests.support.operator_rights import install_rights

ROOT = Path(__file__).parents[2]
TRAINER = ("python", "-P", str(Path(__file__).with_name("fake_trainer.py")))
IMAGES = {"trainer:*": TRAINER, "noop:*": "noop"}
PROFILES = {
    "default": {"image": "trainer:1"},
    "noop": {"image": "noop:1"},
    "elsewhere": {"image": "missing:1"},
    "picky": {"image": "trainer:1", "nodeSelector": {"room": "cellar"}},
    "inside": {"image": "trainer:1", "preflight": "InitContainer"},
    "other-gpu": {"image": "trainer:1", "preflight": "Off", "gpuResource": "amd.com/gpu"},
}
TIMEOUT_SECONDS = 60
"""Only what hangs takes so long, also on a machine with much else to do."""
TRAININGS = f"/apis/{names.API_VERSION}/namespaces/ml/{names.PLURAL}"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
JOBS = "/apis/batch/v1/namespaces/ml/jobs"

Manifest = dict[str, Any]


@dataclass
class Scenario:
    """One cluster; operators are started and stopped by the test, with the rights that the chart gives them."""

    cluster: DevCluster
    folder: Path
    session: aiohttp.ClientSession
    _accounts: dict[tuple[str, ...], Path] = field(default_factory=dict)
    _operators: list[tuple[asyncio.Event, asyncio.Task[None]]] = field(default_factory=list)

    @property
    def profiles_file(self) -> Path:
        return self.folder / "profiles.yaml"

    def settings(self, **changes: Any) -> Settings:
        wanted = {
            "profiles_file": self.profiles_file,
            "http_address": "127.0.0.1",
            "http_port": 0,
            "progress_interval_seconds": 0.1,
            "status_interval_seconds": 0.0,
            "kubeconfig": str(self.account(changes.get("namespaces", ()))),
        }
        return Settings(**{**wanted, **changes})

    def account(self, namespaces: tuple[str, ...] = ()) -> Path:
        """A kubeconfig of the operator's ServiceAccount, with the rights for these namespaces."""
        if namespaces not in self._accounts:
            self._accounts[namespaces] = install_rights(self.cluster, namespaces)
        return self._accounts[namespaces]

    async def start_operator(self, **changes: Any) -> Application:
        application = Application(self.settings(**changes))
        stop = asyncio.Event()
        self._operators.append((stop, asyncio.create_task(application.run(stop))))
        await self.until_told(lambda: application.port)
        return application

    async def stop_operators(self) -> None:
        while self._operators:
            stop, task = self._operators.pop()
            stop.set()
            await task

    # What a user does, by the API as kubectl uses it.

    async def define(self) -> None:
        await self.send("POST", DEFINITIONS, _definition())

    async def create(self, *changes: tuple[str, Any], name: str = "hina", env: Manifest | None = None) -> Manifest:
        document = make_document(("parallelism.gpusPerNode", 0), *changes, name=name)
        if env:
            entries = [{"name": key, "value": str(value)} for key, value in env.items()]
            document["spec"].setdefault("pod", {})["env"] = entries
        return await self.send("POST", TRAININGS, document)

    async def create_in(self, namespace: str) -> str:
        await self.send("POST", "/api/v1/namespaces", _namespace(namespace))
        document = make_document()
        path = TRAININGS.replace("/ml/", f"/{namespace}/")
        return str((await self.send("POST", path, _in_namespace(document, namespace)))["metadata"]["name"])

    async def create_secret(self, name: str) -> None:
        document = {"metadata": {"name": name}, "data": {"AWS_ACCESS_KEY_ID": "eA=="}}
        await self.send("POST", "/api/v1/namespaces/ml/secrets", {"apiVersion": "v1", "kind": "Secret", **document})

    async def change(self, body: Manifest, *, name: str = "hina", path: str = TRAININGS) -> None:
        await self.send("PATCH", f"{path}/{name}", body)

    async def delete(self, name: str, *, path: str = TRAININGS) -> None:
        await self.send("DELETE", f"{path}/{name}", {"propagationPolicy": "Background"})

    async def send(self, method: str, path: str, body: Manifest) -> Manifest:
        headers = {"Content-Type": "application/merge-patch+json" if method == "PATCH" else "application/json"}
        async with self.session.request(method, self.cluster.url + path, json=body, headers=headers) as response:
            answer: Manifest = await response.json()
            assert response.status < 300, answer
            return answer

    # What can be seen.

    def training(self, name: str = "hina") -> Manifest | None:
        found = [obj for obj in self.stored(names.GROUP, names.PLURAL) if obj["metadata"]["name"] == name]
        return copy.deepcopy(found[0]) if found else None

    def stored(self, group: str, plural: str) -> list[Manifest]:
        return self.cluster.store.objects(group, plural, "ml")

    def pod_count(self) -> int:
        return len(self.stored("", "pods"))

    def metrics(self, application: Application) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{application.port}/metrics", timeout=5) as response:
            return response.read().decode()

    def status_of(self, application: Application, path: str) -> int:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{application.port}{path}", timeout=5) as response:
                return response.status
        except urllib.error.HTTPError as error:
            return error.code

    def jobs(self) -> list[str]:
        return [job["metadata"]["name"] for job in self.stored("batch", "jobs")]

    def events(self) -> dict[str, Manifest]:
        return {event["reason"]: event for event in self._own_events()}

    def events_of(self, reason: str) -> list[Manifest]:
        return [event for event in self._own_events() if event["reason"] == reason]

    def _own_events(self) -> list[Manifest]:
        return [event for event in self.stored("", "events") if event["involvedObject"]["kind"] == names.KIND]

    def writes(self, target: str) -> int:
        """Requests of operators that changed such objects."""
        return sum(
            r.target == target and r.verb in {"create", "patch", "update", "delete"} and r.code < 400
            for r in self.cluster.requests
            if r.user_agent.startswith("lora-operator/")
        )

    async def until(self, holds: Callable[[], Any]) -> Any:
        """Looks after every change in the cluster; what `holds` returned when it first was true."""
        changed = asyncio.Event()
        unsubscribe = self.cluster.store.subscribe(lambda _: changed.set())
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                while not (found := holds()):
                    await changed.wait()
                    changed.clear()
                return found
        except TimeoutError:
            found = self.stored(names.GROUP, names.PLURAL)
            seen = {obj["metadata"]["name"]: obj.get("status") for obj in found}
            raise AssertionError(f"never came: {seen}") from None
        finally:
            unsubscribe()

    async def until_told(self, holds: Callable[[], Any]) -> None:
        """Waits for something that shows outside the cluster."""
        async with asyncio.timeout(TIMEOUT_SECONDS):
            while not holds():
                await asyncio.sleep(0.02)

    async def until_phase(self, phase: str, name: str = "hina") -> Manifest:
        def reached() -> Manifest | None:
            body = self.training(name)
            return body if body and body.get("status", {}).get("phase") == phase else None

        return await self.until(reached)

    async def until_condition(self, kind: str, reason: str, name: str = "hina") -> Manifest:
        return await self.until(
            lambda: (found := condition(self.training(name), kind)) and found["reason"] == reason and found
        )


def condition(body: Manifest | None, kind: str) -> Manifest | None:
    """One condition of a training."""
    found = (body or {}).get("status", {}).get("conditions", ())
    return next((entry for entry in found if entry["type"] == kind), None)


@cache
def _definition() -> Manifest:
    found: Manifest = yaml.safe_load((ROOT / "crds" / "loratrainings.yaml").read_text())
    return found


def _namespace(name: str) -> Manifest:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def _in_namespace(document: Manifest, namespace: str) -> Manifest:
    return {**document, "metadata": {**document["metadata"], "namespace": namespace}}


@asynccontextmanager
async def open_scenario(folder: Path) -> AsyncIterator[Scenario]:
    """A cluster with our definition and the namespace `ml`; operators still running at the end are stopped."""
    setting = ClusterSetting(images=IMAGES, node=NodeSpec(gpus=8), job_backoff_seconds=0.05, retry_seconds=0.05)
    async with DevCluster(folder / "cluster", setting) as cluster, aiohttp.ClientSession() as session:
        scenario = Scenario(cluster, folder, session)
        scenario.profiles_file.write_text(yaml.safe_dump(PROFILES))
        await scenario.define()
        for name in ("ml", SYSTEM):
            await scenario.send("POST", "/api/v1/namespaces", _namespace(name))
        try:
            yield scenario
        finally:
            await scenario.stop_operators()
