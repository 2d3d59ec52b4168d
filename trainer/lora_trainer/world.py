"""The processes that train together, and what they tell each other. Made by `rendezvous`, used by `run` and `loop`.

Numbers that decide something travel on the CPU, gradients where they lie. Waiting on the CPU is done in small pieces,
so that a signal, or the loss of another process, ends it; it may last as long as the first process draws pictures.
"""

import hashlib
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import IntEnum

import torch
import torch.distributed as dist
from torch import Tensor

from lora_trainer.stopping import StopRequested

_LONGEST_PAUSE_SECONDS = 0.02
_PAUSE_SHARE = 0.05
"""A wait is looked at again after this share of the time that it has lasted."""
_LEAD = 0
_DIGEST_BITS = 62
_SOURCE_PLACE = re.compile(r"^\[[^\]\s]*\]\s*")


class Word(IntEnum):
    """What a process says of the step, or the epoch, that it is at; the greatest one that was said holds for all."""

    GO = 0
    OVER = 1
    """No epoch follows."""
    TOO_LARGE = 2
    """The device has too little memory for the step."""
    STOP = 3
    """The process was told to stop."""


class PeerLost(StopRequested):
    """Another process has ended or fallen silent; whoever waits for it would wait for ever."""


class WeightsDiffer(RuntimeError):
    """The processes do not train the same weights any more; what they would make is worth nothing."""


def _nothing() -> None:
    """There is nothing to do while one waits."""


class World:
    """The processes of a run, this one among them. Each must ask the same things in the same order."""

    def __init__(
        self,
        rank: int = 0,
        size: int = 1,
        *,
        group: dist.ProcessGroup | None = None,
        while_waiting: Callable[[], None] = _nothing,
        why_stop: Callable[[], str] = lambda: "told to stop",
    ) -> None:
        """Alone, unless more is said.

        Args:
            rank: which process this is; 0 leads.
            size: how many there are.
            group: how they are connected, for tensors on the CPU and on the device; may be left out for one.
            while_waiting: called again and again during a wait; what it raises ends the wait.
            why_stop: the reason for a stop, as the begin of a sentence.
        """
        self.rank, self.size, self.why_stop = rank, size, why_stop
        self._group, self._while_waiting = group, while_waiting

    @property
    def is_lead(self) -> bool:
        """Whether this process reports, draws, publishes and saves for all."""
        return self.rank == _LEAD

    def agree(self, word: Word) -> Word:
        """The greatest word that any process said. Raises PeerLost."""
        return Word(self._largest([int(word)])[0])

    def any_of(self, flags: Sequence[bool]) -> list[bool]:
        """For each flag whether any process has set it. Raises PeerLost."""
        return [bool(number) for number in self._largest([int(flag) for flag in flags])]

    def add_up(self, tensor: Tensor) -> None:
        """Makes `tensor`, of the same shape everywhere, the sum over all processes. Raises PeerLost."""
        if self.size == 1:
            return
        work = self._ask(lambda: dist.all_reduce(tensor, group=self._group, async_op=True))
        if tensor.is_cuda:
            work.wait()  # What the device does next waits for it; this thread does not.
        else:
            self._wait(work)

    def from_lead(self, data: bytes) -> bytes:
        """The bytes that the lead gave; those of the others do not count. Raises PeerLost."""
        return self._from(_LEAD, data)

    def from_each(self, data: bytes) -> Iterator[bytes]:
        """The bytes that each process gave, by rank; all must read them to the end. Raises PeerLost."""
        return (self._from(rank, data) for rank in range(self.size))

    def wait_for_all(self) -> None:
        """Comes back when all processes are here. Raises PeerLost."""
        self._largest([0])

    def check_equal(self, tensors: Mapping[str, Tensor], *, step: int) -> None:
        """Compares the bytes of `tensors` in all processes.

        Raises:
            WeightsDiffer: they are not the same.
            PeerLost: a process did not answer.
        """
        if self.size == 1:
            return
        digest = _digest_of(tensors.values())
        largest, least = self._largest([digest, -digest])
        if largest != -least:
            raise WeightsDiffer(
                f"after step {step} the processes hold different weights; process {self.rank} has the digest "
                f"{digest:016x}. A device computes wrongly, or the machines differ in hardware or software"
            )

    def _largest(self, values: Sequence[int]) -> list[int]:
        if self.size == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.int64)
        self._wait(self._ask(lambda: dist.all_reduce(tensor, dist.ReduceOp.MAX, group=self._group, async_op=True)))
        return [int(value) for value in tensor.tolist()]

    def _from(self, rank: int, data: bytes) -> bytes:
        if self.size == 1:
            return data
        length = torch.tensor([len(data)])
        self._broadcast(length, rank)
        content = torch.frombuffer(bytearray(data), dtype=torch.uint8) if self.rank == rank and data else None
        if content is None:
            content = torch.empty(int(length), dtype=torch.uint8)
        if len(content):
            self._broadcast(content, rank)
        return content.numpy().tobytes()

    def _broadcast(self, tensor: Tensor, rank: int) -> None:
        self._wait(self._ask(lambda: dist.broadcast(tensor, group_src=rank, group=self._group, async_op=True)))

    def _ask(self, begin: Callable[[], "dist.Work | None"]) -> dist.Work:
        self._while_waiting()
        try:
            work = begin()
        except RuntimeError as error:
            raise self._lost(error) from error
        assert work is not None, "this process is no member of the group"
        return work

    def _wait(self, work: dist.Work) -> None:
        begun = time.monotonic()
        while not work.is_completed():
            self._while_waiting()
            time.sleep(min(_LONGEST_PAUSE_SECONDS, _PAUSE_SHARE * (time.monotonic() - begun)))
        try:
            work.wait()
        except RuntimeError as error:
            raise self._lost(error) from error

    def _lost(self, error: RuntimeError) -> PeerLost:
        self._while_waiting()  # It may know more.
        return PeerLost(f"process {self.rank} lost its connection to another one ({_in_short(error)})")


def _in_short(error: RuntimeError) -> str:
    """What torch says, without the place in its source and its advice."""
    return _SOURCE_PLACE.sub("", str(error).splitlines()[0]).partition(". ")[0]


def _digest_of(tensors: Iterable[Tensor]) -> int:
    """A number from the bytes of all tensors; the copies on the CPU are made one by one."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return int.from_bytes(digest.digest()[:8], "little") >> (64 - _DIGEST_BITS)
