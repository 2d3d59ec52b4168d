"""Errors of the local disk, in words that say what to do. Used wherever files are written."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lora_trainer.errors import StorageUnavailable


class DiskUnavailable(StorageUnavailable):
    """The disk of this machine failed: asking the store again does not help."""


_FULL = {errno.ENOSPC, errno.EDQUOT}


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turns an OSError while `path` is written into DiskUnavailable."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise DiskUnavailable(
                f"the disk is full: {path} cannot be written",
                hint="Free space there, or give the pod more ephemeral storage (spec.pod.resources).",
            ) from error
        raise DiskUnavailable(
            f"{path} cannot be written: {error.strerror or error}", hint="Check the volume and its permissions."
        ) from error
