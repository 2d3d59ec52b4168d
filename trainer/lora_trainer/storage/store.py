"""Where results go: what every store can do. Keys are relative to `output.uri`, with `/`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, NewType, Protocol
from uuid import uuid4

from lora_trainer.errors import StorageUnavailable

_PROBE = ".write-check"

Version = NewType("Version", str)
"""Names one content of a key; another content has another version. Only for comparing."""
ABSENT: Final = Version("")
"""The version of a key that holds nothing."""


@dataclass(frozen=True)
class Versioned:
    """The content of a small file and which version of it that is."""

    content: bytes
    version: Version


class MissingFile(LookupError):
    """The store has no file of that key."""


class DamagedFile(StorageUnavailable):
    """What the store holds under a key is not what was put there."""


class Changed(Exception):
    """The key no longer holds what was to be replaced: another writer came first, and nothing was written."""


class Store(Protocol):
    """A folder in an object store or on a volume. Every method may raise AccessDenied or StorageUnavailable."""

    def uri_of(self, key: str) -> str:
        """The full URI of a key, for messages and the status."""
        ...

    def put_file(self, path: Path, key: str, *, sha256: str) -> None:
        """Stores a file of this digest; afterwards the key holds all of it, or what it held before."""
        ...

    def put_bytes(self, data: bytes, key: str, *, only_if: Version | None = None) -> None:
        """Stores `data`, all or nothing; with `only_if`, only in the place of that version. Raises Changed."""
        ...

    def get_bytes(self, key: str) -> bytes:
        """The content of a small file. Raises MissingFile."""
        ...

    def get_versioned(self, key: str) -> Versioned:
        """The content of a small file and its version, for `put_bytes(only_if=…)`. Raises MissingFile."""
        ...

    def get_file(self, key: str, target: Path, *, sha256: str) -> None:
        """Fetches a file and checks its digest. Raises MissingFile, DamagedFile."""
        ...

    def list(self, prefix: str = "") -> list[str]:
        """Keys that begin with `prefix`, ascending."""
        ...

    def delete(self, key: str) -> None:
        """Removes a file; one that is not there is no error."""
        ...

    def discard_unfinished(self, folders: tuple[str, ...]) -> int:
        """Removes what killed processes left of uploads below these folders (`state/`); gives how many there were."""
        ...


def check_writable(store: Store) -> None:
    """Writes, reads back and deletes a probe, so that a wrong bucket or key is found before the training."""
    # A name of its own: another start at the same output may delete its probe between these lines.
    probe = f"{_PROBE}-{uuid4().hex}"
    store.put_bytes(b"probe", probe)
    store.get_bytes(probe)
    store.delete(probe)
