"""Puts results into the store so that a reader can trust them: every file with its digest, the manifest last."""

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from lora_api.run_manifest import MANIFEST_NAME, EvaluationManifest, FileKind, ManifestFile, RunManifest
from lora_trainer.errors import Superseded
from lora_trainer.storage.store import ABSENT, Changed, MissingFile, Store, Version

logger = logging.getLogger(__name__)


class UnreadableManifest(ValueError):
    """What lies at a manifest's place is none of ours."""


class Publisher:
    """Uploads the files of one folder of the store and remembers them for its manifest."""

    def __init__(self, store: Store, *, folder: str = "", check_owner: Callable[[], None] = lambda: None) -> None:
        """`folder` is relative to the store's root; `check_owner` (`Fence.check`) is asked before each upload."""
        self._store = store
        self._folder = folder
        self._check_owner = check_owner
        self._files: dict[str, ManifestFile] = {}

    @property
    def files(self) -> tuple[ManifestFile, ...]:
        """Everything that was published, in the order of the paths."""
        return tuple(self._files[path] for path in sorted(self._files))

    def restore(self, files: tuple[ManifestFile, ...]) -> None:
        """Takes over files that an earlier attempt published."""
        self._files |= {file.path: file for file in files}

    def uri_of(self, path: str) -> str:
        """The full URI of a file of this folder."""
        return self._store.uri_of(_key(self._folder, path))

    def publish(self, local: Path, description: ManifestFile) -> None:
        """Uploads `local` as `description.path`; make the description with `describe`. Raises as `Fence.check`."""
        self._check_owner()
        self._store.put_file(local, _key(self._folder, description.path), sha256=description.sha256)
        self._files[description.path] = description
        logger.info("stored %s (%s bytes)", self.uri_of(description.path), description.size_bytes)

    def publish_manifest(self, manifest: RunManifest | EvaluationManifest, *, name: str = MANIFEST_NAME) -> None:
        """Writes the manifest as `name`, after everything that it names.

        The fence is asked last, and the manifest replaces only what lay there before it was asked: a successor's
        manifest is never overwritten. What remains: a process that is frozen after the question and wakes before
        its successor wrote a manifest puts one of its own there, which the successor's replaces.

        Raises:
            Superseded: another process wrote a manifest there meanwhile.
            InvalidConfiguration, AccessDenied, StorageUnavailable: as `Fence.check` and the store.
        """
        unknown = [file.path for file in manifest.files if self._files.get(file.path) != file]
        assert not unknown, f"the manifest names files that were not published: {unknown}"
        data = manifest.model_dump_json(by_alias=True, exclude_none=True, indent=2).encode() + b"\n"
        key = _key(self._folder, name)
        before = _version(self._store, key)
        self._check_owner()
        try:
            self._store.put_bytes(data, key, only_if=before)
        except Changed as error:
            self._check_owner()
            raise Superseded(f"another process has just written {self._store.uri_of(key)}") from error


def describe(
    local: Path,
    path: str,
    kind: FileKind,
    *,
    epoch: int | None = None,
    step: int | None = None,
    loss: float | None = None,
) -> ManifestFile:
    """The manifest's entry for the file `local`, to be stored at `path` relative to the manifest."""
    with local.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    size = local.stat().st_size
    return ManifestFile(path=path, sha256=sha256, size_bytes=size, kind=kind, epoch=epoch, step=step, loss=loss)


def read_manifest(store: Store, *, folder: str = "") -> RunManifest | None:
    """The manifest of a folder of the store, None when it has none. Raises UnreadableManifest."""
    key = _key(folder, MANIFEST_NAME)
    try:
        return RunManifest.model_validate_json(store.get_bytes(key))
    except MissingFile:
        return None
    except ValidationError as error:
        raise UnreadableManifest(f"{store.uri_of(key)} is no manifest of a training") from error


def fetch_published(store: Store, manifest: RunManifest, target: Path, *, folder: str = "") -> None:
    """Fetches every file that `manifest` names to `target`, each checked against its digest.

    Raises:
        MissingFile, DamagedFile, StorageUnavailable: a file is gone, damaged, or the store does not answer.
    """
    for file in manifest.files:
        store.get_file(_key(folder, file.path), target / file.path, sha256=file.sha256)


def _version(store: Store, key: str) -> Version:
    try:
        return store.get_versioned(key).version
    except MissingFile:
        return ABSENT


def _key(folder: str, path: str) -> str:
    return f"{folder}/{path}" if folder else path
