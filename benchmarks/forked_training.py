"""`lora run` in a process that is forked from one that has imported everything, and can be killed at a chosen moment.

Used by `kill_trials`. The fork server is that of the standard library: it has no threads and one per operation, so
that what is forked is as good as new. Everything else is the real command: its log, its handlers, its exit code.
"""

import functools
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from lora_trainer.__main__ import main
from lora_trainer.loop import Trainer
from lora_trainer.progress import ProgressTracker
from lora_trainer.storage.s3_store import S3Store

ROOT = Path(__file__).resolve().parents[1]
STAGES = ("fetching", "encoding", "stepping", "saving", "uploading", "sampling")
_STAGE_OF_REASON = {
    "Downloading": "fetching",
    "EncodingLatents": "encoding",
    "Training": "stepping",
    "Saving": "saving",
    "Sampling": "sampling",
}
_LIMIT_SECONDS = 300.0
"""No start takes this long; one that hangs is an error."""


@dataclass(frozen=True)
class Command:
    """One start of `lora run`."""

    file: Path
    log: Path
    environment: Mapping[str, str]


@dataclass(frozen=True)
class Event:
    """Something that the process told: a reason, a step made, an upload begun or done, a state taken up."""

    seconds: float
    """Since the start."""
    name: str
    value: str


@dataclass(frozen=True)
class Moment:
    """When to send the signal: so long after the stage was entered for the n-th time (from 1)."""

    stage: str
    occurrence: int
    delay_seconds: float


@dataclass(frozen=True)
class Ended:
    """How a start ended."""

    events: Sequence[Event]
    exit_code: int
    """-9 when it was killed."""
    hit: str | None
    """What it was doing when the signal was sent; None: it had ended before."""
    seconds_to_end: float
    """From the signal to the end of the process."""

    @property
    def resumed_from(self) -> int | None:
        """Step from which it went on, 0 when it began anew; None: it ended before it knew."""
        told = [int(event.value) for event in self.events if event.name == "resumed"]
        trained = any(event.name == "reason" and event.value == "Training" for event in self.events)
        return told[0] if told else 0 if trained else None

    @property
    def last_step(self) -> int | None:
        """Steps made when it ended; None: it ended before it knew where to begin."""
        return max((int(event.value) for event in self.events if event.name == "step"), default=self.resumed_from)


@dataclass(frozen=True)
class Stretch:
    """A time that was spent in one stage."""

    stage: str
    seconds: float


class ForkServer:
    """Starts `lora run` in processes of their own; may be used by several threads."""

    def __init__(self) -> None:
        """The server itself starts with the first process."""
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        os.environ.update(OMP_NUM_THREADS="1", PYTHONPATH=os.pathsep.join(paths))
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["benchmarks.forked_training", "lora_trainer.run"])

    def run(self, command: Command, *, moment: Moment | None = None, number: signal.Signals = signal.SIGKILL) -> Ended:
        """Runs to the end, or until the signal was sent at `moment` and the process ended. Raises TimeoutError."""
        receiver, sender = self._context.Pipe(duplex=False)
        process = self._context.Process(target=_lora_run, args=(command, sender))
        begin = time.monotonic()
        process.start()
        sender.close()
        assert process.pid is not None
        observer = _Observer(receiver, begin)
        try:
            hit = observer.wait_for(moment)
            told = time.monotonic()
            if hit is not None:
                # The whole group, as a container ends with all that is in it.
                os.killpg(process.pid, number)
            observer.wait_for(None)
            process.join(_LIMIT_SECONDS)
        finally:
            if process.is_alive():
                process.kill()
            receiver.close()
        assert process.exitcode is not None
        return Ended(observer.events, process.exitcode, hit, time.monotonic() - told)


