"""What a load test of the operator runs on: a cluster, a node of pretence and the operator, each a process of its own.

Used by `operator_scale` and `operator_polling`. Processor time can be told apart by process. The cluster is the
laptop-sized one, or any other that a kubeconfig names; there the definition of LoraTraining has to be installed, and
no other operator may serve the namespace of the load.
"""

import asyncio
import os
import socket
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import yaml
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from benchmarks.fake_node import LABEL
from benchmarks.load_client import ApiRefusal, Client, Manifest, open_client
from benchmarks.operator_bed import DEFINITIONS, ROOT, cpu_seconds, memory_mib
from lora_api import names

NAMESPACE = "lora-benchmark"
FLOOR_NAMESPACE = "lora-benchmark-floor"
STOP_SECONDS = 20.0
QUIET_SECONDS = 2.0
"""Nothing asked for so long: the operator is at rest."""
POLL_SECONDS = 0.5
REQUESTS = "lora_operator_api_requests_total"
LOOKS = "lora_operator_reconciles_total"


@dataclass(frozen=True)
class Place:
    """Where the load goes."""

    kubeconfig: str | None = None
    """None: the laptop-sized cluster, in a process of its own."""
    image: str | None = None
    """None: pods are only said to run. Else this image's entry point, given `run FILE`, has to end with 0 by itself."""
    run_seconds: float = 1.0
    """How long pods are said to run."""


@dataclass(frozen=True)
class Scrape:
    """What the operator's /metrics said at one moment."""

    calls: Counter[str]
    """Calls of the operator so far, as `verb resource`."""
    throttled: int
    """Calls answered with 429."""
    looks: int
    """Looks at trainings so far."""
    seconds: float
    size_bytes: int


@dataclass
class Site:
    """One cluster under load."""

    client: Client
    kubeconfig: str
    folder: Path
    processes: dict[str, asyncio.subprocess.Process] = field(default_factory=dict)
    """By role: `cluster`, `node`, `operator`, as far as they are of our making."""
    metrics_url: str = ""
    polls_url: str = ""

    def cpu_seconds(self) -> dict[str, float]:
        """Processor time used so far, by role; `client` is this process."""
        found = {role: cpu_seconds(process.pid) for role, process in self.processes.items()}
        return {**found, "client": cpu_seconds(os.getpid())}

    def memory_mib(self, field_name: str) -> float:
        """Memory of the operator: VmRSS now, VmHWM at its peak."""
        return memory_mib(self.processes["operator"].pid, field_name)

    async def start_operator(self, **changes: str) -> float:
        """The operator, once it is ready; seconds that took."""
        port = _free_port()
        self.metrics_url = f"http://127.0.0.1:{port}"
        environment = {
            "KUBECONFIG": self.kubeconfig,
            "LORA_PROFILES_FILE": str(self.folder / "profiles.yaml"),
            "LORA_NAMESPACES": NAMESPACE,
            "LORA_HTTP_ADDRESS": "127.0.0.1",
            "LORA_HTTP_PORT": str(port),
            "LORA_LOG_LEVEL": "ERROR",
            **changes,
        }
        started = time.monotonic()
        self.processes["operator"] = await _start(("-m", "lora_operator"), environment)
        while not await self._is_ready():
            if self.processes["operator"].returncode is not None:
                raise RuntimeError(f"the operator ended with {self.processes['operator'].returncode}")
            await asyncio.sleep(0.05)
        return time.monotonic() - started

    async def _is_ready(self) -> bool:
        with suppress(aiohttp.ClientConnectionError):
            async with self.client.session.get(f"{self.metrics_url}/readyz") as response:
                return response.status == 200
        return False

    async def stop_operator(self) -> None:
        """Ends the operator."""
        await _stop(self.processes.pop("operator"))

    async def scrape(self) -> Scrape:
        """Asks the operator for its metrics."""
        started = time.monotonic()
        async with self.client.session.get(f"{self.metrics_url}/metrics") as response:
            text = await response.text()
        seconds = time.monotonic() - started
        calls: Counter[str] = Counter()
        throttled = 0
        for sample in _samples(text, REQUESTS):
            calls[f"{sample.labels['verb']} {sample.labels['resource']}"] += int(sample.value)
            throttled += int(sample.value) if sample.labels["code"] == "429" else 0
        looks = sum(int(sample.value) for sample in _samples(text, LOOKS))
        return Scrape(calls, throttled, looks, seconds, len(text))

    async def rest(self) -> Scrape:
        """Waits until the operator asks for nothing more; its metrics then."""
        last, seen = time.monotonic(), await self.scrape()
        while time.monotonic() < last + QUIET_SECONDS:
            await asyncio.sleep(POLL_SECONDS)
            scrape = await self.scrape()
            if scrape.calls != seen.calls:
                last = time.monotonic()
            seen = scrape
        return seen

    async def polls(self) -> int:
        """How often pods were asked for their progress so far."""
        async with self.client.session.get(self.polls_url) as response:
            return int(await response.text())


