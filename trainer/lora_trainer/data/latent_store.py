"""Latents as files, one each under the digest of everything it depends on; on disk, and in a store behind it.

Used by `latents`, and by `assembly`, which removes what no training uses any more. The store is passed in: this module
knows neither S3 nor credentials.
"""

import contextlib
import hashlib
import logging
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from lora_trainer.errors import StorageUnavailable

_UNFINISHED = ".new-"
_CHECKSUM = "sha256"
"""The only entry of a file's metadata: safetensors writes several in a different order every time."""

_DAY_SECONDS = 86400
UNUSED_DAYS = 30
"""Latents that no training read for so long are removed. Far more than an epoch takes: within each, a training reads
all of its own."""

logger = logging.getLogger(__name__)


class LatentBackend(Protocol):
    """A place that outlives the pod. Its errors end the training: they are those of the store."""

    def get(self, key: str) -> bytes | None:
        """The file of that name, or None."""
        ...

    def put(self, key: str, data: bytes) -> None:
        """Keeps a file; called from several threads."""
        ...


class DamagedLatent(ValueError):
    """A file that is not what was written."""


class LatentFiles:
    """Latents by key, below a folder, and in `backend` if one is given; safe to use from several threads."""

    def __init__(self, folder: Path, backend: LatentBackend | None = None) -> None:
        self._folder, self._backend = folder, backend

    def get(self, key: str) -> Tensor | None:
        """The latent of that key, verified; None when it is nowhere, or damaged, which is logged."""
        path = self._path(key)
        if path.is_file():
            latent = _verified(path, key)
            if latent is not None:
                _note_use(path)
                return latent
        data = self._backend.get(_name(key)) if self._backend is not None else None
        if data is None:
            return None
        self._write(path, data)
        return _verified(path, key)

    def put(self, key: str, latent: Tensor) -> None:
        """Keeps a latent (C, h, w), fp32; a reader sees the whole file or none. Raises StorageUnavailable."""
        data = save({"latent": latent.contiguous()}, metadata={_CHECKSUM: _digest(key, latent)})
        self._write(self._path(key), data)
        if self._backend is not None:
            self._backend.put(_name(key), data)

    def _path(self, key: str) -> Path:
        return self._folder / _name(key)

    def _write(self, path: Path, data: bytes) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _replace(path, data)
        except OSError as error:
            raise StorageUnavailable(
                f"the latent cache in {self._folder} cannot be written ({error.strerror})",
                hint="Give the work directory more room, or set spec.dataset.latentCache to Memory.",
            ) from error


def remove_unused(folder: Path, *, on_folder: Callable[[], None]) -> int:
    """Removes the latents anywhere below `folder` that no training used for `UNUSED_DAYS`; gives how many.

    Safe beside other trainings: one that misses a latent encodes it again. `on_folder` is called before each folder;
    what it raises ends the removal. What cannot be removed stays.
    """
    oldest, removed = time.time() - UNUSED_DAYS * _DAY_SECONDS, 0
    for shelf in folder.glob("*/??"):
        on_folder()
        for path in (*shelf.glob("*.safetensors"), *shelf.glob(f"{_UNFINISHED}*")):
            # Another training may be removing the same.
            with contextlib.suppress(OSError):
                if path.stat().st_mtime < oldest:
                    path.unlink()
                    removed += 1
    return removed


def _note_use(path: Path) -> None:
    """Makes a file new again; once a day, for reading is far more frequent."""
    with contextlib.suppress(OSError):
        if path.stat().st_mtime < time.time() - _DAY_SECONDS:
            os.utime(path)


def _replace(path: Path, data: bytes) -> None:
    """Writes all of a file or nothing, whoever else writes the same one."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=_UNFINISHED)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        Path(name).replace(path)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise


def _name(key: str) -> str:
    return f"{key[:2]}/{key}.safetensors"


def _verified(path: Path, key: str) -> Tensor | None:
    try:
        return _read(path, key)
    except (DamagedLatent, SafetensorError, OSError, KeyError) as error:
        logger.warning("the cached latent %s is damaged (%s); its picture is encoded again", path.name, error)
        return None


def _read(path: Path, key: str) -> Tensor:
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        # A copy: the tensor that is given lies in the file, which another process may replace or damage.
        latent: Tensor = file.get_tensor("latent").clone()
    if metadata.get(_CHECKSUM) != _digest(key, latent):
        raise DamagedLatent("its checksum does not fit")
    return latent


def _digest(key: str, latent: Tensor) -> str:
    """SHA-256 over the key as well, so that a file under another's name does not pass."""
    return hashlib.sha256(key.encode() + latent.contiguous().to(torch.float32).numpy().tobytes()).hexdigest()
