"""Results in a folder of this machine or of a mounted claim (`file://`, `pvc://`)."""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import BinaryIO

from lora_trainer.errors import StorageUnavailable
from lora_trainer.storage.disk_errors import disk_errors
from lora_trainer.storage.source import OnBytes
from lora_trainer.storage.store import ABSENT, Changed, DamagedFile, MissingFile, Version, Versioned
from lora_trainer.storage.uris import join_uri

_PARTIAL = ".partial-"
_LOCK = ".partial-lock"


class DirectoryStore:
    """A Store in the folder `root`; files appear under their name only when they are complete."""

    def __init__(self, root: Path, uri: str, *, on_bytes: OnBytes) -> None:
        self._root = root
        self._uri = uri
        self._on_bytes = on_bytes

    def uri_of(self, key: str) -> str:
        """The full URI of a key."""
        return join_uri(self._uri, key)

    def put_file(self, path: Path, key: str, *, sha256: str) -> None:
        """Copies a file and checks its digest on the way."""
        digest = hashlib.sha256()
        with self._replacing(key) as target, path.open("rb") as source:
            while chunk := source.read(1 << 20):
                digest.update(chunk)
                target.write(chunk)
                self._on_bytes(len(chunk))
            if digest.hexdigest() != sha256:
                raise StorageUnavailable(f"{path} was changed while it was stored")

    def put_bytes(self, data: bytes, key: str, *, only_if: Version | None = None) -> None:
        """Writes `data` to a file of its own and renames it; a condition is checked and kept under a lock."""
        if only_if is None:
            self._write(data, key)
        else:
            with self._locked():
                if self._version(key) != only_if:
                    raise Changed(self.uri_of(key))
                self._write(data, key)
        self._on_bytes(len(data))

    def get_bytes(self, key: str) -> bytes:
        """The content of a file. Raises MissingFile."""
        try:
            return (self._root / key).read_bytes()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise MissingFile(self.uri_of(key)) from error
        except OSError as error:
            raise StorageUnavailable(f"{self.uri_of(key)} cannot be read: {error.strerror}") from error

    def get_versioned(self, key: str) -> Versioned:
        """The content of a file with its digest as the version. Raises MissingFile."""
        content = self.get_bytes(key)
        return Versioned(content, Version(hashlib.sha256(content).hexdigest()))

    def get_file(self, key: str, target: Path, *, sha256: str) -> None:
        """Copies a file to `target` and checks its digest."""
        data_path = self._root / key
        if not data_path.is_file():
            raise MissingFile(self.uri_of(key))
        with disk_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(data_path, target)
            with target.open("rb") as copy:
                digest = hashlib.file_digest(copy, "sha256").hexdigest()
        if digest != sha256:
            target.unlink()
            raise DamagedFile(f"{self.uri_of(key)} is damaged: its SHA-256 is not that of the manifest")

    def list(self, prefix: str = "") -> list[str]:
        """Keys that begin with `prefix`, ascending; unfinished files are none."""
        keys: list[str] = []
        try:
            for folder, _, names in os.walk(self._root / prefix.rpartition("/")[0], onerror=_unless_gone):
                files = (Path(folder, name) for name in names if not name.startswith(_PARTIAL))
                keys += [path.relative_to(self._root).as_posix() for path in files]
        except OSError as error:
            raise StorageUnavailable(f"{self.uri_of(prefix)} cannot be listed: {error.strerror}") from error
        return sorted(key for key in keys if key.startswith(prefix))

    def delete(self, key: str) -> None:
        """Removes a file, and the folders that this leaves empty."""
        path = self._root / key
        with disk_errors(path):
            path.unlink(missing_ok=True)
            for folder in path.parents:
                if folder == self._root or not folder.is_dir() or any(folder.iterdir()):
                    break
                folder.rmdir()

    def discard_unfinished(self, folders: tuple[str, ...]) -> int:
        """Removes half-written files below these folders."""
        with self._locked(), disk_errors(self._root):
            found = [path for folder in folders for path in (self._root / folder).rglob(f"{_PARTIAL}*")]
            for path in found:
                path.unlink(missing_ok=True)
        return len(found)

    def _write(self, data: bytes, key: str) -> None:
        with self._replacing(key) as target:
            target.write(data)

    def _version(self, key: str) -> Version:
        try:
            return self.get_versioned(key).version
        except MissingFile:
            return ABSENT

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Lets one process at a time write with a condition."""
        path = self._root / _LOCK
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = path.open("ab")
            with lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield

    @contextmanager
    def _replacing(self, key: str) -> Iterator[BinaryIO]:
        """A new file that takes the place of `key` when all went well, and vanishes otherwise."""
        path = self._root / key
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with NamedTemporaryFile(dir=path.parent, prefix=_PARTIAL, delete=False) as file:
                partial = Path(file.name)
                try:
                    yield file  # type: ignore[misc]
                    file.flush()
                    os.fsync(file.fileno())
                    partial.chmod(0o644)
                    partial.replace(path)
                finally:
                    partial.unlink(missing_ok=True)


def _unless_gone(error: OSError) -> None:
    """A folder that another process removes meanwhile holds nothing; one that cannot be read may hold anything."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error
