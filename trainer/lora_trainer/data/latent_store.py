"""Latents as files, one each under the digest of everything it depends on; on disk, and in a store behind it.

Used by `latents`. The store is passed in: this module knows neither S3 nor credentials.
"""

import hashlib
import logging
import os
import tempfile
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from lora_trainer.errors import StorageUnavailable

_CHECKSUM = "sha256"
"""The only entry of a file's metadata: safetensors writes several in a different order every time."""

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


def _replace(path: Path, data: bytes) -> None:
    """Writes all of a file or nothing, whoever else writes the same one."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".new-")
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
