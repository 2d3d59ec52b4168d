"""Starts a process for each GPU of this machine and ends with the exit code that explains the run. Used by `lora run`.

What torchrun does, but it leaves the last word where the kubelet looks, and nothing is started anew here: that is the
operator's. Imports no torch.
"""

import logging
import math
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import ValidationError

from lora_api.cluster_spec import Parallelism
from lora_api.exit_codes import ExitCode, outcome_of
from lora_api.progress import TerminationMessage
from lora_trainer.progress import write_termination
from lora_trainer.settings import Address, Ranks, Settings, environment_of
from lora_trainer.stopping import listening

logger = logging.getLogger(__name__)

_LOOPBACK = "127.0.0.1"
_LOOK_SECONDS = 0.1
_PATIENCE_SECONDS = 180.0
"""For the others to end after one failed, where no grace period is known; the first one saves the state meanwhile."""
_LAST_SECONDS = 0.5
"""Of the grace period, for the last word; each process ends itself before that if it can."""
_LORA = (sys.executable, "-m", "lora_trainer")
_INTERRUPTIONS = (ExitCode.INTERRUPTED, ExitCode.INTERRUPTED_UNSAVED, ExitCode.TERMINATED)
_BY_A_SIGNAL = 128


@dataclass(frozen=True)
class Company:
    """The processes of one machine."""

    ranks: tuple[Ranks, ...]
    settings: Settings
    """Those of the launcher."""


@dataclass(frozen=True)
class Ended:
    """How a process ended."""

    rank: int
    code: int
    """As a shell tells it: 128 and the number of the signal that killed it."""
    word: TerminationMessage | None = None
    """Its last word, if it left one."""


def company_of(parallelism: Parallelism, settings: Settings) -> Company | None:
    """The processes that `lora run` has to start; None where it trains itself, because it is one of them or alone.

    On a CPU the processes of all nodes are on this machine, unless it is said where the nodes meet.
    """
    size, node = parallelism.processes, settings.node
    if size == 1 or settings.ranks is not None:
        return None
    if node is None and parallelism.nodes > 1 and parallelism.gpus_per_node > 0:
        return None  # Who joins the others says that it is not known where they are.
    local = size if node is None else max(1, parallelism.gpus_per_node)
    meeting, first = (Address(_LOOPBACK, _free_port()), 0) if node is None else (node.meeting, node.rank * local)
    ranks = (Ranks(first + index, size, index, local, meeting, launcher=os.getpid()) for index in range(local))
    return Company(tuple(ranks), settings)


def launch(arguments: Sequence[str], company: Company, *, program: Sequence[str] = _LORA) -> int:
    """Runs `program` with `arguments` in each process, until all have ended; the exit code.

    That of the first that failed by itself; else that of the first process. SIGTERM and SIGINT go to all of them.
    """
    with listening(company.settings.grace_seconds) as stop, tempfile.TemporaryDirectory(prefix="lora-run-") as folder:
        children = [_start([*program, *arguments], ranks, Path(folder)) for ranks in company.ranks]
        logger.info("%s processes are started", len(children))
        try:
            ended = _wait(children, is_told=stop, grace=company.settings.grace_seconds)
        finally:
            for child in children:
                child.process.kill()
                child.process.wait()
        said = [replace(one, word=_read(_word_path(Path(folder), one.rank))) for one in ended]
    cause = explain(said)
    lead = next((one.word for one in said if one.rank == 0), None)
    if company.settings.termination_log is not None:
        write_termination(company.settings.termination_log, last_word(cause, lead))
    return cause.code


@dataclass(frozen=True)
class _Child:
    rank: int
    process: subprocess.Popen[bytes]


def _start(command: Sequence[str], ranks: Ranks, folder: Path) -> _Child:
    environment = environment_of(ranks, termination_log=_word_path(folder, ranks.rank))
    return _Child(ranks.rank, subprocess.Popen(command, env=environment))


def _wait(children: Sequence[_Child], *, is_told: Callable[[], bool], grace: float | None) -> list[Ended]:
    """How the children ended, in that order.

    When one does not end well, or this process is told to stop, all are told. Who does not end in time after a failure
    is killed, and counts as interrupted; also who does not end within the `grace` period (seconds), for it may hang
    where it hears no signal, and the last word must be left before this process is killed itself.
    """
    ended: list[Ended] = []
    waiting, are_told, deadline, end_of_grace = list(children), False, math.inf, math.inf
    while waiting:
        done = [child for child in waiting if child.process.poll() is not None]
        waiting = [child for child in waiting if child not in done]
        new = [_end_of(child) for child in done]
        ended += new
        if is_told() and grace is not None:
            end_of_grace = min(end_of_grace, time.monotonic() + grace - _LAST_SECONDS)
        if any(_has_failed(one) for one in new):
            deadline = min(deadline, time.monotonic() + (grace or _PATIENCE_SECONDS))
        if not are_told and (is_told() or any(one.code for one in ended)):
            are_told = True
            for child in waiting:
                child.process.terminate()
        if time.monotonic() > min(deadline, end_of_grace):
            for child in waiting:
                child.process.kill()
            return ended + [Ended(child.rank, ExitCode.INTERRUPTED_UNSAVED) for child in waiting]
        time.sleep(_LOOK_SECONDS)
    return ended


def _end_of(child: _Child) -> Ended:
    code = child.process.wait()
    return Ended(child.rank, code if code >= 0 else _BY_A_SIGNAL - code)


def _has_failed(end: Ended) -> bool:
    """By itself, and not because another process has ended or it was told to stop."""
    return end.code not in (ExitCode.COMPLETED, *_INTERRUPTIONS)


def explain(ended: Sequence[Ended]) -> Ended:
    """The end, of some in the order of time, that says how the run ended here."""
    failed = [one for one in ended if _has_failed(one)]
    if failed:
        return failed[0]
    stopped = [one for one in ended if one.code != ExitCode.COMPLETED]
    return min(stopped or ended, key=lambda one: one.rank)


def last_word(cause: Ended, lead: TerminationMessage | None) -> TerminationMessage:
    """What is left for the kubelet: the reason of `cause`, beside what the first process knew of the training."""
    outcome = outcome_of(cause.code)
    signal = f" (signal {cause.code - _BY_A_SIGNAL})" if cause.code > _BY_A_SIGNAL else ""
    word = cause.word or TerminationMessage(
        exit_code=cause.code,
        reason=outcome.reason,
        message=f"process {cause.rank} ended with exit code {cause.code}{signal}",
        hint=outcome.hint,
    )
    if lead is None or cause.rank == 0:
        return word
    told: Mapping[str, object] = {name: getattr(word, name) for name in _OF_THE_CAUSE}
    return lead.model_copy(update=dict(told))


_OF_THE_CAUSE = ("exit_code", "reason", "message", "hint", "log_tail")


def _word_path(folder: Path, rank: int) -> Path:
    return folder / f"word-{rank}.json"


def _read(path: Path) -> TerminationMessage | None:
    try:
        return TerminationMessage.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def _free_port() -> int:
    """Free now; who takes it meanwhile makes the first process say so."""
    with socket.create_server((_LOOPBACK, 0)) as server:
        return int(server.getsockname()[1])
