"""Many LoraTrainings at once on the laptop-sized cluster: what one costs the operator in calls and processor time.

    python benchmarks/operator_scale.py [--trainings 500]

The pods do nothing and end at once, so everything measured is control plane. The operator is the real process;
the cluster runs in this one.
"""

import argparse
import asyncio
import os
import platform
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import yaml

from lora_api import names
from lora_devcluster import DevCluster
from lora_devcluster.cluster import ClusterSetting
from lora_devcluster.requests import RequestInfo

ROOT = Path(__file__).resolve().parents[1]
TRAININGS = f"/apis/{names.API_VERSION}/namespaces/ml/{names.PLURAL}"
SIDE_BY_SIDE = 16
LIMIT_SECONDS = 900
REFERENCE = (
    ("reference: kopf handlers", 12.1, 14.1, 41),
    ("reference: kopf daemons", 5.8, 8.3, 17),
    ("reference: informer and queue", 3.0, 5.2, 13),
)
"""A prototype's shapes at 500 trainings, each writing only a phase: calls each, processor seconds, wall seconds."""


@dataclass(frozen=True)
class Result:
    """What one run cost."""

    trainings: int
    calls: Counter[str]
    watches_and_lists: int
    start_cpu_seconds: float
    cpu_seconds: float
    wall_seconds: float
    peak_mib: float


async def measure(trainings: int, folder: Path) -> Result:
    """Creates the trainings while the operator runs and waits until all have succeeded."""
    setting = ClusterSetting(images={"noop": "noop"}, job_backoff_seconds=0.1)
    async with DevCluster(folder / "cluster", setting) as cluster, aiohttp.ClientSession() as session:
        await _prepare(cluster, session)
        operator = await _start_operator(cluster, folder)
        before, start_cpu = len(cluster.requests), _cpu_seconds(operator.pid)
        started = time.monotonic()
        await _create_all(cluster, session, trainings)
        await _until_all_succeeded(cluster, trainings)
        wall = time.monotonic() - started
        requests = [request for request in cluster.requests[before:] if _is_operator(request)]
        cpu, peak = _cpu_seconds(operator.pid) - start_cpu, _peak_mib(operator.pid)
        operator.terminate()
        await operator.wait()
    return Result(
        trainings,
        Counter(f"{request.verb} {request.target}" for request in requests if not _is_watch(request)),
        sum(_is_watch(request) for request in requests),
        start_cpu,
        cpu,
        wall,
        peak,
    )


async def _prepare(cluster: DevCluster, session: aiohttp.ClientSession) -> None:
    definition = yaml.safe_load((ROOT / "crds" / "loratrainings.yaml").read_text())
    await _post(cluster, session, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition)
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ml"}}
    await _post(cluster, session, "/api/v1/namespaces", namespace)


async def _start_operator(cluster: DevCluster, folder: Path) -> asyncio.subprocess.Process:
    profiles = folder / "profiles.yaml"
    profiles.write_text("default: {image: noop}\n")
    settings = {
        "KUBECONFIG": str(cluster.kubeconfig),
        "LORA_PROFILES_FILE": str(profiles),
        "LORA_HTTP_ADDRESS": "127.0.0.1",
        "LORA_HTTP_PORT": "0",
        "LORA_LOG_LEVEL": "ERROR",
    }
    operator = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "lora_operator", env={**os.environ, **settings}
    )
    while not any(request.verb == "watch" and request.resource == "pods" for request in cluster.requests):
        # A watch is recorded when it ends; what shows first is the list before it.
        if sum(_is_operator(request) and request.resource == "pods" for request in cluster.requests) >= 2:
            break
        await asyncio.sleep(0.05)
    return operator


async def _create_all(cluster: DevCluster, session: aiohttp.ClientSession, trainings: int) -> None:
    turn = asyncio.Semaphore(SIDE_BY_SIDE)

    async def create(number: int) -> None:
        async with turn:
            await _post(cluster, session, TRAININGS, _training(f"bench-{number:05}"))

    await asyncio.gather(*(create(number) for number in range(trainings)))


def _training(name: str) -> dict[str, object]:
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"name": name},
        "spec": {
            "baseModel": {"uri": "s3://models/sd15"},
            "dataset": {"uri": "s3://data/pictures"},
            "output": {"uri": f"s3://runs/{name}"},
            "parallelism": {"gpusPerNode": 0},
        },
    }


async def _post(cluster: DevCluster, session: aiohttp.ClientSession, path: str, body: object) -> None:
    async with session.post(cluster.url + path, json=body) as response:
        if response.status >= 300:
            raise RuntimeError(await response.text())


async def _until_all_succeeded(cluster: DevCluster, trainings: int) -> None:
    async with asyncio.timeout(LIMIT_SECONDS):
        while True:
            found = cluster.store.objects(names.GROUP, names.PLURAL, "ml")
            done = sum(body.get("status", {}).get("phase") == "Succeeded" for body in found)
            if done == trainings:
                return
            await asyncio.sleep(0.1)


def _is_operator(request: RequestInfo) -> bool:
    return request.user_agent.startswith(("lora-operator", "kopf"))


def _is_watch(request: RequestInfo) -> bool:
    return request.verb in {"watch", "list"}


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _peak_mib(pid: int) -> float:
    usage = Path(f"/proc/{pid}/status").read_text().splitlines()
    (line,) = [line for line in usage if line.startswith("VmHWM:")]
    return int(line.split()[1]) / 1024


def show(result: Result) -> str:
    """The result as a person reads it."""
    total = result.calls.total()
    lines = [
        f"machine: {platform.machine()}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}, "
        f"Python {platform.python_version()}",
        f"{result.trainings} trainings at once; the operator's start took {result.start_cpu_seconds:.1f} CPU s, "
        f"its peak memory was {result.peak_mib:.0f} MiB",
        "",
        f"{'call':32} {'total':>7} {'each':>6}",
        *(f"{call:32} {count:7} {count / result.trainings:6.2f}" for call, count in result.calls.most_common()),
        f"{'lists and watches':32} {result.watches_and_lists:7}",
        "",
        f"{'':32} {'calls each':>10} {'CPU s':>7} {'wall s':>7}",
        f"{'this run':32} {total / result.trainings:10.1f} {result.cpu_seconds:7.1f} {result.wall_seconds:7.1f}",
        *(f"{name:32} {calls:10.1f} {cpu:7.1f} {wall:7.1f}" for name, calls, cpu, wall in REFERENCE),
        "(the reference: 500 objects on a machine like this one, one Job and one phase each, no events)",
    ]
    return "\n".join(lines)


def main() -> None:
    """Measures once and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--trainings", type=int, default=500)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(show(asyncio.run(measure(arguments.trainings, Path(folder)))))


if __name__ == "__main__":
    main()
