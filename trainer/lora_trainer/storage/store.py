"""Where results go: what every store can do. Keys are relative to `output.uri`, with `/`."""

from pathlib import Path
from typing import Protocol

from lora_trainer.errors import StorageUnavailable

_PROBE = ".write-check"


class MissingFile(LookupError):
    """The store has no file of that key."""


class DamagedFile(StorageUnavailable):
    """What the store holds under a key is not what was put there."""


class Store(Protocol):
    """A folder in an object store or on a volume. Every method may raise AccessDenied or StorageUnavailable."""

    def uri_of(self, key: str) -> str:
        """The full URI of a key, for messages and the status."""
        ...

    def put_file(self, path: Path, key: str, *, sha256: str) -> None:
        """Stores a file of this digest; afterwards the key holds all of it, or what it held before."""
        ...

    def put_bytes(self, data: bytes, key: str) -> None:
        """Stores `data`, all or nothing."""
        ...

    def get_bytes(self, key: str) -> bytes:
        """The content of a small file. Raises MissingFile."""
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


def check_writable(store: Store) -> None:
    """Writes, reads back and deletes a probe, so that a wrong bucket or key is found before the training."""
    store.put_bytes(b"probe", _PROBE)
    store.get_bytes(_PROBE)
    store.delete(_PROBE)
