"""Trains with several processes of `lora run`, kills and stops them, and compares what they leave. CPU only, gloo.

    python -m benchmarks.multi_process --processes 2 4

For each number n, on the tiny pipeline of the tests (6 batches of two 64 px pictures an epoch, two epochs, a state
after each step):

- `alone`: one process with n times the accumulation, the reference for losses and weights;
- `whole`: n processes, undisturbed;
- `killed`: SIGKILL to the last process after some steps, then the same command again;
- `stopped`: SIGTERM to the launcher after some steps, then the same command again.

`killed` and `stopped` must leave the bytes of `whole`; any miss makes the exit code 1. Prints a table in Markdown.
"""

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from safetensors.numpy import load_file

from tests.support.tiny_pipeline import write_tiny_pipeline
from tests.support.tiny_run import FEW_BLOCKS, make_training, write_pictures

_LIMIT_SECONDS = 900.0
_LOOK_SECONDS = 0.05
_AFTER_STEPS = 1
_KILLED, _INTERRUPTED = 137, 75


@dataclass(frozen=True)
class Run:
    """One output, and how the starts that led to it ended."""

    output: Path
    exit_codes: tuple[int, ...]
    seconds_to_end: float | None = None
    """From the signal to the end of the launcher."""

    @property
    def losses(self) -> list[float]:
        """The loss of each step."""
        lines = (self.output / "evaluation" / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line)["loss"] for line in lines]

    @property
    def digests(self) -> dict[str, str]:
        """SHA-256 of every adapter, picture and line of the metrics."""
        folders = (self.output / name for name in ("adapters", "samples", "evaluation"))
        files = (path for folder in folders for path in sorted(folder.iterdir()))
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


class Site:
    """A folder with base model and pictures, in which runs are made."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._base, self._data = write_tiny_pipeline(folder / "base"), write_pictures(folder / "data")

    def run(self, name: str, processes: int, *, accumulation: int = 1, disturb: "Disturbance | None" = None) -> Run:
        """Trains to the end; `disturb` is done to the first start. Raises TimeoutError."""
        folder = self._folder / name
        folder.mkdir()
        file = folder / "lora.yaml"
        file.write_text(yaml.safe_dump(self._document(folder, processes, accumulation)))
        codes: list[int] = []
        seconds = None
        if disturb is not None:
            code, seconds = _disturbed(file, disturb)
            codes.append(code)
        codes.append(_start(file).wait(_LIMIT_SECONDS))
        return Run(folder / "out", tuple(codes), seconds)

    def _document(self, folder: Path, processes: int, accumulation: int) -> dict[str, Any]:
        training = make_training(
            self._base,
            self._data,
            folder / "out",
            network={"blocks": FEW_BLOCKS, "dropout": 0.1},
            training={"gradientAccumulationSteps": accumulation},
            checkpoints={"everySteps": 1},
            parallelism={"nodes": processes},
        )
        document: dict[str, Any] = training.to_document()
        return document


Disturbance = Callable[[int], None]
"""Is given the process id of the launcher."""


def stop(launcher: int) -> None:
    """As a drained node does."""
    os.kill(launcher, signal.SIGTERM)


def kill_last_rank(launcher: int) -> None:
    """As the kernel does when memory is short."""
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    os.kill(max(map(int, children), key=_rank), signal.SIGKILL)


def _rank(process: int) -> int:
    variables = Path(f"/proc/{process}/environ").read_bytes().decode().split("\0")
    return next((int(value.removeprefix("RANK=")) for value in variables if value.startswith("RANK=")), -1)


def _start(file: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "lora_trainer", "run", str(file), "--work-dir", str(file.parent / "work")]
    with (file.parent / "log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"})


def _disturbed(file: Path, disturb: Disturbance) -> tuple[int, float]:
    """(exit code, seconds from the disturbance to the end) of a start that is disturbed after its first state."""
    process = _start(file)
    deadline = time.monotonic() + _LIMIT_SECONDS
    while not list((file.parent / "out").glob(f"state/step-{_AFTER_STEPS}-*/manifest.json")):
        if process.poll() is not None or time.monotonic() > deadline:
            raise TimeoutError(f"no state of {file} before it ended; see {file.parent / 'log'}")
        time.sleep(_LOOK_SECONDS)
    disturb(process.pid)
    begun = time.monotonic()
    return process.wait(_LIMIT_SECONDS), time.monotonic() - begun


def _largest_difference(one: Run, other: Run) -> float:
    """Of all numbers of the last adapters."""
    tensors = [load_file(run.output / "adapters" / "tiny.safetensors") for run in (one, other)]
    return max(float(abs(value - tensors[1][name]).max()) for name, value in tensors[0].items())


def measure(site: Site, processes: int) -> bool:
    """Prints a row for each run with that many processes; whether all is as it must be."""
    alone = site.run(f"{processes}-alone", 1, accumulation=processes)
    whole = site.run(f"{processes}-whole", processes)
    killed = site.run(f"{processes}-killed", processes, disturb=kill_last_rank)
    stopped = site.run(f"{processes}-stopped", processes, disturb=stop)
    loss = max(abs(a - b) / abs(b) for a, b in zip(whole.losses, alone.losses, strict=True))
    weights = _largest_difference(whole, alone)
    print(
        f"| {processes} | whole | {whole.exit_codes} | – | to alone: loss {loss:.1e} relative, weights {weights:.1e} |"
    )
    for name, run in (("killed", killed), ("stopped", stopped)):
        found = "same bytes as whole" if run.digests == whole.digests else "OTHER BYTES"
        print(f"| {processes} | {name} | {run.exit_codes} | {run.seconds_to_end:.1f} | {found} |", flush=True)
    return (
        whole.exit_codes == (0,)
        and killed.exit_codes == (_KILLED, 0)
        and stopped.exit_codes == (_INTERRUPTED, 0)
        and killed.digests == stopped.digests == whole.digests
        and loss < 1e-5
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, nargs="+", default=[2, 4])
    counts = parser.parse_args(arguments).processes
    print("| processes | run | exit codes | s to end | result |\n| ---: | --- | --- | ---: | --- |", flush=True)
    with tempfile.TemporaryDirectory(prefix="multi-process-") as folder:
        site = Site(Path(folder))
        good = [measure(site, count) for count in counts]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
