"""Brings the processes of a run together, and keeps them together. Used by `run`.

The connection itself is torch.distributed's: gloo for tensors on the CPU, NCCL for those on GPUs; accelerate finds it
and takes its device from it. The waiting for the others is done here, since torch's own hears no signal meanwhile.
"""

import logging
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch.distributed import DistError, PrefixStore, Store, TCPStore  # type: ignore[attr-defined]
from torch.distributed.distributed_c10d import _set_pg_timeout

from lora_api.spec import LoraTrainingSpec
from lora_trainer.compute import check_device
from lora_trainer.errors import InterruptedUnsaved, InvalidConfiguration, TrainingError
from lora_trainer.heartbeat import Heartbeat, beating
from lora_trainer.prepare import Session
from lora_trainer.settings import Address, Ranks
from lora_trainer.world import PeerLost, World

logger = logging.getLogger(__name__)
Found = TypeVar("Found")

_PATIENCE_SECONDS = 1800.0
"""For the processes of other nodes, whose pods may have to wait for a place and for their image."""
_LOOK_SECONDS = 0.2
_STORE_TIMEOUT = timedelta(seconds=30)
_PATIENCE_TO_CONNECT = timedelta(seconds=90)
"""All have just said that they are there. Less than the usual grace period, for a signal is not heard meanwhile."""
_NEVER = timedelta(days=30)
"""Who is alive is told by heartbeats. A limit for a collective would end a run whose first process draws for long."""


@contextmanager
def joined(spec: LoraTrainingSpec, session: Session) -> Iterator[World]:
    """The processes of this run, connected; alone where there is one.

    Raises:
        InvalidConfiguration: there are other processes than `spec.parallelism` asks for, or no GPU for this one.
        InterruptedUnsaved: the others did not come.
        StopRequested: the process was told to stop meanwhile.
    """
    ranks = session.settings.ranks
    _check_size(spec, ranks)
    check_device(spec, local_rank=ranks.local_rank if ranks else 0)
    if ranks is None:
        yield World()
        return
    with _losing_the_store(session):
        store = _store(ranks, session)
        _wait_for_others(store, ranks, session)
    on_gpu = spec.parallelism.gpus_per_node > 0
    heartbeat = Heartbeat(store.clone(), ranks, session.signal)  # type: ignore[attr-defined]  # not in the stubs
    with beating(heartbeat), _telling_the_end(heartbeat):
        _connect(store, ranks, heartbeat, on_gpu=on_gpu)
        if on_gpu:
            _connect_gpus(session)
        yield _world(ranks, heartbeat, session)
    if not on_gpu:
        # NCCL's would wait for the other processes of this machine: for the first one, which may evaluate for hours.
        # The end of the process, which does not wait, gives back what NCCL has.
        dist.destroy_process_group()


def _connect_gpus(session: Session) -> None:
    """One sum over all GPUs, for NCCL connects them at the first: while there is memory for it beside the model's, and
    so that what is wrong with it is found before anything is fetched.

    Raises:
        DistBackendError: NCCL's words, where it does not work.
        StopRequested: the process was told to stop meanwhile, or another one ended.
    """
    session.say("Connecting", "the GPUs")
    try:
        dist.all_reduce(torch.zeros(1, device="cuda"))
        torch.cuda.synchronize()
    except RuntimeError:
        session.check_stop()
        raise


def _check_size(spec: LoraTrainingSpec, ranks: Ranks | None) -> None:
    parallelism, wanted = spec.parallelism, spec.parallelism.processes
    if (ranks.size if ranks else 1) == wanted:
        return
    asked = f"spec.parallelism asks for {wanted} processes (nodes {parallelism.nodes}, gpusPerNode "
    asked += f"{parallelism.gpus_per_node})"
    if ranks is not None:
        raise InvalidConfiguration(f"{asked}, but WORLD_SIZE is {ranks.size}; start as many as the spec says")
    raise InvalidConfiguration(
        f"{asked}, but nothing says where those of the other nodes are; set LORA_NODE_RANK and LORA_RENDEZVOUS "
        "(host:port of the first node) on each, or start them with torchrun"
    )


def _world(ranks: Ranks, heartbeat: Heartbeat, session: Session) -> World:
    def while_waiting() -> None:
        session.audience.tracker.alive()
        heartbeat.look()
        if heartbeat.lost is not None:
            raise PeerLost(heartbeat.lost)

    return World(
        ranks.rank,
        ranks.size,
        group=dist.group.WORLD,
        while_waiting=while_waiting,
        why_stop=lambda: heartbeat.lost or "told to stop",
    )


