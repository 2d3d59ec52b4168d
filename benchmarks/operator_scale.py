"""Many LoraTrainings at once: time to their Jobs, and what one costs, beside as many bare Jobs of a plain client.

    python -m benchmarks.operator_scale [--trainings 100 1000 5000] [--rate 20] [--preflight] [--json FILE]
    python -m benchmarks.operator_scale --kubeconfig FILE [--image IMAGE]

Nothing is trained: pods are only said to run (`fake_node`), so everything measured is control plane. Cluster, node,
operator and this client are processes of their own (`scale_site`). The bare Jobs are copies of a Job that the operator
made, in a namespace of their own: what is left of their time and processor time is the floor under every operator.
"""

import argparse
import asyncio
import json
import math
import os
import platform
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.load_client import Client, Manifest
from benchmarks.operator_bed import make_training
from benchmarks.scale_site import FLOOR_NAMESPACE, NAMESPACE, Place, Scrape, Site, open_site
from lora_api import names

SIDE_BY_SIDE = 16
LIMIT_SECONDS = 3600.0
SHARES = (50, 95, 99)
WRITES = frozenset({"create", "patch", "update", "delete"})
WARM_UP = "warm-up"
JOBS = "/apis/batch/v1/namespaces/{}/jobs"
TRAININGS = f"/apis/{names.API_VERSION}/namespaces/{NAMESPACE}/{names.PLURAL}"
See = Callable[[str, Manifest], None]
"""Sees an event: its type and the object."""
_GIVEN_BY_CONTROLLER = ("batch.kubernetes.io/", "controller-uid", "job-name")
_COPIED = ("parallelism", "completions", "completionMode", "backoffLimit", "podFailurePolicy", "podReplacementPolicy")


@dataclass
class Marks:
    """When what was seen of every object of a load, by its name; seconds of a clock that never goes back."""

    sent: dict[str, float] = field(default_factory=dict)
    job: dict[str, float] = field(default_factory=dict)
    ended: dict[str, float] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def note(self, marks: dict[str, float], name: str) -> None:
        """It is so now, unless it was before."""
        if name not in marks:
            marks[name] = time.monotonic()
            self.changed.set()

    def seconds_to(self, marks: dict[str, float]) -> list[float]:
        """Time from the request to there, of all objects of the load."""
        return [marks[name] - sent for name, sent in self.sent.items()]


@dataclass(frozen=True)
class Load:
    """What one load came to."""

    count: int
    create_seconds: float
    """Until the last object was created."""
    seconds: float
    """Until the last one had ended."""
    to_job: dict[str, float]
    """Seconds from the request to the Job: p50, p95, p99, most."""
    to_end: dict[str, float]
    cpu_seconds: dict[str, float]
    """Processor time by process."""


@dataclass(frozen=True)
class Result:
    """The same number of trainings and of bare Jobs."""

    trainings: Load
    floor: Load
    calls: Counter[str]
    """Calls of the operator, as `verb resource`."""
    throttled: int
    start_seconds: float
    idle_mib: float
    mib: float
    peak_mib: float
    scrape_seconds: float
    scrape_bytes: int

    @property
    def writes(self) -> int:
        """Calls of the operator that change something."""
        return sum(count for call, count in self.calls.items() if call.split()[0] in WRITES)


@dataclass(frozen=True)
class Plan:
    """What to load a site with."""

    count: int
    rate: float = math.inf
    """Objects created a second."""
    gpus: int = 0


async def measure(plan: Plan, place: Place, folder: Path) -> Result:
    """Loads the site with bare Jobs, then with trainings, and waits each time until all have ended."""
    async with open_site(place, folder) as site:
        start_seconds = await site.start_operator()
        await _create_and_wait(site, Plan(1, gpus=plan.gpus), lambda _: WARM_UP)
        job = await _copy_of_job(site.client)
        before, idle = await site.rest(), site.memory_mib("VmRSS")
        floor = await _load_jobs(site, plan, job)
        trainings, after = await _load_trainings(site, plan)
        result = Result(
            trainings=trainings,
            floor=floor,
            calls=after.calls - before.calls,
            throttled=after.throttled - before.throttled,
            start_seconds=start_seconds,
            idle_mib=idle,
            mib=site.memory_mib("VmRSS"),
            peak_mib=site.memory_mib("VmHWM"),
            scrape_seconds=after.seconds,
            scrape_bytes=after.size_bytes,
        )
        await site.stop_operator()
    return result


