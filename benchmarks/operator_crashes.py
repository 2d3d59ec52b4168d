"""Kills the operator at every API call of a training's life: it always ends the same, and one Job at a time is active.

    python -m benchmarks.operator_crashes [--calls 5,6,7] [--side-by-side 2]

The life: create, pre-flight, start, run, be evicted, go on, pause, resume, finish, be evaluated again, delete. The
operator is a real process and is killed with SIGKILL, once before its k-th call does anything and once after the call
was carried out but before its answer arrives; a fresh operator goes on. The pods are those of a fake trainer, which
waits at a gate.
"""

import argparse
import asyncio
import json
import logging
import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from benchmarks.operator_bed import TRAINER, TRAININGS, Bed, Manifest, Stored, is_call, make_training, open_bed
from benchmarks.resuming_trainer import read_state
from lora_api import names
from lora_devcluster.cluster import ClusterSetting
from lora_devcluster.requests import RequestInfo
from lora_devcluster.scheduler import NodeSpec
from lora_devcluster.server import Cut
from lora_devcluster.store import Change
from lora_operator.__main__ import main as operate

log = logging.getLogger(__name__)

NAME = "hina"
EVICTION = "/api/v1/namespaces/ml/pods/{}/eviction"
WAIT_SECONDS = 120.0
COUNTED = ("number", "failures", "preemptions", "resumedFromStep", "lostSteps")
"""What of the attempts does not depend on how long things took."""
KILL_SECONDS = 0.05
"""From the last instruction of a stopped operator to its death; meanwhile the server carries out its call."""


@dataclass(frozen=True)
class Row:
    """How one life ended whose operator was killed at the k-th call."""

    call: int
    cut: Cut | None
    what: str
    """Verb and target of the call; empty when the life had no such call."""
    starts: int
    calls: int
    writes: int
    most_active_jobs: int
    most_running_pods: int
    end: str
    """The end state as JSON."""


@dataclass
class Crash:
    """Kills the operator at its k-th call, before or after the call has its effect."""

    call: int
    cut: Cut | None
    operator: ForkServerProcess | None = None
    seen: int = 0
    what: str = ""

    def __call__(self, request: RequestInfo) -> Cut | None:
        """Called by the server for every request."""
        if not is_call(request):
            return None
        self.seen += 1
        if self.cut is None or self.seen != self.call or self.operator is None or self.operator.pid is None:
            return None
        self.what = f"{request.verb} {request.target}"
        if self.cut is Cut.BEFORE:
            os.kill(self.operator.pid, signal.SIGKILL)
        else:
            # Stopped, it cannot act on the end of its connection while the server still works.
            os.kill(self.operator.pid, signal.SIGSTOP)
            asyncio.get_running_loop().call_later(KILL_SECONDS, os.kill, self.operator.pid, signal.SIGKILL)
        return self.cut


@dataclass
class Watcher:
    """The most Jobs and pods that write to the output and were ever active at once."""

    stored: Stored
    most_jobs: int = 0
    most_pods: int = 0

    def look(self, change: Change) -> None:
        """Called after every write."""
        if change.key.plural in {"jobs", "pods"}:
            self.most_jobs = max(self.most_jobs, sum(_is_active(job) for job in _writers(self.stored, "batch", "jobs")))
            self.most_pods = max(self.most_pods, len(running_pods(self.stored)))


def _writers(stored: Stored, group: str, plural: str) -> Iterable[Manifest]:
    for found in stored(group, plural):
        if found["metadata"].get("labels", {}).get(names.LABEL_STAGE) in {names.STAGE_TRAINING, names.STAGE_EVALUATION}:
            yield found


def _is_active(job: Manifest) -> bool:
    ended = {c["type"] for c in job.get("status", {}).get("conditions", ()) if c["status"] == "True"}
    return not ended & {"Complete", "Failed"} and not job["spec"].get("suspend")


def running_pods(stored: Stored) -> list[Manifest]:
    """Pods that train or evaluate, and whose container runs."""
    found = []
    for pod in _writers(stored, "", "pods"):
        states = [status.get("state", {}) for status in pod.get("status", {}).get("containerStatuses", ())]
        if any("running" in state for state in states):
            found.append(pod)
    return found


