"""A process that hangs is told of, then ended; so is one that was told to stop and does not."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lora_api import ExitCode, TerminationMessage, names
from lora_trainer.watchdog import Watchdog, Watched, stacks, watching, where


class Process:
    """A process as the watchdog sees it, moved by the tests."""

    def __init__(self) -> None:
        self.silence, self.patience, self.overdue = 0.0, 10.0, False
        self.told: list[str] = []
        self.words: list[tuple[ExitCode, str]] = []
        self.codes: list[int] = []
        watched = Watched(
            lambda: self.silence,
            lambda: self.patience,
            lambda: self.overdue,
            self.told.append,
            lambda code, sentence: self.words.append((code, sentence)),
        )
        self.watchdog = Watchdog(watched, end=self.codes.append)

    def look_after(self, silence: float) -> None:
        self.silence = silence
        self.watchdog.look()


@pytest.fixture
def process() -> Process:
    return Process()


def test_silence_within_patience_is_not_remarked_upon(process: Process) -> None:
    process.look_after(10.0)

    assert (process.told, process.codes) == ([], [])


def test_a_longer_silence_is_told_once_with_the_place(process: Process) -> None:
    for silence in (11.0, 12.0, 19.0):
        process.look_after(silence)

    assert len(process.told) == 1
    assert process.told[0].startswith("no sign of life for 11 s, in ") and "test_watchdog.py" in process.told[0]
    assert process.codes == []


def test_the_stacks_of_all_threads_are_logged(process: Process, caplog: pytest.LogCaptureFixture) -> None:
    done = threading.Event()
    thread = threading.Thread(target=done.wait, name="stuck-loader")
    thread.start()
    try:
        process.look_after(11.0)
    finally:
        done.set()
        thread.join()

    assert "Thread stuck-loader:" in caplog.text and "test_the_stacks_of_all_threads_are_logged" in caplog.text


def test_a_silence_that_ends_and_begins_again_is_told_again(process: Process) -> None:
    for silence in (11.0, 1.0, 11.0):
        process.look_after(silence)

    assert len(process.told) == 2


def test_silence_of_twice_the_patience_ends_the_process_as_stalled(process: Process) -> None:
    for silence in (11.0, 20.0, 21.0):
        process.look_after(silence)

    assert process.codes == [72]
    assert process.words[0][0] is ExitCode.STALLED
    assert process.words[0][1].startswith("no sign of life for 21 s, in ")


def test_a_process_that_was_frozen_as_a_whole_gets_a_second_look(process: Process) -> None:
    process.look_after(1000.0)
    ended_at_first = list(process.codes)
    process.look_after(0.5)

    assert (ended_at_first, process.codes) == ([], [])


def test_who_was_told_to_stop_and_does_not_is_ended_as_unsaved(process: Process) -> None:
    process.overdue = True

    process.look_after(0.0)

    assert process.codes == [76]
    assert process.words[0][1].startswith("told to stop, but did not in time; it was in ")


def test_a_last_word_that_fails_does_not_keep_the_process(process: Process) -> None:
    def fail(code: ExitCode, sentence: str) -> None:
        raise OSError("no space left")

    watched = Watched(lambda: 0.0, lambda: 1.0, lambda: True, process.told.append, fail)
    with pytest.raises(OSError, match="no space"):
        Watchdog(watched, end=process.codes.append).look()

    assert process.codes == [76]


def test_the_place_is_told_from_the_inside_out() -> None:
    assert where().split(" < ")[0].startswith("where (watchdog.py:")
    assert where().split(" < ")[1].startswith("test_the_place_is_told_from_the_inside_out (test_watchdog.py:")


def test_stacks_name_the_main_thread() -> None:
    assert "Thread MainThread:" in stacks()


def test_watching_ends_with_its_context() -> None:
    watched = Watched(lambda: 0.0, lambda: 1.0, lambda: False, lambda _: None, lambda *_: None)
    with watching(watched):
        during = [thread.name for thread in threading.enumerate()]

    assert "watchdog" in during
    assert "watchdog" not in [thread.name for thread in threading.enumerate()]


STUCK = """
import sys
from pathlib import Path
from lora_trainer.commands.session import open_surroundings

with open_surroundings(work_dir=Path(sys.argv[1]), serve_progress=False) as here:
    here.tracker.set_stall_seconds(0.2)
    here.tracker.set_reason("Downloading")
    {hang}
"""
HANGS = {
    "a disk that does not answer": "open(sys.argv[2]).read()",
    "C code that waits": "import ctypes; ctypes.CDLL(None).pause()",
}


@pytest.mark.parametrize("hang", HANGS.values(), ids=HANGS)
def test_a_real_process_that_hangs_ends_with_72_and_says_where(hang: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "never")
    word = tmp_path / "last-word"

    process = subprocess.run(
        [sys.executable, "-c", STUCK.format(hang=hang), tmp_path / "work", tmp_path / "never"],
        env=os.environ | {names.ENV_TERMINATION_LOG: str(word)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    message = TerminationMessage.model_validate_json(word.read_bytes())
    log = (tmp_path / "work" / "logs" / "attempt.log").read_text()
    assert process.returncode == message.exit_code == 72, process.stderr
    assert message.reason == "Stalled" and "<module> (<string>:" in message.message
    assert message.notices[0].message.startswith("Downloading: no sign of life")
    assert "Thread MainThread:" in log and "ending with exit code 72" in log
    assert message.log_tail


def test_a_real_process_that_cannot_stop_in_time_ends_with_76_before_it_is_killed(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "never")
    word = tmp_path / "last-word"
    told_then_stuck = STUCK.format(hang="import signal; signal.raise_signal(15); open(sys.argv[2]).read()")

    process = subprocess.run(
        [sys.executable, "-c", told_then_stuck.replace("0.2", "60"), tmp_path / "work", tmp_path / "never"],
        env=os.environ | {names.ENV_TERMINATION_LOG: str(word), names.ENV_GRACE_SECONDS: "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    message = TerminationMessage.model_validate_json(word.read_bytes())
    assert process.returncode == message.exit_code == 76, process.stderr
    assert message.reason == "InterruptedUnsaved"
    assert message.message.startswith("told to stop, but did not in time; it was in ")


def test_code_that_holds_the_interpreter_cannot_keep_the_process(tmp_path: Path) -> None:
    """PyDLL keeps the lock of the interpreter: no other Python thread runs meanwhile."""
    program = (
        "import ctypes, faulthandler, sys\n"
        "from lora_trainer import watchdog\n"
        "watchdog._LAST_RESORT_SECONDS = 0.2\n"
        "watched = watchdog.Watched(lambda: 0.0, lambda: 0.2, lambda: False, print, print)\n"
        "import time\n"
        "with watchdog.watching(watched):\n"
        "    time.sleep(0.2)\n"
        "    ctypes.PyDLL(None).pause()\n"
    )

    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)

    assert process.returncode == 1
    assert "Timeout" in process.stderr and "<module>" in process.stderr
    assert "in watch" in process.stderr
