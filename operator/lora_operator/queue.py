"""The work queue: each key at most once, never at two workers, later again after an error. Used by `controller`."""

import asyncio
from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)

FIRST_DELAY_SECONDS = 0.1
LONGEST_DELAY_SECONDS = 60.0


def backoff_seconds(failures: int) -> float:
    """How long to wait after so many failures in a row."""
    # The exponent is bounded, so that a year of failures does not make a number without end.
    return min(FIRST_DELAY_SECONDS * 2.0 ** min(failures, 30), LONGEST_DELAY_SECONDS)


class WorkQueue(Generic[Key]):
    """Keys that need a look, in order of arrival; those that can wait come when no other one is left.

    A key added while a worker has it comes again when that worker is done; a key added twice comes once.
    One that is not open yet keeps nothing: whoever opens it adds what there is. Lives on one event loop.
    """

    def __init__(self, *, is_open: bool = True) -> None:
        self._is_open = is_open
        self._ready: deque[Key] = deque()
        self._patient: dict[Key, None] = {}
        self._waiting: set[Key] = set()
        self._taken: set[Key] = set()
        self._again: set[Key] = set()
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._failures: dict[Key, int] = {}
        self._arrival = asyncio.Event()

    def __len__(self) -> int:
        return len(self._ready) + len(self._patient)

    def open(self) -> None:
        """From now on keys are kept."""
        self._is_open = True

    def add(self, key: Key, *, can_wait: bool = False) -> None:
        """The key needs a look now; one that `can_wait` after all that cannot."""
        if not self._is_open:
            return
        if key in self._taken:
            self._again.add(key)
        elif can_wait and key not in self._waiting:
            self._patient[key] = None
            self._arrival.set()
        elif not can_wait and key not in self._waiting:
            self._patient.pop(key, None)
            self._waiting.add(key)
            self._ready.append(key)
            self._arrival.set()

    def add_after(self, key: Key, seconds: float) -> None:
        """The key needs a look after so many seconds; of several such wishes the earliest counts."""
        if not self._is_open:
            return
        loop = asyncio.get_running_loop()
        timer = self._timers.get(key)
        if timer is not None:
            if timer.when() <= loop.time() + seconds:
                return
            timer.cancel()
        self._timers[key] = loop.call_later(seconds, self._ring, key)

    def _ring(self, key: Key) -> None:
        del self._timers[key]
        self.add(key)

    async def get(self) -> Key:
        """The next key; `done` must be called when its look is over."""
        while not len(self):
            self._arrival.clear()
            await self._arrival.wait()
        key = self._pop()
        self._taken.add(key)
        return key

    def _pop(self) -> Key:
        if self._ready:
            key = self._ready.popleft()
            self._waiting.remove(key)
        else:
            key = next(iter(self._patient))
            del self._patient[key]
        return key

    def done(self, key: Key) -> None:
        """The look at the key is over."""
        self._taken.remove(key)
        if key in self._again:
            self._again.remove(key)
            self.add(key)

    def succeeded(self, key: Key) -> None:
        """Forgets the failures of a key."""
        self._failures.pop(key, None)

    def failed(self, key: Key, *, least_seconds: float = 0.0) -> float:
        """Plans another look after a failure; the delay in seconds, doubled with every failure in a row."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        delay = max(backoff_seconds(failures), least_seconds)
        self.add_after(key, delay)
        return delay

    def failures(self, key: Key) -> int:
        """Failures of a key in a row."""
        return self._failures.get(key, 0)

    def forget(self, key: Key) -> None:
        """The key is gone: no plans for it any more."""
        self.succeeded(key)
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
