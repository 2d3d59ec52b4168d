"""The log of one attempt as a file of bounded size, which is kept with the results. Opened by the commands."""

import fcntl
import logging
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path

from lora_api.exit_codes import outcome_of
from lora_api.redaction import redact
from lora_trainer.errors import TrainingError

_failures = logging.getLogger(__name__ + ".failures")

_FAILURE = "failure"
"""Attribute of a record: the error that it tells."""
_HEAD_BYTES = 1 << 20
_TAIL_BYTES = 3 << 20
_SLACK_BYTES = 2 << 20
"""How much more than head and tail is written before the middle goes."""
_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class RedactingFormatter(logging.Formatter):
    """What `inner` writes, without secrets: of messages, arguments and tracebacks alike."""

    def __init__(self, inner: logging.Formatter, secrets: Sequence[str]) -> None:
        """`secrets`: those that cannot be told by their form."""
        super().__init__()
        self._inner, self._secrets = inner, secrets

    def format(self, record: logging.LogRecord) -> str:
        """One entry of the log."""
        return redact(self._inner.format(record), self._secrets)


class RunLog(logging.Handler):
    """Writes every record to a file; of a long log the beginning and the end are kept."""

    def __init__(
        self,
        path: Path,
        secrets: Sequence[str],
        *,
        head_bytes: int = _HEAD_BYTES,
        tail_bytes: int = _TAIL_BYTES,
        slack_bytes: int = _SLACK_BYTES,
    ) -> None:
        """Begins the file at `path` anew, or one beside it if another process writes there.

        Raises:
            OSError: it cannot be written.
        """
        super().__init__()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = _open_alone(path)
        self.path = Path(os.fsdecode(self._file.name))
        self._head, self._tail, self._most = head_bytes, tail_bytes, head_bytes + tail_bytes + slack_bytes
        self._cut_bytes, self._note = 0, b""
        self._told: BaseException | None = None
        self._failed_at: int | None = None
        self.setFormatter(RedactingFormatter(logging.Formatter(_FORMAT), secrets))

    def emit(self, record: logging.LogRecord) -> None:
        """Writes a record; the traceback of a failure only once."""
        if record.name == _failures.name:
            failure = getattr(record, _FAILURE, None)
            if failure is self._told:
                return
            self._told, self._failed_at = failure, self._file.seek(0, os.SEEK_END)
        # A full disk must not end the training: the log is not the result.
        with suppress(OSError, ValueError):
            self._write(self.format(record) + "\n")

    def tail(self, characters: int, *, before_failure: bool = False) -> str:
        """The last whole lines of at most that many characters; those before the traceback, if they are wanted."""
        self.acquire()
        try:
            end = self._file.seek(0, os.SEEK_END)
            if before_failure and self._failed_at is not None:
                end = min(end, self._failed_at)
            begin = max(0, end - 4 * characters)
            with self.path.open("rb") as file:
                file.seek(begin)
                text = file.read(end - begin).decode(errors="replace")
        finally:
            self.release()
        if len(text) <= characters and begin == 0:
            return text
        last = text[-characters:]
        return last.partition("\n")[2] or last

    def close(self) -> None:
        """Closes the file, which stays."""
        self._file.close()
        super().close()

    def _write(self, text: str) -> None:
        self._file.write(text.encode(errors="replace"))
        if self._file.tell() > self._most:
            self._drop_middle()

    def _drop_middle(self) -> None:
        """Keeps the first and the last lines; in place, since others may hold the file open."""
        content = self.path.read_bytes()
        head_end = content.rfind(b"\n", 0, self._head) + 1
        tail_begin = content.find(b"\n", len(content) - self._tail) + 1
        self._cut_bytes += tail_begin - head_end - len(self._note)
        self._note = f"[… {self._cut_bytes} bytes of the log were left out here …]\n".encode()
        os.ftruncate(self._file.fileno(), head_end)
        self._file.write(self._note + content[tail_begin:])
        self._head = head_end


def _open_alone(path: Path) -> FileIO:
    """An empty file that is written without a buffer, so that nothing is lost with the process."""
    file = FileIO(path, "ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        file = FileIO(path.with_stem(f"{path.stem}-{os.getpid()}"), "ab")
    file.truncate(0)
    return file


def is_interruption(error: BaseException) -> bool:
    """Whether nobody has to do anything about what ended the run."""
    return isinstance(error, TrainingError) and outcome_of(error.exit_code).actor == "nobody"


def record_failure(error: BaseException) -> None:
    """Writes what ends the run into its log, once however often it is told, with the traceback if it is a failure.

    Not to stderr, where the commands tell it to people.
    """
    level, traceback = (logging.INFO, None) if is_interruption(error) else (logging.ERROR, error)
    _failures.log(level, "%s: %s", type(error).__name__, error, exc_info=traceback, extra={_FAILURE: error})


def is_for_the_file_only(record: logging.LogRecord) -> bool:
    """Whether people who watch stderr are told the same by other means."""
    return record.name == _failures.name


def speak_up_only_in_need(rank: int) -> None:
    """Leaves stderr to the first of several processes, which do the same; this one says what went wrong only.

    Its log has everything.
    """
    for handler in logging.getLogger().handlers:
        handler.setLevel(logging.WARNING)
        handler.setFormatter(logging.Formatter(f"process {rank}: {_FORMAT}"))


@contextmanager
def logging_to(log: RunLog, secrets: Sequence[str]) -> Iterator[None]:
    """Sends all records, warnings of libraries among them, also to `log`; no handler writes secrets meanwhile."""
    root = logging.getLogger()
    before = [(handler, handler.formatter) for handler in root.handlers]
    hook = threading.excepthook
    for handler, formatter in before:
        handler.setFormatter(RedactingFormatter(formatter or logging.Formatter(), secrets))
    root.addHandler(log)
    logging.captureWarnings(True)
    threading.excepthook = _record_thread_failure
    try:
        yield
    finally:
        threading.excepthook = hook
        logging.captureWarnings(False)
        root.removeHandler(log)
        for handler, formatter in before:
            handler.setFormatter(formatter)
        log.close()


def _record_thread_failure(failure: threading.ExceptHookArgs) -> None:
    if failure.exc_value is not None:
        name = failure.thread.name if failure.thread else "?"
        logging.getLogger(__name__).error("thread %s ended", name, exc_info=failure.exc_value)
