"""Child processes of the demo: each with its own log file, stopped by pid, ended with the demo."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


class DemoError(Exception):
    """Something that the demo needs did not happen; the message says what and where its log lies."""


@dataclass(frozen=True)
class Child:
    """A running process and its log."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def check_alive(self) -> None:
        """Raises DemoError with the end of the log when the process has ended."""
        code = self.process.poll()
        if code is not None:
            tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])
            raise DemoError(f"{self.name} ended with exit code {code}; its log ({self.log}) ends with:\n{tail}")


@contextlib.contextmanager
def running(
    name: str,
    command: Sequence[str | Path],
    *,
    log_dir: Path,
    environment: Mapping[str, str] | None = None,
    stop_signal: signal.Signals = signal.SIGTERM,
) -> Iterator[Child]:
    """A process in its own session for the time of the `with` block; killed when it does not stop in 10 s."""
    log = log_dir / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(part) for part in command],
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=None if environment is None else dict(environment),
            start_new_session=True,
        )
    try:
        yield Child(name, process, log)
    finally:
        _stop(process, stop_signal)


def _stop(process: subprocess.Popen[bytes], stop_signal: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, stop_signal)
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_until(holds: Callable[[], bool], what: str, *, seconds: float, child: Child | None = None) -> None:
    """Returns when `holds()`; raises DemoError after `seconds`, or at once when `child` has ended."""
    deadline = time.monotonic() + seconds
    while not holds():
        if child is not None:
            child.check_alive()
        if time.monotonic() > deadline:
            raise DemoError(f"{what} did not happen within {seconds:.0f} s")
        time.sleep(0.1)


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that are free now, and whose +10000 (SeaweedFS' gRPC) is free as well."""
    found: list[int] = []
    with contextlib.ExitStack() as stack:
        while len(found) < count:
            port = _bind(stack, 0)
            if port and port < 55000 and _bind(stack, port + 10000):
                found.append(port)
    return found


def _bind(stack: contextlib.ExitStack, port: int) -> int | None:
    bound = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
    try:
        bound.bind(("127.0.0.1", port))
    except OSError:
        return None
    return int(bound.getsockname()[1])
