"""Signs of life: when something last happened, and for how long nothing may happen before that is unusual.

Kept by `progress`, looked at by the watchdog. What is usual is measured for each kind of work by itself: a model
takes minutes to load without a word, a step seconds.
"""

import math
import time
from collections import deque
from collections.abc import Callable
from statistics import median

LEAST_PATIENCE_SECONDS = 900.0
"""Silence that is not remarked upon, whatever is being done."""
_LEAST_PATIENCE_OF = {"LoadingModel": 1800.0}
"""Work that says nothing in between."""
_USUAL_TIMES = 20
"""Patience in medians of the last gaps."""
_LONGEST_TIMES = 10
"""Patience in the longest gap that was seen to end."""
_KEPT_GAPS = 32


class _Gaps:
    """Times between two signs of life while the same kind of work was done."""

    def __init__(self) -> None:
        self._last: deque[float] = deque(maxlen=_KEPT_GAPS)
        self._longest = 0.0

    def add(self, seconds: float) -> None:
        self._last.append(seconds)
        self._longest = max(self._longest, seconds)

    def patience(self) -> float:
        usual = median(self._last) if self._last else 0.0
        return max(_USUAL_TIMES * usual, _LONGEST_TIMES * self._longest)


class Pulse:
    """Not safe for threads: whoever keeps it holds a lock."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.stall_seconds: float | None = None
        """What `limits.stallSeconds` says; None: found from what is usual."""
        self._clock = clock
        self._gaps: dict[str, _Gaps] = {}
        self._activity = ""
        self._last = clock()

    def begin(self, activity: str) -> None:
        """Says what is done from now on, such as `Downloading`; a sign of life itself."""
        self.beat()
        self._activity = activity

    def beat(self) -> None:
        """Notes that something happened."""
        now = self._clock()
        self._gaps.setdefault(self._activity, _Gaps()).add(now - self._last)
        self._last = now

    def silence_seconds(self) -> float:
        """Time since the last sign of life."""
        return self._clock() - self._last

    def patience_seconds(self) -> float:
        """Silence for longer than this is unusual for what is being done."""
        if self.stall_seconds is not None:
            return self.stall_seconds
        gaps = self._gaps.get(self._activity)
        least = _LEAST_PATIENCE_OF.get(self._activity, LEAST_PATIENCE_SECONDS)
        return math.ceil(max(least, gaps.patience() if gaps else 0.0))
