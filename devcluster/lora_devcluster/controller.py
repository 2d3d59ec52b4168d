"""What all controllers share: a queue of keys without duplicates, worked off on the event loop, one at a time."""

import asyncio
from abc import ABC, abstractmethod

from lora_devcluster.store import Key


class Controller(ABC):
    """Calls `reconcile` for every key that was added, once however often it was added meanwhile.

    `reconcile` does not wait for anything, so each call sees and leaves a consistent store. What it raises goes to
    the event loop's exception handler, which logs it; the other keys are not held up.
    """

    def __init__(self) -> None:
        self._waiting: set[Key] = set()
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._stopped = False

    @abstractmethod
    def reconcile(self, key: Key) -> None:
        """Brings the world of this object one step nearer to what the object says."""

    def enqueue(self, key: Key) -> None:
        if key not in self._waiting and not self._stopped:
            self._waiting.add(key)
            asyncio.get_running_loop().call_soon(self._work, key)

    def enqueue_after(self, key: Key, seconds: float) -> None:
        """Adds the key later; a sooner wish for the same key replaces a later one."""
        loop = asyncio.get_running_loop()
        timer = self._timers.get(key)
        due = loop.time() + max(seconds, 0.0)
        if timer is not None and not timer.cancelled() and loop.time() < timer.when() <= due:
            return
        if timer is not None:
            timer.cancel()
        self._timers[key] = loop.call_at(due, self._due, key)

    def stop(self) -> None:
        self._stopped = True
        for timer in self._timers.values():
            timer.cancel()

    def _due(self, key: Key) -> None:
        self._timers.pop(key, None)
        self.enqueue(key)

    def _work(self, key: Key) -> None:
        self._waiting.discard(key)
        if not self._stopped:
            self.reconcile(key)
