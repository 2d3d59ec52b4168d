"""What was already fetched into a folder, so that a second start fetches only what is missing."""

import fcntl
import json
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

from lora_trainer.storage.disk_errors import disk_errors


@dataclass(frozen=True)
class FetchedFile:
    """One file as the store described it when it was fetched."""

    path: str
    """Relative to the folder, with `/`."""
    size_bytes: int
    etag: str


class Ledger:
    """Lies beside the folder as `<folder>.fetched.jsonl`, one line a file, in the order of their arrival."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder.with_name(folder.name + ".fetched.jsonl")

    def exists(self) -> bool:
        """Whether the folder was ever fetched into."""
        return self._path.exists()

    @contextmanager
    def locked(self, wait: Callable[[], None]) -> Iterator[None]:
        """Makes the ledger if there is none, and keeps other processes from fetching into the folder meanwhile.

        `wait` is called again and again while another process has it; what it raises ends the waiting.
        """
        with disk_errors(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            lock = self._path.open("a", encoding="utf-8")
        with lock:
            while not _lock(lock):
                wait()
            yield

    def remove(self) -> None:
        """Forgets everything."""
        self._path.unlink(missing_ok=True)

    def add(self, file: FetchedFile) -> None:
        """Notes that a file lies complete in the folder."""
        with disk_errors(self._path), self._path.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(asdict(file), ensure_ascii=False) + "\n")

    def present(self) -> set[FetchedFile]:
        """The files that were fetched and still lie there with their size."""
        newest = {file.path: file for line in self._lines() if (file := _parse(line))}
        return {file for file in newest.values() if self._lies_there(file)}

    def _lines(self) -> list[str]:
        try:
            return self._path.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            # Nothing was fetched yet, or another process has just removed a content that nobody reads.
            return []

    def _lies_there(self, file: FetchedFile) -> bool:
        try:
            found = (self._folder / file.path).stat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        return stat.S_ISREG(found.st_mode) and found.st_size == file.size_bytes


def _lock(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _parse(line: str) -> FetchedFile | None:
    """The file of a line; None for the half line that a killed process may leave."""
    try:
        return FetchedFile(**json.loads(line))
    except (ValueError, TypeError):
        return None