async def _load_trainings(site: Site, plan: Plan) -> tuple[Load, Scrape]:
    started, cpu = time.monotonic(), site.cpu_seconds()
    marks = await _create_and_wait(site, plan, "bench-{:05}".format)
    # What is still told of the last ones belongs to the cost, the questions for metrics hardly matter.
    scrape = await site.rest()
    return _load(marks, started, cpu, site.cpu_seconds()), scrape


async def _create_and_wait(site: Site, plan: Plan, name: Callable[[int], str]) -> Marks:
    marks = Marks()

    def see_job(_: str, job: Manifest) -> None:
        training = (job["metadata"].get("labels") or {}).get(names.LABEL_TRAINING)
        if training is not None:
            marks.note(marks.job, training)

    def see_training(_: str, training: Manifest) -> None:
        if training.get("status", {}).get("phase") == "Succeeded":
            marks.note(marks.ended, training["metadata"]["name"])

    watches = {JOBS.format(NAMESPACE): see_job, TRAININGS: see_training}
    manifests = [make_training(name(number), gpus=plan.gpus, namespace=NAMESPACE) for number in range(plan.count)]
    async with watching(site.client, watches):
        await create_all(site.client, TRAININGS, manifests, marks=marks, rate=plan.rate)
        await _until_ended(marks)
    return marks


async def _load_jobs(site: Site, plan: Plan, job: Manifest) -> Load:
    marks = Marks()

    def see(_: str, found: Manifest) -> None:
        marks.note(marks.job, found["metadata"]["name"])
        conditions = found.get("status", {}).get("conditions") or ()
        if any(c["type"] == "Complete" and c["status"] == "True" for c in conditions):
            marks.note(marks.ended, found["metadata"]["name"])

    started, cpu, path = time.monotonic(), site.cpu_seconds(), JOBS.format(FLOOR_NAMESPACE)
    manifests = [{**job, "metadata": {"name": f"floor-{number:05}"}} for number in range(plan.count)]
    async with watching(site.client, {path: see}):
        await create_all(site.client, path, manifests, marks=marks, rate=plan.rate)
        await _until_ended(marks)
    return _load(marks, started, cpu, site.cpu_seconds())


async def _copy_of_job(client: Client) -> Manifest:
    """The Job of the first training without what makes it that training's, and without what a controller gave it."""
    found = await client.send("GET", f"{JOBS.format(NAMESPACE)}/{names.job_name(WARM_UP, 1)}")
    spec = {key: value for key, value in found["spec"].items() if key in _COPIED}
    template = found["spec"]["template"]
    kept = {
        key: value
        for key, value in (template["metadata"].get("labels") or {}).items()
        if not key.startswith((*_GIVEN_BY_CONTROLLER, names.GROUP)) and key != names.LABEL_MANAGED_BY
    }
    template = {**template, "metadata": {**template["metadata"], "labels": kept}}
    return {"apiVersion": "batch/v1", "kind": "Job", "spec": {**spec, "template": template}}


@asynccontextmanager
async def watching(client: Client, watches: Mapping[str, See]) -> AsyncIterator[None]:
    """Tells what happens in these collections, by path."""

    async def follow(path: str, see: See) -> None:
        async for change, found in client.watch(path):
            see(change, found)

    tasks = [asyncio.create_task(follow(path, see)) for path, see in watches.items()]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def create_all(
    client: Client, path: str, manifests: Sequence[Manifest], *, marks: Marks | None = None, rate: float = math.inf
) -> None:
    """Creates the objects, a bounded number at once."""
    turn, started = asyncio.Semaphore(SIDE_BY_SIDE), time.monotonic()

    async def create(number: int, manifest: Manifest) -> None:
        await asyncio.sleep(started + number / rate - time.monotonic())
        async with turn:
            if marks is not None:
                marks.sent[manifest["metadata"]["name"]] = time.monotonic()
            await client.send("POST", path, manifest)

    await asyncio.gather(*(create(number, manifest) for number, manifest in enumerate(manifests)))