class _Observer:
    """Reads what a process tells, and knows what it is doing."""

    def __init__(self, receiver: Connection, begin: float) -> None:
        self.events: list[Event] = []
        self._receiver, self._begin = receiver, begin
        self._open = True

    def wait_for(self, moment: Moment | None) -> str | None:
        """Waits for the moment and gives the stage it found; None: the process ended before."""
        while self._open and (moment is None or self._entered(moment.stage) < moment.occurrence):
            self._read(_LIMIT_SECONDS)
        if moment is None or not self._open:
            return None
        due = time.monotonic() + moment.delay_seconds
        while self._open and (left := due - time.monotonic()) > 0:
            if self._receiver.poll(left):
                self._read(0)
        return self._stage if self._open else None

    @property
    def _stage(self) -> str:
        *_, (_, stage) = stages(self.events)
        return stage

    def _entered(self, stage: str) -> int:
        return sum(entered == stage for _, entered in stages(self.events))

    def _read(self, seconds: float) -> None:
        if not self._receiver.poll(seconds):
            raise TimeoutError(
                f"nothing was heard of the process for {seconds:.0f} s; its last word: {self.events[-1:]}"
            )
        try:
            name, value = self._receiver.recv_bytes().decode().split(" ", 1)
            self.events.append(Event(time.monotonic() - self._begin, name, value))
        except EOFError:
            self._open = False


def stages(events: Sequence[Event]) -> Iterator[tuple[Event, str]]:
    """Every event with which another stage was entered, and the stage; an upload counts before what it runs beside."""
    reason, uploads, stage = "starting", 0, "starting"
    for event in events:
        if event.name == "reason":
            reason = _STAGE_OF_REASON.get(event.value, event.value)
        uploads += {"put": 1, "stored": -1}.get(event.name, 0)
        now = "uploading" if uploads else reason
        if now != stage:
            stage = now
            yield event, stage


def stretches(events: Sequence[Event]) -> list[Stretch]:
    """How long each stage took, in the order of time."""
    entered = list(stages(events))
    ends = [event.seconds for event, _ in entered[1:]] + [events[-1].seconds]
    return [Stretch(stage, end - event.seconds) for (event, stage), end in zip(entered, ends, strict=True)]


def _lora_run(command: Command, sender: Connection) -> None:
    """What the forked process does: `lora run`, with its output in the log, telling what it does."""
    os.setsid()
    with command.log.open("ab") as log:
        os.dup2(log.fileno(), sys.stdout.fileno())
        os.dup2(log.fileno(), sys.stderr.fileno())
    os.environ.update(command.environment)
    _tell_everything(sender)
    sys.argv = ["lora", "run", str(command.file)]
    main()


def _tell_everything(sender: Connection) -> None:
    """Makes the product tell what it does. One write each: it may come from any thread, and be the last."""

    def tell(name: str, value: object) -> None:
        sender.send_bytes(f"{name} {value}".encode())

    _before(ProgressTracker, "set_reason", lambda _, reason, *__: tell("reason", reason))
    _before(ProgressTracker, "set_resumed_from", lambda _, step: tell("resumed", step))
    _after(Trainer, "train_step", lambda trainer, *_: tell("step", trainer.step))
    for method in ("put_file", "put_bytes"):
        _before(S3Store, method, lambda _, __, key: tell("put", key))
        _after(S3Store, method, lambda _, __, key: tell("stored", key))


def _before(cls: type, method: str, say: Callable[..., None]) -> None:
    inner = getattr(cls, method)

    @functools.wraps(inner)
    def told(self: Any, *arguments: Any, **named: Any) -> Any:
        say(self, *arguments)
        return inner(self, *arguments, **named)

    setattr(cls, method, told)


def _after(cls: type, method: str, say: Callable[..., None]) -> None:
    inner = getattr(cls, method)

    @functools.wraps(inner)
    def told(self: Any, *arguments: Any, **named: Any) -> Any:
        try:
            return inner(self, *arguments, **named)
        finally:
            say(self, *arguments)

    setattr(cls, method, told)
