"""Whether the process was told to stop, and how long it may still take. Set by `lora run`; read all over the run."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

_MARGIN_SECONDS = 3.0
"""Left for ending the process itself."""
_LAST_SECONDS = 1.0
"""Before the end of the grace period: what is not done by then will not be."""
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequested(Exception):
    """Raised between two batches, two files or two denoising steps, after the process was told to stop."""


@dataclass
class StopSignal:
    """Turned on once, by a signal handler; asked from any thread."""

    grace_seconds: float | None = None
    """How long the process lives after it was told to stop; None: as long as it wants."""
    clock: Callable[[], float] = time.monotonic
    _told_at: float | None = field(default=None, init=False)
    _raises: bool = field(default=False, init=False)

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
        left = self._grace_left()
        return None if left is None else max(0.0, left - _MARGIN_SECONDS)

    def is_overdue(self) -> bool:
        """Whether the grace period is as good as over: who does not end now is killed."""
        left = self._grace_left()
        return left is not None and left <= _LAST_SECONDS

    def handle(self, number: int, _: FrameType | None) -> None:
        """A signal handler. It neither logs nor locks: it may run in the middle of either."""
        if self() and number == signal.SIGINT:
            # Whoever presses Ctrl-C twice does not want to wait for the state to be saved.
            raise KeyboardInterrupt
        self.tell()
        if self._raises:
            raise StopRequested

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Lets a signal raise StopRequested itself: for imports, which take long, cannot ask, and have nothing to lose.

        Raises:
            StopRequested: at the latest when the context ends, should a library have swallowed or renamed it.
        """
        self.check()
        self._raises = True
        try:
            yield
        except Exception as error:
            if self():
                raise StopRequested from error
            raise
        finally:
            self._raises = False
        self.check()

    def _grace_left(self) -> float | None:
        if self._told_at is None or self.grace_seconds is None:
            return None
        return self._told_at + self.grace_seconds - self.clock()


def catch_signals() -> StopSignal:
    """Lets SIGTERM and SIGINT tell a StopSignal from now on; gives the same one again if they do already."""
    owner = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    if isinstance(owner, StopSignal):
        return owner
    stop = StopSignal()
    for number in _SIGNALS:
        signal.signal(number, stop.handle)
    return stop


@contextmanager
def listening(grace_seconds: float | None = None) -> Iterator[StopSignal]:
    """The StopSignal that SIGTERM and SIGINT tell; afterwards they do what they did before."""
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    stop = catch_signals()
    stop.grace_seconds = grace_seconds
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