def _operate(environment: dict[str, str]) -> None:
    os.environ.update(environment)
    sys.exit(operate())


@asynccontextmanager
async def immortal_operator(bed: Bed, crash: Crash) -> AsyncIterator[list[ForkServerProcess]]:
    """An operator that is started again whenever it dies; all of its processes so far, newest last."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    started: list[ForkServerProcess] = []
    died = asyncio.Event()

    def start() -> None:
        process = context.Process(target=_operate, args=(_environment(bed),))
        process.start()
        asyncio.get_running_loop().add_reader(process.sentinel, died.set)
        crash.operator = process
        started.append(process)

    async def revive() -> None:
        while True:
            await died.wait()
            died.clear()
            _bury(started[-1])
            start()

    start()
    reviving = asyncio.create_task(revive())
    try:
        yield started
    finally:
        reviving.cancel()
        started[-1].kill()
        _bury(started[-1])


def _bury(process: ForkServerProcess) -> None:
    asyncio.get_running_loop().remove_reader(process.sentinel)
    process.join()


def _environment(bed: Bed) -> dict[str, str]:
    return bed.environment(LORA_PROGRESS_INTERVAL_SECONDS="0.1", LORA_STATUS_INTERVAL_SECONDS="0")


async def live(bed: Bed) -> str:
    """A training's whole life; its end state, as JSON."""
    gate, state = bed.folder / "gate", bed.folder / "state"
    env = {"GATE": str(gate), "STATE": str(state)}
    await bed.send("POST", TRAININGS, make_training(NAME, gpus=1, env=env))
    await _until_started(bed, state, 1)
    [first] = running_pods(bed.stored)
    await bed.send("POST", EVICTION.format(first["metadata"]["name"]), _eviction(first))
    await _until_started(bed, state, 2)
    await bed.until(lambda: _status(bed).get("attempts", {}).get("preemptions") == 1)
    await bed.send("PATCH", f"{TRAININGS}/{NAME}", {"spec": {"suspend": True}})
    await bed.until(lambda: not running_pods(bed.stored) and _status(bed).get("phase") == "Suspended")
    await bed.send("PATCH", f"{TRAININGS}/{NAME}", {"spec": {"suspend": False}})
    await _until_started(bed, state, 3)
    gate.touch()
    await bed.until(lambda: _conditions(bed).get("Finished", "").startswith("True"))
    await bed.send("PATCH", f"{TRAININGS}/{NAME}", {"spec": {"evaluation": {}}})
    await bed.until(lambda: _conditions(bed).get("Evaluated", "").startswith("True"))
    end = json.dumps(_end_state(bed), sort_keys=True)
    await bed.send("DELETE", f"{TRAININGS}/{NAME}", {"propagationPolicy": "Background"})
    await bed.until(lambda: not bed.stored("batch", "jobs") and not bed.stored("", "pods"))
    return end


async def _until_started(bed: Bed, state: Path, times: int) -> None:
    """Waits until the trainer has begun so often, and can be told to stop."""
    async with asyncio.timeout(WAIT_SECONDS):
        while read_state(state)["starts"] < times:
            await asyncio.sleep(0.02)
    await bed.until(lambda: running_pods(bed.stored))


def _eviction(pod: Manifest) -> Manifest:
    return {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod["metadata"]["name"]}}


def _status(bed: Bed) -> Manifest:
    found = bed.stored(names.GROUP, names.PLURAL)
    return found[0].get("status") or {} if found else {}


def _conditions(bed: Bed) -> dict[str, str]:
    return {c["type"]: f"{c['status']}/{c['reason']}" for c in _status(bed).get("conditions", ())}


def _end_state(bed: Bed) -> Manifest:
    status = _status(bed)
    attempts = {name: status.get("attempts", {}).get(name) for name in COUNTED}
    told = ("phase", "observedGeneration", "plan", "checkpoints", "artifacts", "evaluation", "failure")
    return {
        **{name: status.get(name) for name in told},
        "conditions": _conditions(bed),
        "attempts": attempts,
        "step": status.get("progress", {}).get("step"),
        "jobs": sorted(job["metadata"]["name"] for job in bed.stored("batch", "jobs")),
    }


