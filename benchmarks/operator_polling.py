"""What trainings that run cost the operator: it asks every pod for its progress, and tells of it now and then.

    python -m benchmarks.operator_polling [--running 500] [--seconds 60] [--kubeconfig FILE] [--json FILE]

Pods of pretence (`fake_node`) answer as trainers do, with another step each time. Measured is a stretch of time after
all of them run and their statuses have been written at least once.
"""

import argparse
import asyncio
import json
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.load_client import Manifest
from benchmarks.operator_bed import make_training
from benchmarks.operator_scale import TRAININGS, create_all, describe_machine, watching
from benchmarks.scale_site import NAMESPACE, Place, Site, open_site

FOREVER_SECONDS = 1e6
WARM_UP_SECONDS = 60.0
"""Twice as long as a status that tells only of progress waits for its turn."""
LIMIT_SECONDS = 1800.0


@dataclass(frozen=True)
class Polling:
    """What so many running trainings cost in so many seconds."""

    running: int
    seconds: float
    polls: int
    looks: int
    calls: Counter[str]
    cpu_seconds: dict[str, float]
    mib: float


async def measure(running: int, seconds: float, warm_up_seconds: float, place: Place, folder: Path) -> Polling:
    """Starts the trainings, lets them settle, and counts for a while."""
    async with open_site(place, folder) as site:
        await site.start_operator()
        await _start_trainings(site, running)
        await asyncio.sleep(warm_up_seconds)
        before, polls, cpu, started = await site.scrape(), await site.polls(), site.cpu_seconds(), time.monotonic()
        await asyncio.sleep(seconds)
        after, used = await site.scrape(), site.cpu_seconds()
        result = Polling(
            running=running,
            seconds=time.monotonic() - started,
            polls=await site.polls() - polls,
            looks=after.looks - before.looks,
            calls=after.calls - before.calls,
            cpu_seconds={role: used[role] - cpu[role] for role in cpu},
            mib=site.memory_mib("VmRSS"),
        )
        await site.stop_operator()
    return result


async def _start_trainings(site: Site, running: int) -> None:
    found: set[str] = set()
    changed = asyncio.Event()

    def see(_: str, training: Manifest) -> None:
        if training.get("status", {}).get("phase") == "Running":
            found.add(training["metadata"]["name"])
            changed.set()

    manifests = [make_training(f"running-{number:05}", namespace=NAMESPACE) for number in range(running)]
    async with watching(site.client, {TRAININGS: see}), asyncio.timeout(LIMIT_SECONDS):
        await create_all(site.client, TRAININGS, manifests)
        while len(found) < running:
            changed.clear()
            await changed.wait()


def show(result: Polling) -> str:
    """The result as a person reads it."""
    seconds = result.seconds
    shares = ", ".join(f"{role} {100 * used / seconds:.1f} %" for role, used in result.cpu_seconds.items())
    return "\n".join(
        [
            f"{result.running} running trainings for {seconds:.0f} s   {describe_machine()}",
            f"  questions to pods   {result.polls / seconds:8.1f} a second",
            f"  looks at trainings  {result.looks / seconds:8.1f} a second",
            *(f"  {call:20}{count / seconds:8.2f} a second" for call, count in result.calls.most_common()),
            f"  processor time: {shares}; operator {1000 * result.cpu_seconds['operator'] / max(result.polls, 1):.2f} "
            f"ms a question; {result.mib:.0f} MiB",
        ]
    )


def as_document(result: Polling) -> Manifest:
    """The result for machines."""
    return {**describe_machine(), **asdict(result), "calls": dict(result.calls)}


def main() -> None:
    """Measures once and prints the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kubeconfig", help="another cluster than the laptop-sized one")
    parser.add_argument("--running", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--json", type=Path, help="file for the result as JSON")
    arguments = parser.parse_args()
    place = Place(arguments.kubeconfig, run_seconds=FOREVER_SECONDS)
    with tempfile.TemporaryDirectory() as folder:
        result = asyncio.run(measure(arguments.running, arguments.seconds, WARM_UP_SECONDS, place, Path(folder)))
    print(show(result))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(as_document(result), indent=2) + "\n")


if __name__ == "__main__":
    main()
