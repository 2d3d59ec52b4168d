"""A node of pretence: pods bound to it are said to run for some time and to succeed, and nothing is started.

    python -m benchmarks.fake_node --kubeconfig FILE [--run-seconds 1] [--addresses 500]

What a kubelet costs a control plane without what it costs a machine; a process of its own, so that its share can be
told apart. Its pods answer `GET /progress` as the trainer does; `GET /polls` is how often they were asked so far. The
first line that it prints is the address that they begin at. Started and ended by `scale_site`.
"""

import argparse
import asyncio
import json
import signal
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from itertools import cycle
from typing import Any

from benchmarks.load_client import ApiRefusal, Client, Manifest, open_client
from lora_api import names
from lora_devcluster.addresses import PodAddresses

NODE = "lora-benchmark"
LABEL = "lora-operator.io/benchmark-node"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
BEAT_SECONDS = 10.0
"""A node that does not renew its Lease for 40 seconds is taken for dead."""
TOTAL_STEPS = 1_000_000
EPOCH_STEPS = 100


def now() -> str:
    """The time as the Kubernetes API writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Answers:
    """What trainers in the midst of their work say of themselves; each time a little more is done."""

    def __init__(self) -> None:
        self.polls = 0

    async def serve(self, addresses: list[str]) -> asyncio.Server:
        """Answers at all of these addresses."""
        return await asyncio.start_server(self._talk, addresses, names.TRAINER_PORT, backlog=256)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                content = self._answer(head.split(b" ", 2)[1])
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n")
                writer.write(b"Content-Length: %d\r\n\r\n%s" % (len(content), content))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def _answer(self, path: bytes) -> bytes:
        if path == b"/polls":
            return str(self.polls).encode()
        self.polls += 1
        return json.dumps(make_report(self.polls)).encode()


def make_report(step: int) -> Manifest:
    """A report of the usual size: twenty epochs are known."""
    epoch, moment = step // EPOCH_STEPS, now()
    plan = {"images": 20, "batchesPerEpoch": EPOCH_STEPS, "stepsPerEpoch": EPOCH_STEPS, "totalSteps": TOTAL_STEPS}
    progress = {
        "step": step,
        "totalSteps": TOTAL_STEPS,
        "epoch": epoch,
        "totalEpochs": TOTAL_STEPS // EPOCH_STEPS,
        "percent": 100 * step // TOTAL_STEPS,
        "loss": 0.1 + 0.01 * (step % 7),
        "learningRate": 1e-4,
        "stepsPerSecond": 3.5,
        "remainingSeconds": (TOTAL_STEPS - step) * 2 // 7,
        "updatedTime": moment,
    }
    known = [_checkpoint(number) for number in range(20)]
    return {
        "reason": "Training",
        "message": "the weights are being changed",
        "plan": {**plan, "epochs": TOTAL_STEPS // EPOCH_STEPS},
        "progress": progress,
        "checkpoints": known,
        "starts": 1,
        "activeTime": moment,
    }


def _checkpoint(epoch: int) -> Manifest:
    uri = f"s3://runs/benchmark/adapters/benchmark-{epoch:06}.safetensors"
    measured = {"loss": 0.12, "validationLoss": 0.125}
    return {"epoch": epoch, "step": epoch, "uri": uri, "sha256": "0" * 64, "sizeBytes": 10_000_000, **measured}


class FakeNode:
    """The node as the API server sees it."""

    def __init__(self, client: Client, addresses: Iterator[str], run_seconds: float) -> None:
        self._client = client
        self._addresses = addresses
        self._run_seconds = run_seconds
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def register(self) -> None:
        """Makes the Node, ready for any number of pods."""
        meta = {"name": NODE, "labels": {LABEL: "true", "kubernetes.io/hostname": NODE}}
        taint = {"key": LABEL, "value": "true", "effect": "NoSchedule"}
        node = {"apiVersion": "v1", "kind": "Node", "metadata": meta, "spec": {"taints": [taint]}}
        await self._client.create("/api/v1/nodes", node)
        amounts = {"cpu": "100k", "memory": "1Pi", "pods": "100k", "ephemeral-storage": "1Pi", "nvidia.com/gpu": "100k"}
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "a node of pretence"}
        ready |= {"lastHeartbeatTime": now(), "lastTransitionTime": now()}
        status = {"capacity": amounts, "allocatable": amounts, "conditions": [ready]}
        await self._client.send("PATCH", f"/api/v1/nodes/{NODE}/status", {"status": status})
        spec = {"holderIdentity": NODE, "leaseDurationSeconds": 40}
        lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": NODE}, "spec": spec}
        await self._client.create(LEASES, lease)

    async def beat(self) -> None:
        """Says for ever that the node lives."""
        while True:
            renewed = datetime.now(UTC).isoformat().replace("+00:00", "Z")
            await self._client.send("PATCH", f"{LEASES}/{NODE}", {"spec": {"renewTime": renewed}})
            await asyncio.sleep(BEAT_SECONDS)

    async def follow(self) -> None:
        """Takes pods on for ever, and lets them go when they are told to."""
        async for change, pod in self._client.watch("/api/v1/pods", fieldSelector=f"spec.nodeName={NODE}"):
            uid, phase = pod["metadata"]["uid"], pod.get("status", {}).get("phase")
            if change == "DELETED" or phase in {"Succeeded", "Failed"}:
                self._tasks.pop(uid, None)
            elif pod["metadata"].get("deletionTimestamp"):
                self._replace(uid, self._remove(pod), name="remove")
            elif uid not in self._tasks:
                self._replace(uid, self._run(pod), name="run")

    def _replace(self, uid: str, work: Any, *, name: str) -> None:
        old = self._tasks.get(uid)
        if old is not None and old.get_name() == name:
            work.close()
            return
        if old is not None:
            old.cancel()
        self._tasks[uid] = asyncio.get_running_loop().create_task(work, name=name)

    async def _run(self, pod: Manifest) -> None:
        started, address = now(), next(self._addresses)
        await self._tell(pod, "Running", {"running": {"startedAt": started}}, podIP=address, startTime=started)
        await asyncio.sleep(self._run_seconds)
        ended = {"exitCode": 0, "reason": "Completed", "startedAt": started, "finishedAt": now()}
        await self._tell(pod, "Succeeded", {"terminated": ended})

    async def _tell(self, pod: Manifest, phase: str, state: Manifest, **status: Any) -> None:
        is_ready = "running" in state
        conditions = [
            {"type": kind, "status": "True" if is_ready else "False", "lastTransitionTime": now()}
            for kind in ("Ready", "ContainersReady")
        ]
        kept = [c for c in pod.get("status", {}).get("conditions") or () if c["type"] == "PodScheduled"]
        containers = [_container_status(container, state) for container in pod["spec"]["containers"]]
        told = {"phase": phase, "conditions": kept + conditions, "containerStatuses": containers, **status}
        await _unless_gone(lambda: self._client.send("PATCH", f"{_path(pod)}/status", {"status": told}))

    async def _remove(self, pod: Manifest) -> None:
        await _unless_gone(lambda: self._client.send("DELETE", _path(pod), {"gracePeriodSeconds": 0}))


async def _unless_gone(ask: Callable[[], Awaitable[object]]) -> None:
    try:
        await ask()
    except ApiRefusal as error:
        if error.code != 404:
            raise


def _path(pod: Manifest) -> str:
    return f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}"


def _container_status(container: Manifest, state: Manifest) -> Manifest:
    known = {"name": container["name"], "image": container["image"], "imageID": "", "restartCount": 0}
    return {**known, "ready": "running" in state, "started": "running" in state, "state": state}


async def serve(kubeconfig: str, run_seconds: float, count: int) -> None:
    """Is the node until it is told to stop."""
    given = PodAddresses()
    addresses = [given.next() for _ in range(count)]
    server = await Answers().serve(addresses)
    loop = asyncio.get_running_loop()
    try:
        async with open_client(kubeconfig, NODE) as client, asyncio.TaskGroup() as group:
            node = FakeNode(client, cycle(addresses), run_seconds)
            await node.register()
            tasks = [group.create_task(work) for work in (node.beat(), node.follow())]
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, lambda: [task.cancel() for task in tasks])
            print(addresses[0], flush=True)
    finally:
        server.close()
        given.close()


def main() -> None:
    """Serves until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kubeconfig", required=True)
    parser.add_argument("--run-seconds", type=float, default=1.0, help="how long every pod is said to run")
    parser.add_argument("--addresses", type=int, default=500, help="addresses that the pods share")
    arguments = parser.parse_args()
    asyncio.run(serve(arguments.kubeconfig, arguments.run_seconds, arguments.addresses))


if __name__ == "__main__":
    main()