async def trial(call: int, cut: Cut | None, folder: Path) -> Row:
    """One life whose operator is killed at the k-th call; with no `cut` it is never killed."""
    images = {"trainer:*": TRAINER}
    setting = ClusterSetting(images=images, node=NodeSpec(gpus=1), job_backoff_seconds=0.05, retry_seconds=0.05)
    async with open_bed(folder, setting, {"default": {"image": "trainer:1"}}) as bed:
        crash, watcher = Crash(call, cut), Watcher(bed.stored)
        bed.cluster.server.breaks.append(crash)
        unsubscribe = bed.cluster.store.subscribe(watcher.look)
        async with immortal_operator(bed, crash) as operators:
            try:
                end = await live(bed)
            except (RuntimeError, TimeoutError) as error:
                end = f"never: {error}"
        unsubscribe()
        writes = sum(request.verb not in {"get", "list"} for request in bed.calls())
    return Row(call, cut, crash.what, len(operators), crash.seen, writes, watcher.most_jobs, watcher.most_pods, end)


async def run_trials(calls: Iterable[int], folder: Path, *, side_by_side: int = 2) -> list[Row]:
    """An undisturbed life, and for each call the two lives whose operator was killed there."""
    turn = asyncio.Semaphore(side_by_side)

    async def one(call: int, cut: Cut | None) -> Row:
        async with turn:
            own = folder / f"{call}-{cut.name if cut else 'undisturbed'}"
            own.mkdir()
            row = await trial(call, cut, own)
            log.info("%s", _line(row))
            return row

    wanted = [(0, None), *((call, cut) for call in calls for cut in (Cut.BEFORE, Cut.AFTER))]
    return await asyncio.gather(*(one(call, cut) for call, cut in wanted))


def judge(rows: list[Row]) -> list[str]:
    """What is wrong, one line each; nothing when all lives ended alike with one Job and pod at a time."""
    [undisturbed] = [row for row in rows if row.cut is None]
    wrong = []
    for row in rows:
        place = f"call {row.call} ({row.what}, {row.cut.value if row.cut else 'undisturbed'})"
        if row.end != undisturbed.end:
            wrong.append(f"{place}: another end: {row.end}")
        if row.most_active_jobs != 1 or row.most_running_pods != 1:
            wrong.append(f"{place}: {row.most_active_jobs} Jobs, {row.most_running_pods} pods at once")
    return wrong


def table(rows: list[Row]) -> str:
    """The rows as a person reads them."""
    [undisturbed] = [row for row in rows if row.cut is None]
    lines = [f"{'call':>4}  {'what':36} {'killed when':22} {'starts':>6} {'calls':>5} {'writes':>6} {'Jobs':>4} end"]
    lines += [f"{_line(row)} {'same' if row.end == undisturbed.end else 'OTHER'}" for row in rows]
    kills = sum(row.starts > 1 for row in rows)
    ends, most = len({row.end for row in rows}), max(row.most_active_jobs for row in rows)
    lines += ["", f"{kills} kills, {ends} end state(s), at most {most} Job(s) active at once", undisturbed.end]
    return "\n".join(lines)


def _line(row: Row) -> str:
    when = row.cut.value if row.cut else "never"
    what = row.what or ("" if row.cut is None else "(no such call)")
    return f"{row.call:4}  {what:36} {when:22} {row.starts:6} {row.calls:5} {row.writes:6} {row.most_active_jobs:4}"


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


async def _main(arguments: argparse.Namespace, folder: Path) -> list[Row]:
    calls = arguments.calls
    if not calls:
        (folder / "measure").mkdir()
        measured = await trial(0, None, folder / "measure")
        calls = range(1, measured.calls + 1)
    return await run_trials(calls, folder, side_by_side=arguments.side_by_side)


def main() -> int:
    """Runs the lives and prints the table; exit code 1 when one ended otherwise."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--calls", type=_numbers, default=[], help="numbers of calls, default: all of a life")
    parser.add_argument("--side-by-side", type=int, default=2)
    log.addHandler(logging.StreamHandler())
    log.setLevel(logging.INFO)
    with tempfile.TemporaryDirectory() as folder:
        rows = asyncio.run(_main(parser.parse_args(), Path(folder)))
    print(table(rows))
    wrong = judge(rows)
    print(*wrong, sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