@asynccontextmanager
async def open_site(place: Place, folder: Path) -> AsyncIterator[Site]:
    """The cluster with definition, namespaces and node; no operator yet. All that was begun here ends with it."""
    processes: dict[str, asyncio.subprocess.Process] = {}
    kubeconfig = place.kubeconfig
    try:
        if kubeconfig is None:
            processes["cluster"], kubeconfig = await _start_telling("benchmarks.scale_cluster", str(folder / "cluster"))
        async with open_client(kubeconfig, "benchmark") as client:
            site = Site(client, kubeconfig, folder, processes)
            await _prepare(site, place)
            try:
                yield site
            finally:
                if place.kubeconfig is not None:
                    await _clean(client)
    finally:
        for process in reversed(processes.values()):
            await _stop(process)


async def _prepare(site: Site, place: Place) -> None:
    client = site.client
    if place.kubeconfig is None:
        definition = yaml.safe_load((ROOT / "crds" / "loratrainings.yaml").read_text())
        await client.create(DEFINITIONS, definition)
    for name in (NAMESPACE, FLOOR_NAMESPACE):
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        await client.create("/api/v1/namespaces", namespace)
    (site.folder / "profiles.yaml").write_text(yaml.safe_dump({"default": _profile(place)}))
    if place.image is None:
        options = ("--kubeconfig", site.kubeconfig, "--run-seconds", str(place.run_seconds))
        site.processes["node"], address = await _start_telling("benchmarks.fake_node", *options)
        site.polls_url = f"http://{address}:{names.TRAINER_PORT}/polls"


def _profile(place: Place) -> Manifest:
    if place.image is not None:
        return {"image": place.image}
    toleration = {"key": LABEL, "operator": "Exists", "effect": "NoSchedule"}
    where = {"nodeSelector": {LABEL: "true"}, "tolerations": [toleration]}
    return {"image": "none", "preflightPod": where, **where}


async def _clean(client: Client) -> None:
    for name in (NAMESPACE, FLOOR_NAMESPACE):
        with suppress(ApiRefusal):
            await client.send("DELETE", f"/api/v1/namespaces/{name}")


def _samples(text: str, name: str) -> Iterator[Sample]:
    lines = [line for line in text.splitlines() if line.startswith(name)]
    for family in text_string_to_metric_families("\n".join(lines)):
        yield from family.samples


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def _start(
    arguments: tuple[str, ...], environment: Mapping[str, str], *, stdout: int | None = None
) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, *arguments, env={**os.environ, **environment}, stdout=stdout, cwd=ROOT
    )


async def _start_telling(module: str, *arguments: str) -> tuple[asyncio.subprocess.Process, str]:
    """A process, and the first line that it prints."""
    process = await _start(("-m", module, *arguments), {}, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    line = (await process.stdout.readline()).decode().strip()
    if not line:
        raise RuntimeError(f"{module} ended with {await process.wait()} before it served")
    return process, line


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