@contextmanager
def _telling_the_end(heartbeat: Heartbeat) -> Iterator[None]:
    """Tells the others how this process ends, so that none waits for it."""
    try:
        yield
    except BaseException as error:
        reason = error.reason if isinstance(error, TrainingError) else type(error).__name__
        heartbeat.leave(f"{reason}: {error}")
        raise
    heartbeat.leave("")


@contextmanager
def _losing_the_store(session: Session) -> Iterator[None]:
    """Turns the end of the process that keeps the store into what it means for those that wait: it was told to stop,
    as this one will be, or it failed, and says why itself."""
    try:
        yield
    except DistError as error:
        session.check_stop()
        raise InterruptedUnsaved(
            f"the first process ended while the others were waited for ({str(error).splitlines()[0]})",
            hint="See why it ended.",
        ) from error


def _store(ranks: Ranks, session: Session) -> Store:
    """The store by which the processes find each other; rank 0 keeps it, unless whoever started them does."""
    meeting = ranks.meeting
    if ranks.rank == 0 and not ranks.store_is_there:
        listening = _until(lambda: _listen(meeting), session, f"this node is not yet to be found as {meeting.host}")
        # Made by ourselves: torch's would listen on every address of the machine.
        store = TCPStore(
            meeting.host,
            meeting.port,
            is_master=True,
            wait_for_workers=False,
            timeout=_STORE_TIMEOUT,
            master_listen_fd=listening.detach(),
        )
    else:
        # torch says a page at every connection that is refused; this does not.
        what = f"the first process does not answer at {meeting.host}:{meeting.port} yet"
        _until(lambda: _answers(meeting), session, what)
        store = TCPStore(meeting.host, meeting.port, is_master=False, timeout=_STORE_TIMEOUT)
    return PrefixStore(f"lora/{ranks.restart}", store)


def _listen(meeting: Address) -> socket.socket | None:
    """A socket that listens there; None while the name is not known."""
    try:
        family, *_, address = socket.getaddrinfo(meeting.host, meeting.port, type=socket.SOCK_STREAM)[0]
        listening = socket.create_server(address[:2], family=family)
    except socket.gaierror:
        return None
    except OSError as error:
        raise InvalidConfiguration(
            f"rank 0 cannot listen on {meeting.host}:{meeting.port} ({error.strerror}), where the others expect it; "
            "MASTER_ADDR must be an address of its machine, and MASTER_PORT free"
        ) from error
    return listening


def _answers(meeting: Address) -> bool | None:
    try:
        socket.create_connection((meeting.host, meeting.port), timeout=_LOOK_SECONDS * 5).close()
    except OSError:
        return None
    return True


def _wait_for_others(store: Store, ranks: Ranks, session: Session) -> None:
    """Comes back when all processes have said that they are here."""
    keys = [f"beat/{rank}" for rank in range(ranks.size)]
    store.set(keys[ranks.rank], "go 0")

    def missing() -> int:
        return sum(not store.check([key]) for key in keys)

    session.say("WaitingForNodes", f"{ranks.size} processes train together")
    _until(lambda: store.check(keys) or None, session, lambda: f"{missing()} of {ranks.size} processes are missing")


def _until(look: Callable[[], Found | None], session: Session, waiting_for: str | Callable[[], str]) -> Found:
    """What `look` gives, once it gives something.

    Raises:
        InterruptedUnsaved: it took too long.
        StopRequested: the process was told to stop.
    """
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while (found := look()) is None:
        session.check_stop()
        if time.monotonic() > deadline:
            sentence = waiting_for if isinstance(waiting_for, str) else waiting_for()
            raise InterruptedUnsaved(
                f"after {_PATIENCE_SECONDS / 60:.0f} minutes {sentence}", hint="See why the other pods do not start."
            )
        time.sleep(_LOOK_SECONDS)
    return found


def _connect(store: Store, ranks: Ranks, heartbeat: Heartbeat, *, on_gpu: bool) -> None:
    """Connects the processes that have said that they are there.

    Raises:
        InterruptedUnsaved: they do not reach each other, or one has ended since.
    """
    if on_gpu:
        torch.cuda.set_device(ranks.local_rank)
    try:
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
            store=PrefixStore("group", store),
            rank=ranks.rank,
            world_size=ranks.size,
            timeout=_PATIENCE_TO_CONNECT,
        )
    except RuntimeError as error:
        why = heartbeat.lost or str(error).splitlines()[0]
        raise InterruptedUnsaved(
            f"process {ranks.rank} could not be connected to all others ({why})",
            hint="See whether one ended meanwhile. The processes of all nodes must reach each other on any TCP port.",
        ) from error
    _set_pg_timeout(_NEVER)
    logger.info("process %s of %s is connected", ranks.rank, ranks.size)
