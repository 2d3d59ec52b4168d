"""What a restart of the operator costs where thousands of trainings lie about that have finished long ago.

    python -m benchmarks.operator_restart [--finished 2000] [--running 100]

The finished ones were brought to their end by an operator as well; each has its Job and pod still. After the restart
the table shows what was written, asked and used until nothing happened any more.
"""

import argparse
import asyncio
import copy
import tempfile
import time
import uuid
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from benchmarks.operator_bed import (
    NAMESPACE,
    TRAININGS,
    WRITES,
    Bed,
    Manifest,
    cpu_seconds,
    make_training,
    memory_mib,
    open_bed,
)
from lora_api import names
from lora_devcluster.cluster import ClusterSetting
from lora_devcluster.requests import RequestInfo
from lora_devcluster.scheduler import NodeSpec
from lora_devcluster.store import Key

MODEL = "finished"
"""The one training that runs to its end; the others are copies of it and of its children."""
PROFILES = {"default": {"image": "noop:1"}, "lasting": {"image": "sleep:1"}}
IMAGES = {"noop:*": "noop", "sleep:*": ("sh", "-c", "sleep 3600")}
QUIET_SECONDS = 3.0
"""Nothing asked for so long: the operator is at rest."""
LIMIT_SECONDS = 300.0


@dataclass(frozen=True)
class Restart:
    """What one restart cost."""

    finished: int
    running: int
    calls: Counter[str]
    writes_of_finished: int
    seconds: float
    cpu_seconds: float
    idle_mib: float
    """Memory of an operator without any training."""
    mib: float
    peak_mib: float


async def measure(finished: int, running: int, folder: Path) -> Restart:
    """Fills the cluster, ends the operator, starts another one and waits until it is at rest."""
    setting = ClusterSetting(images=IMAGES, node=NodeSpec(pods=1000), history=20 * (finished + running) + 2000)
    async with open_bed(folder, setting, PROFILES) as bed:
        operator = await _start(bed)
        idle = memory_mib(operator.pid, "VmRSS")
        await _fill(bed, finished, running)
        await _rest(bed)
        operator.terminate()
        await operator.wait()
        before, started = len(bed.cluster.requests), time.monotonic()
        operator = await _start(bed)
        seconds = await _rest(bed) - started
        calls = bed.calls(before)
        result = Restart(
            finished=finished,
            running=running,
            calls=Counter(f"{call.verb} {call.target}" for call in calls),
            writes_of_finished=sum(_is_write_of_finished(call) for call in calls),
            seconds=seconds,
            cpu_seconds=cpu_seconds(operator.pid),
            idle_mib=idle,
            mib=memory_mib(operator.pid, "VmRSS"),
            peak_mib=memory_mib(operator.pid, "VmHWM"),
        )
        operator.terminate()
        await operator.wait()
    return result


async def _start(bed: Bed) -> asyncio.subprocess.Process:
    operator = await bed.start_operator(LORA_STATUS_INTERVAL_SECONDS="1")
    before = len(bed.cluster.requests)
    async with asyncio.timeout(LIMIT_SECONDS):
        while not any(call.verb == "list" and call.resource == "pods" for call in bed.calls(before)):
            await asyncio.sleep(0.05)
    return operator


async def _rest(bed: Bed) -> float:
    """Waits until the operator asks for nothing more; when it last did."""
    last, seen = time.monotonic(), len(bed.cluster.requests)
    while time.monotonic() < last + QUIET_SECONDS:
        await asyncio.sleep(0.05)
        if len(bed.cluster.requests) != seen:
            last, seen = time.monotonic(), len(bed.cluster.requests)
    return last


async def _fill(bed: Bed, finished: int, running: int) -> None:
    await bed.send("POST", TRAININGS, make_training(MODEL))
    await bed.until(lambda: _phases(bed)["Succeeded"] == 1)
    originals = [
        bed.stored(names.GROUP, names.PLURAL)[0],
        bed.stored("batch", "jobs")[0],
        bed.stored("", "pods")[0],
    ]
    for number in range(1, finished):
        _copy_family(bed, originals, f"{MODEL}-{number:05}")
    for number in range(running):
        await bed.send("POST", TRAININGS, make_training(f"running-{number:05}", profile="lasting"))
    await bed.until(lambda: _running_pods(bed) == running, seconds=LIMIT_SECONDS)


def _copy_family(bed: Bed, originals: list[Manifest], name: str) -> None:
    """A training and its children under another name, as if it had run as well."""
    uids = {found["metadata"]["uid"]: str(uuid.uuid4()) for found in originals}
    for found in originals:
        twin = copy.deepcopy(found)
        meta = twin["metadata"]
        meta["name"] = meta["name"].replace(MODEL, name, 1)
        meta["uid"] = uids[meta["uid"]]
        for label in ("labels", "annotations"):
            meta[label] = {key: value.replace(MODEL, name) for key, value in (meta.get(label) or {}).items()}
        for owner in meta.get("ownerReferences", ()):
            owner |= {"name": owner["name"].replace(MODEL, name, 1), "uid": uids[owner["uid"]]}
        group, plural = _place(twin)
        bed.cluster.store.put(Key(group, plural, NAMESPACE, meta["name"]), twin)


def _place(found: Manifest) -> tuple[str, str]:
    group = found["apiVersion"].rpartition("/")[0]
    return group, names.PLURAL if found["kind"] == names.KIND else f"{found['kind'].lower()}s"


def _phases(bed: Bed) -> Counter[str]:
    return Counter(body.get("status", {}).get("phase") for body in bed.stored(names.GROUP, names.PLURAL))


def _running_pods(bed: Bed) -> int:
    return sum(pod.get("status", {}).get("phase") == "Running" for pod in bed.stored("", "pods"))


def _is_write_of_finished(call: RequestInfo) -> bool:
    return call.verb in WRITES and call.name.startswith(MODEL)


def show(result: Restart) -> str:
    """The result as a person reads it."""
    return "\n".join(
        [
            f"restart over {result.finished} finished and {result.running} running trainings",
            f"  writes to finished ones   {result.writes_of_finished}",
            *(f"  {call:26}{count}" for call, count in result.calls.most_common()),
            f"  steady after              {result.seconds:.1f} s, {result.cpu_seconds:.1f} CPU s",
            f"  memory                    {result.mib:.0f} MiB, {result.peak_mib:.0f} at its peak; "
            f"{result.idle_mib:.0f} without trainings",
        ]
    )


def main() -> None:
    """Measures once and prints the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--finished", type=int, default=2000)
    parser.add_argument("--running", type=int, default=100)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(show(asyncio.run(measure(arguments.finished, arguments.running, Path(folder)))))


if __name__ == "__main__":
    main()
