"""Tells the other processes of a run that this one lives, and hears whether they do. Started by `rendezvous`.

It beats in a thread of its own, beside whatever the main thread waits for: a sum that never comes because a process is
gone, or the first process, which may draw pictures for an hour. What one is told, all hear: to stop, or how one ended.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from lora_trainer.settings import Ranks
from lora_trainer.stopping import StopSignal

logger = logging.getLogger(__name__)

_BEAT_SECONDS = 2.0
LOST_SECONDS = 45.0
"""A process that is not heard of for so long is lost."""
_LAST_BEAT_SECONDS = 5.0
"""For a beat that is under way when the process ends; its thread does not keep the process."""


class BeatStore(Protocol):
    """What all processes can read and write: torch's stores."""

    def set(self, key: str, value: str) -> None:
        """Writes a value."""
        ...

    def multi_get(self, keys: list[str]) -> list[bytes]:
        """Reads values, all of which have been written."""
        ...


class Heartbeat:
    """The beats of one process, and what is known of the others."""

    def __init__(
        self,
        store: BeatStore,
        ranks: Ranks,
        stop: StopSignal,
        *,
        clock: Callable[[], float] = time.monotonic,
        parent: Callable[[], int] = os.getppid,
    ) -> None:
        """`stop` is told when another process was told to stop, or is lost."""
        self._store, self._ranks, self._stop = store, ranks, stop
        self._clock, self._parent = clock, parent
        self._beats = 0
        self._answered = clock()
        self._asking = threading.Lock()
        self._has_left = False
        self._heard: dict[int, tuple[bytes, float]] = {}
        self.lost: str | None = None
        """Which process is lost, and how, as a sentence without a stop."""

    def beat(self) -> None:
        """Tells and hears once; what it hears stays known."""
        self._beats += 1
        if self._ranks.launcher is not None and self._parent() != self._ranks.launcher:
            self._stop.tell()
        with self._asking:
            if self._has_left:
                return
            try:
                self._store.set(_key(self._ranks.rank), f"{'stop' if self._stop() else 'go'} {self._beats}")
                values = self._store.multi_get([_key(rank) for rank in range(self._ranks.size)])
            except RuntimeError as error:
                self._lose(f"the place where the processes meet is gone ({str(error).splitlines()[0]})")
                return
        self._answered = self._clock()
        self._hear(values)

    def leave(self, how: str) -> None:
        """Tells the others that this process ends: `how` is empty if it has done all that was to be done.

        No beat follows, also none that has begun; where that one gets no answer, nobody is told.
        """
        if not self._asking.acquire(timeout=_LAST_BEAT_SECONDS):
            return
        try:
            self._has_left = True
            self._store.set(_key(self._ranks.rank), f"end {how}")
        except RuntimeError as error:
            logger.debug("nobody was told of the end: %s", error)
        finally:
            self._asking.release()

    def look(self) -> None:
        """Notices that nothing is heard any more, from another thread: a beat waits for its answer for ever if the
        machine that has to give it is gone."""
        silence = self._clock() - self._answered
        if silence >= LOST_SECONDS:
            self._lose(f"the place where the processes meet has not answered for {silence:.0f} s")

    def _hear(self, values: Sequence[bytes]) -> None:
        now = self._clock()
        for rank, value in enumerate(values):
            word, _, rest = value.decode().partition(" ")
            if self._heard.get(rank, (b"", 0.0))[0] != value:
                self._heard[rank] = (value, now)
            if word == "stop":
                self._stop.tell()
            if word == "end" and rest and not self._stop():  # Once all are told to stop, each ends in its own time.
                self._lose(f"process {rank} ended ({rest})")
            silence = now - self._heard[rank][1]
            if word != "end" and silence >= LOST_SECONDS:
                self._lose(f"process {rank} has not been heard of for {silence:.0f} s")

    def _lose(self, sentence: str) -> None:
        if self.lost is None:
            self.lost = sentence
            logger.warning("%s", sentence)
            self._stop.tell()


def _key(rank: int) -> str:
    return f"beat/{rank}"


@contextmanager
def beating(heartbeat: Heartbeat) -> Iterator[None]:
    """Lets it beat in the background. The first beats of all processes must lie in the store."""
    done = threading.Event()

    def beat() -> None:
        while not done.wait(_BEAT_SECONDS):
            heartbeat.beat()

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(_LAST_BEAT_SECONDS)
