"""The log of an attempt: everything, within bounds, without secrets."""

import logging
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from lora_trainer.errors import Interrupted
from lora_trainer.run_log import RunLog, is_for_the_file_only, logging_to, record_failure

SECRET = "wJalrXUtnFEMI+K7MDENG"
logger = logging.getLogger("lora_trainer.test")
Opened = Callable[..., AbstractContextManager[RunLog]]


@pytest.fixture
def opened(tmp_path: Path) -> Opened:
    """Opens a log that gets everything from INFO on."""

    @contextmanager
    def open_log(**sizes: int) -> Iterator[RunLog]:
        log = RunLog(tmp_path / "logs" / "attempt.log", (SECRET,), **sizes)
        logging.getLogger("lora_trainer").setLevel(logging.INFO)
        with logging_to(log, (SECRET,)):
            yield log
        logging.getLogger("lora_trainer").setLevel(logging.NOTSET)

    return open_log


def fail() -> None:
    raise ZeroDivisionError("division by zero")


def caught() -> ZeroDivisionError:
    try:
        fail()
    except ZeroDivisionError as error:
        return error
    raise AssertionError


def test_a_record_says_when_how_bad_and_from_where(opened: Opened) -> None:
    with opened() as log:
        logger.info("step %s", 3)

    assert log.path.read_text().endswith(" INFO lora_trainer.test: step 3\n")


def test_warnings_of_libraries_are_in_it(opened: Opened) -> None:
    with opened() as log:
        warnings.warn("an old argument", UserWarning, stacklevel=1)

    assert "WARNING py.warnings" in log.path.read_text() and "an old argument" in log.path.read_text()


def test_the_end_of_a_thread_is_in_it(opened: Opened) -> None:
    with opened() as log:
        thread = threading.Thread(target=fail, name="loader")
        thread.start()
        thread.join()

    text = log.path.read_text()
    assert "thread loader ended" in text and "in fail" in text


def test_a_failure_is_written_once_with_its_traceback(opened: Opened) -> None:
    error = caught()
    with opened() as log:
        record_failure(error)
        record_failure(error)

    text = log.path.read_text()
    assert text.count("Traceback") == text.count("in fail") == 1
    assert text.endswith("ZeroDivisionError: division by zero\n")


def test_an_interruption_needs_no_traceback(opened: Opened) -> None:
    try:
        raise Interrupted("told to stop at step 3")
    except Interrupted as error:
        interruption = error
    with opened() as log:
        record_failure(interruption)
        record_failure(interruption)

    text = log.path.read_text()
    assert text.count("Interrupted: told to stop at step 3\n") == 1
    assert "Traceback" not in text


def test_a_failure_is_not_told_twice_to_who_watches_stderr(caplog: pytest.LogCaptureFixture) -> None:
    record_failure(caught())
    logger.error("something else")

    assert [is_for_the_file_only(record) for record in caplog.records] == [True, False]


def test_secrets_are_hidden_in_messages_arguments_and_tracebacks(
    opened: Opened, caplog: pytest.LogCaptureFixture
) -> None:
    with opened() as log:
        logger.warning("key %s", SECRET)
        logger.warning("GET https://host/b/k?X-Amz-Signature=5ec0de and hf_%s", "A1b2" * 8)
        try:
            raise ValueError(f"signed with {SECRET}")
        except ValueError as error:
            record_failure(error)

    text = log.path.read_text()
    assert not any(secret in text for secret in (SECRET, "5ec0de", "A1b2A1b2"))
    assert "key ***" in text and "signed with ***" in text


def test_other_handlers_hide_secrets_meanwhile(opened: Opened, capsys: pytest.CaptureFixture[str]) -> None:
    handler = logging.StreamHandler(sys.stderr)
    logging.getLogger().addHandler(handler)
    try:
        with opened():
            logger.warning("key %s", SECRET)
        logger.warning("afterwards")
    finally:
        logging.getLogger().removeHandler(handler)

    assert capsys.readouterr().err == "key ***\nafterwards\n"


def test_of_a_long_log_the_beginning_and_the_end_are_kept(opened: Opened) -> None:
    with opened(head_bytes=1000, tail_bytes=2000, slack_bytes=1000) as log:
        for number in range(1000):
            logger.info("line %s", number)

    lines = log.path.read_text().splitlines()
    numbers = [int(line.rpartition(" ")[2]) for line in lines if "bytes of the log" not in line]
    gaps = [(before, after) for before, after in pairwise(numbers) if after != before + 1]
    assert log.path.stat().st_size <= 4000
    assert numbers[0] == 0 and numbers[-1] == 999
    assert len(gaps) == 1 and len(numbers) == len(lines) - 1


def test_the_log_tells_how_much_it_left_out(opened: Opened) -> None:
    with opened(head_bytes=1000, tail_bytes=2000, slack_bytes=1000) as log:
        size = 0
        for number in range(1000):
            logger.info("line %s", number)
            size += len(log.format(logging.LogRecord("lora_trainer.test", 20, "", 0, f"line {number}", (), None))) + 1

    note = next(line for line in log.path.read_text().splitlines() if "bytes of the log" in line)
    left_out = int(note.split()[1])
    assert log.path.stat().st_size - len(note.encode()) - 1 + left_out == size


def test_the_tail_holds_whole_lines(opened: Opened) -> None:
    with opened() as log:
        for number in range(100):
            logger.info("Zeile %s – ü", number)
        tail = log.tail(200)

    assert len(tail) <= 200 and tail.endswith("Zeile 99 – ü\n")
    assert all(" INFO " in line for line in tail.splitlines())


def test_the_tail_can_do_without_the_traceback(opened: Opened) -> None:
    with opened() as log:
        logger.info("the last line")
        record_failure(caught())

        assert log.tail(2000, before_failure=True).endswith("the last line\n")
        assert log.tail(2000).endswith("ZeroDivisionError: division by zero\n")


def test_a_short_log_is_its_own_tail(opened: Opened) -> None:
    with opened() as log:
        logger.info("only this")

        assert log.tail(2000) == log.path.read_text()


def test_a_full_disk_does_not_end_the_training(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened() as log:
        full = Path("/dev/full").open("ab", buffering=0)  # noqa: SIM115 - closed with the log
        log._file.close()
        monkeypatch.setattr(log, "_file", full)

        logger.info("lost")


def test_a_second_process_gets_a_file_of_its_own(opened: Opened) -> None:
    with opened() as log:
        logger.info("of the first")
        program = "import sys, pathlib; from lora_trainer.run_log import RunLog; "
        program += "print(RunLog(pathlib.Path(sys.argv[1]), ()).path)"
        other = subprocess.run([sys.executable, "-c", program, log.path], capture_output=True, text=True, check=True)

        assert Path(other.stdout.strip()) != log.path
        assert "of the first" in log.path.read_text()
