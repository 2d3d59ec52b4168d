"""Stores files behind the training: one thread, in the order in which they were handed over. Used by `output`.

The order is what makes a manifest true: it is handed over after the files that it names.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable

logger = logging.getLogger(__name__)


class StillUploading(Exception):
    """The time given for the uploads was too short."""


class UploadQueue:
    """Does one piece of work after the other in a thread of its own; after the first error none at all."""

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], None]] = deque()
        self._changed = threading.Condition()
        self._busy = False
        self._closed = False
        self._error: Exception | None = None
        # A daemon: a store that does not answer must not keep the process alive.
        self._thread = threading.Thread(target=self._serve, name="uploads", daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[], None]) -> None:
        """Hands work over. Raises the error of earlier work."""
        with self._changed:
            self._raise_error()
            self._waiting.append(work)
            self._changed.notify_all()

    def check(self) -> None:
        """Raises the error of earlier work, if there was one."""
        with self._changed:
            self._raise_error()

    def wait(self, seconds: float | None = None) -> None:
        """Waits until everything is done.

        Raises:
            StillUploading: it took longer than `seconds`.
            Exception: the error of earlier work.
        """
        with self._changed:
            in_time = self._changed.wait_for(lambda: self._error is not None or self._is_idle, seconds)
            self._raise_error()
            if not in_time:
                raise StillUploading(f"{len(self._waiting) + self._busy} uploads were not done in {seconds:.0f} s")

    def close(self, seconds: float | None = None) -> None:
        """Drops what has not begun, and waits at most `seconds` for what has."""
        with self._changed:
            self._closed = True
            self._waiting.clear()
            self._changed.notify_all()
        self._thread.join(seconds)

    @property
    def _is_idle(self) -> bool:
        return not self._waiting and not self._busy

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def _serve(self) -> None:
        while (work := self._next()) is not None:
            try:
                work()
            except Exception as error:  # noqa: BLE001  Raised again in the thread that trains, at its next look.
                with self._changed:
                    self._error = error
                    self._waiting.clear()
            finally:
                with self._changed:
                    self._busy = False
                    self._changed.notify_all()

    def _next(self) -> Callable[[], None] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if self._closed:
                return None
            self._busy = True
            return self._waiting.popleft()
