"""Local copies of what a URI named at different times, which other processes may be reading. Used by the fetchers.

Each content has a folder of its own that only ever grows until it is whole, so nothing changes under a reader. Files
that two contents share are one file on the disk. A content that nobody reads any more is removed when a new one came.
"""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from lora_trainer.errors import InvalidConfiguration
from lora_trainer.storage.disk_errors import disk_errors
from lora_trainer.storage.ledger import FetchedFile, Ledger

_IN_USE = ".in-use"


class LocalCopy:
    """The folder `name` below `place` (which belongs to one URI), beside its ledger and its unfinished files."""

    def __init__(self, place: Path, name: str) -> None:
        self._place, self._name = place, name
        self.folder = place / name
        self.partial = place / f"{name}.partial"
        self.ledger = Ledger(self.folder)

    def hold(self) -> None:
        """Keeps the folder from being removed until this process ends."""
        path = self._place / f"{self._name}{_IN_USE}"
        with disk_errors(path):
            self._place.mkdir(parents=True, exist_ok=True)
            # Never closed: the lock is to end with the process.
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            fcntl.flock(descriptor, fcntl.LOCK_SH)

    def refuse_foreign(self) -> None:
        """Raises InvalidConfiguration when the folder holds files that were not fetched."""
        if not self.ledger.exists() and self.folder.is_dir() and any(self.folder.iterdir()):
            raise InvalidConfiguration(f"{self.folder} holds files that were not fetched; choose another folder")

    def adopt(self, files: Iterable[FetchedFile]) -> set[FetchedFile]:
        """Shares files with the other contents of the place; which ones it found there."""
        wanted = set(files)
        found = set()
        for other in self._others():
            for file in wanted & other.ledger.present():
                if self._link(other.folder / file.path, self.folder / file.path):
                    self.ledger.add(file)
                    found.add(file)
            wanted -= found
        return found

    def remove_unused(self) -> None:
        """Removes every other content of the place that no process holds."""
        for other in self._others():
            lock = self._place / f"{other._name}{_IN_USE}"
            with contextlib.suppress(OSError), lock.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                other.ledger.remove()
                shutil.rmtree(other.folder, ignore_errors=True)
                shutil.rmtree(other.partial, ignore_errors=True)

    def _others(self) -> list["LocalCopy"]:
        names = sorted(path.name.removesuffix(_IN_USE) for path in self._place.glob(f"*{_IN_USE}"))
        return [LocalCopy(self._place, name) for name in names if name != self._name]

    @staticmethod
    def _link(source: Path, target: Path) -> bool:
        """Whether the file could be shared: it may be gone, or the disk may know no hard links."""
        with contextlib.suppress(OSError):
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(source, target)
        return target.exists()
