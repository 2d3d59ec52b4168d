"""One local process in the place of a container: start, signal, exit code. Used by the kubelet."""

import asyncio
import ctypes
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_SET_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of <linux/prctl.h>
_LOG_FALLBACK_LINES, _LOG_FALLBACK_BYTES, _MESSAGE_BYTES = 80, 2048, 4096
_LIBC = ctypes.CDLL(None)


@dataclass(frozen=True)
class Command:
    """What to run: program and arguments, its whole environment, its folder and where its output goes."""

    argv: Sequence[str]
    environment: Mapping[str, str]
    folder: Path
    log: Path


def _die_with_parent() -> None:
    """Runs between fork and exec: a cluster that is killed takes its pods with it."""
    _LIBC.prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)


async def start(command: Command) -> asyncio.subprocess.Process:
    """Starts the command in a session of its own.

    Raises:
        OSError: it cannot be executed.
    """
    command.log.parent.mkdir(parents=True, exist_ok=True)
    with command.log.open("ab") as output:
        return await asyncio.create_subprocess_exec(
            *command.argv,
            env=dict(command.environment),
            cwd=command.folder,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )


def send_signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    """Signals the process and everything it started; nothing when all of that is gone."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


async def stop(process: asyncio.subprocess.Process, grace_seconds: float) -> None:
    """SIGTERM, and SIGKILL for whatever is left after the grace period."""
    if grace_seconds > 0 and process.returncode is None:
        send_signal(process, signal.SIGTERM)
        with suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), grace_seconds)
    send_signal(process, signal.SIGKILL)
    await process.wait()


def exit_code(returncode: int) -> int:
    """As a shell and Kubernetes count: 128 + the number of the signal that ended it."""
    return returncode if returncode >= 0 else 128 - returncode


def termination_message(container: Mapping[str, str], path: Path, log: Path, code: int) -> str:
    """What the container left behind as its last word: its message file, or the end of its log when it failed."""
    text = path.read_bytes()[:_MESSAGE_BYTES] if path.is_file() else b""
    if not text and code and container.get("terminationMessagePolicy") == "FallbackToLogsOnError" and log.is_file():
        text = b"".join(log.read_bytes().splitlines(keepends=True)[-_LOG_FALLBACK_LINES:])[-_LOG_FALLBACK_BYTES:]
    return text.decode("utf-8", "replace")
