"""Ends a process that hangs, and one that was told to stop and does not. Started by the commands; knows nobody.

It looks on from a thread of its own, so that a main thread that waits in C code for a disk or a network does not
matter. If it cannot look because such code holds the interpreter as well, a timer of C ends the process.
"""

import faulthandler
import logging
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from lora_api.exit_codes import ExitCode

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0
_LOOKS_A_PATIENCE = 4
_LAST_RESORT_SECONDS = 60.0
"""After the watchdog itself should have ended the process."""
_SHOWN_FRAMES = 3
_OURS = str(Path(__file__).parent)


@dataclass(frozen=True)
class Watched:
    """What the watchdog asks, and whom it tells; all of it is called in its thread."""

    silence_seconds: Callable[[], float]
    """Time since the last sign of life."""
    patience_seconds: Callable[[], float]
    """Silence for longer is told; for twice as long it ends the process."""
    is_overdue: Callable[[], bool]
    """Whether the process was told to stop and its time is up."""
    on_silence: Callable[[str], None]
    """Told once each time that it falls silent, with a sentence."""
    on_end: Callable[[ExitCode, str], None]
    """Leaves the last word before the process ends: exit code and a sentence."""


class Watchdog:
    """Looks at a process every second."""

    def __init__(self, watched: Watched, *, end: Callable[[int], object] = os._exit) -> None:
        """`end` ends the process at once with an exit code: nothing can be tidied up, as the main thread hangs."""
        self._watched, self._end = watched, end
        self._told = False

    def look(self) -> None:
        """Tells of silence, ends the process when it lasts; ends it when its time is up."""
        watched = self._watched
        if watched.is_overdue():
            self._finish(ExitCode.INTERRUPTED_UNSAVED, f"told to stop, but did not in time; it was in {where()}")
            return
        silence, patience = watched.silence_seconds(), watched.patience_seconds()
        if silence <= patience:
            self._told = False
            return
        sentence = f"no sign of life for {silence:.0f} s, in {where()}"
        if not self._told:
            self._told = True
            logger.error("%s; the stacks of all threads:\n%s", sentence, stacks())
            watched.on_silence(sentence)
        elif silence > 2 * patience:
            # Not at the first look: a process that was frozen as a whole gets a second to go on.
            self._finish(ExitCode.STALLED, sentence)

    def _finish(self, code: ExitCode, sentence: str) -> None:
        logger.error("%s; ending with exit code %s; the stacks of all threads:\n%s", sentence, int(code), stacks())
        # Whatever becomes of the last word, the process has to end: it holds a GPU.
        try:
            self._watched.on_end(code, sentence)
        finally:
            self._end(int(code))


@contextmanager
def watching(watched: Watched, *, errors: TextIO | None = None) -> Iterator[None]:
    """Has the process watched, and crashes of native code told on `errors` (default: the real stderr)."""
    watchdog, done = Watchdog(watched), threading.Event()
    file = errors or sys.__stderr__

    def watch() -> None:
        while not done.wait(min(_LOOK_SECONDS, watched.patience_seconds() / _LOOKS_A_PATIENCE)):
            watchdog.look()
            if file is not None:
                # Comes true only if nobody looks again: this thread then waits for the interpreter in vain.
                faulthandler.dump_traceback_later(
                    2 * watched.patience_seconds() + _LAST_RESORT_SECONDS, exit=True, file=file
                )

    was_enabled = faulthandler.is_enabled()
    if file is not None and not was_enabled:
        faulthandler.enable(file)
    thread = threading.Thread(target=watch, name="watchdog", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        faulthandler.cancel_dump_traceback_later()
        if not was_enabled:
            faulthandler.disable()


def where() -> str:
    """The innermost frames of the main thread and the innermost of ours: `wait (threading.py:320) < …`."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    frames = list(reversed(traceback.extract_stack(frame))) if frame else []
    ours = [entry for entry in frames[_SHOWN_FRAMES:] if _OURS in entry.filename]
    shown = [*frames[:_SHOWN_FRAMES], *ours[:1]]
    return " < ".join(f"{f.name} ({Path(f.filename).name}:{f.lineno})" for f in shown) or "?"


def stacks() -> str:
    """What every thread is doing, most recent call last."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    parts = []
    for ident, frame in sys._current_frames().items():
        lines = "".join(traceback.format_stack(frame))
        parts.append(f"Thread {names.get(ident, ident)}:\n{lines}")
    return "\n".join(parts)
