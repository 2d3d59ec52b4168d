"""Many LoraTrainings at once on the laptop-sized cluster: what one costs the operator in calls and processor time.

    python -m benchmarks.operator_scale [--trainings 500] [--preflight]

The pods do nothing and end at once, so everything measured is control plane. With --preflight every training asks for a
GPU and has its data checked first. The operator is the real process; the cluster runs in this one.
"""

import argparse
import asyncio
import os
import platform
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from benchmarks.operator_bed import TRAININGS, WRITES, Bed, cpu_seconds, is_call, make_training, memory_mib, open_bed
from lora_api import names
from lora_devcluster.cluster import ClusterSetting
from lora_devcluster.scheduler import NodeSpec

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
    preflight: bool
    calls: Counter[str]
    writes: int
    """Calls that changed something: creates, patches, deletes, events."""
    lists: int
    start_cpu_seconds: float
    cpu_seconds: float
    wall_seconds: float
    peak_mib: float


async def measure(trainings: int, folder: Path, *, preflight: bool = False) -> Result:
    """Creates the trainings while the operator runs and waits until all have succeeded."""
    setting = ClusterSetting(
        images={"noop": "noop"}, node=NodeSpec(gpus=trainings, pods=3 * trainings), job_backoff_seconds=0.1
    )
    async with open_bed(folder, setting, {"default": {"image": "noop"}}) as bed:
        operator = await _start_operator(bed)
        before, start_cpu = len(bed.cluster.requests), cpu_seconds(operator.pid)
        started = time.monotonic()
        await _create_all(bed, trainings, gpus=int(preflight))
        await bed.until(lambda: _succeeded(bed) == trainings, seconds=LIMIT_SECONDS)
        wall = time.monotonic() - started
        calls = bed.calls(before)
        cpu, peak = cpu_seconds(operator.pid) - start_cpu, memory_mib(operator.pid, "VmHWM")
        operator.terminate()
        await operator.wait()
    return Result(
        trainings,
        preflight,
        Counter(f"{call.verb} {call.target}" for call in calls if call.verb != "list"),
        sum(call.verb in WRITES and call.code < 400 for call in calls),
        sum(call.verb == "list" for call in calls),
        start_cpu,
        cpu,
        wall,
        peak,
    )


async def _start_operator(bed: Bed) -> asyncio.subprocess.Process:
    operator = await bed.start_operator()
    while not any(is_call(request) and request.resource == "pods" for request in bed.cluster.requests):
        # It acts once it has listed behind its watches.
        await asyncio.sleep(0.05)
    return operator


async def _create_all(bed: Bed, trainings: int, *, gpus: int) -> None:
    turn = asyncio.Semaphore(SIDE_BY_SIDE)

    async def create(number: int) -> None:
        async with turn:
            await bed.send("POST", TRAININGS, make_training(f"bench-{number:05}", gpus=gpus))

    await asyncio.gather(*(create(number) for number in range(trainings)))


def _succeeded(bed: Bed) -> int:
    found = bed.stored(names.GROUP, names.PLURAL)
    return sum(body.get("status", {}).get("phase") == "Succeeded" for body in found)


def show(result: Result) -> str:
    """The result as a person reads it."""
    total = result.calls.total()
    lines = [
        f"machine: {platform.machine()}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}, "
        f"Python {platform.python_version()}",
        f"{result.trainings} trainings at once, {'with' if result.preflight else 'without'} pre-flight; "
        f"the operator's start took {result.start_cpu_seconds:.1f} CPU s, "
        f"its peak memory was {result.peak_mib:.0f} MiB",
        "",
        f"{'call':32} {'total':>7} {'each':>6}",
        *(f"{call:32} {count:7} {count / result.trainings:6.2f}" for call, count in result.calls.most_common()),
        f"{'lists':32} {result.lists:7}",
        f"{'writes':32} {result.writes:7} {result.writes / result.trainings:6.2f}",
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
    parser.add_argument("--preflight", action="store_true", help="ask for a GPU, so that data are checked first")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = asyncio.run(measure(arguments.trainings, Path(folder), preflight=arguments.preflight))
        print(show(result))


if __name__ == "__main__":
    main()
