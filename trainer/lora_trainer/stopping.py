"""Whether the process was told to stop, and how long it may still take. Set by `lora run`; read all over the run."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

_MARGIN_SECONDS = 3.0
"""Left for ending the process itself."""


class StopRequested(Exception):
    """Raised between two batches, two files or two denoising steps, after the process was told to stop."""


@dataclass
class StopSignal:
    """Turned on once, by a signal handler; asked from any thread."""

    grace_seconds: float | None = None
    """How long the process lives after it was told to stop; None: as long as it wants."""
    clock: Callable[[], float] = time.monotonic
    _told_at: float | None = field(default=None, init=False)

    def tell(self) -> None:
        """Tells the process to stop; the time left begins to run with the first call."""
        if self._told_at is None:
            self._told_at = self.clock()

    def __call__(self) -> bool:
        """Whether the process was told to stop."""
        return self._told_at is not None

    def check(self) -> None:
        """Raises StopRequested when the process was told to stop."""
        if self():
            raise StopRequested

    def seconds_left(self) -> float | None:
        """Time that is left for saving; None: no limit."""
        if self._told_at is None or self.grace_seconds is None:
            return None
        return max(0.0, self._told_at + self.grace_seconds - _MARGIN_SECONDS - self.clock())