async def _until_ended(marks: Marks) -> None:
    async with asyncio.timeout(LIMIT_SECONDS):
        while not marks.sent.keys() <= marks.ended.keys():
            marks.changed.clear()
            await marks.changed.wait()


def _load(marks: Marks, started: float, before: dict[str, float], after: dict[str, float]) -> Load:
    return Load(
        count=len(marks.sent),
        create_seconds=max(marks.sent.values()) - started,
        seconds=max(marks.ended[name] for name in marks.sent) - started,
        to_job=percentiles(marks.seconds_to(marks.job)),
        to_end=percentiles(marks.seconds_to(marks.ended)),
        cpu_seconds={role: after[role] - before[role] for role in before},
    )


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """By nearest rank: the least value that so many per cent of the values do not exceed, and the greatest."""
    ordered = sorted(values)
    found = {f"p{share}": ordered[math.ceil(share / 100 * len(ordered)) - 1] for share in SHARES}
    return {**found, "most": ordered[-1]}


def describe_machine() -> dict[str, Any]:
    """What the figures belong to."""
    return {
        "machine": platform.machine(),
        "processors": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
    }


def show(result: Result) -> str:
    """The result as a person reads it."""
    trainings, floor, count = result.trainings, result.floor, result.trainings.count
    roles = [role for role in ("operator", "cluster", "node", "client") if role in trainings.cpu_seconds]
    timed = [("time to Job", trainings.to_job, floor.to_job), ("time to end", trainings.to_end, floor.to_end)]
    return "\n".join(
        [
            f"{count} trainings, and {count} bare Jobs   {describe_machine()}",
            f"{'':28} {'trainings':>10} {'bare Jobs':>10}",
            _row("created in, s", trainings.create_seconds, floor.create_seconds),
            _row("all ended after, s", trainings.seconds, floor.seconds),
            *(_row(f"{what} {share}, s", mine[share], least[share]) for what, mine, least in timed for share in mine),
            *(
                _row(f"CPU of {role}, ms each", *(1000 * load.cpu_seconds[role] / count for load in (trainings, floor)))
                for role in roles
            ),
            _row("requests each", result.calls.total() / count, 1.0),
            f"{'call of the operator':28} {'total':>10} {'each':>10}",
            *(f"  {call:26} {total:10} {total / count:10.2f}" for call, total in result.calls.most_common()),
            f"  {'writes':26} {result.writes:10} {result.writes / count:10.2f}",
            f"  {'answered with 429':26} {result.throttled:10}",
            f"operator: ready after {result.start_seconds:.1f} s; {result.idle_mib:.0f} MiB idle, {result.mib:.0f} MiB "
            f"at the end, {result.peak_mib:.0f} MiB at its peak; one scrape of /metrics {result.scrape_seconds:.2f} s, "
            f"{result.scrape_bytes / 1024:.0f} KiB",
        ]
    )


def _row(what: str, mine: float, least: float) -> str:
    return f"{what:28} {mine:10.3f} {least:10.3f}"


def as_document(result: Result) -> Manifest:
    """The result for machines."""
    return {**describe_machine(), **asdict(result), "calls": dict(result.calls), "writes": result.writes}


def main() -> None:
    """Measures each size and prints its table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kubeconfig", help="another cluster than the laptop-sized one; its definition is up to you")
    parser.add_argument("--image", help="image whose entry point takes `run FILE` and ends; pods then really run")
    parser.add_argument("--json", type=Path, help="file for the results as JSON")
    parser.add_argument("--trainings", type=int, nargs="+", default=[100])
    parser.add_argument("--run-seconds", type=float, default=1.0, help="how long pods are said to run")
    parser.add_argument("--rate", type=float, default=math.inf, help="objects created a second; default: all at once")
    parser.add_argument("--preflight", action="store_true", help="ask for a GPU, so that data are checked first")
    arguments = parser.parse_args()
    place = Place(arguments.kubeconfig, arguments.image, arguments.run_seconds)
    results = []
    for count in arguments.trainings:
        plan = Plan(count, arguments.rate, gpus=int(arguments.preflight))
        with tempfile.TemporaryDirectory() as folder:
            results.append(asyncio.run(measure(plan, place, Path(folder))))
        print(show(results[-1]), flush=True)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps([as_document(result) for result in results], indent=2) + "\n")


if __name__ == "__main__":
    main()
