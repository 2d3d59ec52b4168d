"""What a run leaves at `output.uri`: adapters, pictures, states to resume from, and the manifest that ends it.

Used by `run`. A reader trusts only what a manifest names; so every manifest is written after its files.
"""

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from lora_api.run_manifest import MANIFEST_NAME, FileKind, ManifestFile, RunManifest
from lora_trainer.checkpoint import TrainingState, UnreadableState, read_state, write_state
from lora_trainer.errors import InvalidConfiguration
from lora_trainer.storage import (
    DamagedFile,
    MissingFile,
    Publisher,
    Store,
    UnreadableManifest,
    describe,
    fetch_published,
    read_manifest,
)
from lora_trainer.storage.disk_errors import disk_errors

logger = logging.getLogger(__name__)

STATES_KEPT = 2
METRICS_PATH = "evaluation/metrics.jsonl"
_STATE_FILE, _FILES_FILE, _METRICS_FILE = "training.pt", "files.json", "metrics.jsonl"


@dataclass(frozen=True)
class RunIdentity:
    """What makes two runs the same."""

    name: str
    spec_digest: str
    dataset_digest: str
    base_digest: str
    total_steps: int

    def matches(self, manifest: RunManifest) -> bool:
        """Whether `manifest` is of this run."""
        theirs = (manifest.spec_digest, manifest.dataset_digest, manifest.base_digest)
        return theirs == (self.spec_digest, self.dataset_digest, self.base_digest)


@dataclass(frozen=True)
class SavedState:
    """A state that an earlier attempt stored."""

    training: TrainingState
    files: tuple[ManifestFile, ...]
    """Everything that the run had published."""
    metrics: tuple[str, ...]
    """Lines of `metrics.jsonl`."""


class RunOutput:
    """The folder of one run in a store, and a local copy of what goes there."""

    def __init__(self, store: Store, identity: RunIdentity, *, attempt: int, folder: Path) -> None:
        """`folder` is an empty local folder of its own."""
        self._store, self._identity, self._attempt = store, identity, attempt
        self._folder = folder
        self._publisher = Publisher(store)

    @property
    def files(self) -> tuple[ManifestFile, ...]:
        """Everything that was published."""
        return self._publisher.files

    def take_over(self, manifest: RunManifest) -> None:
        """Counts what `manifest` names as published."""
        self._publisher.restore(manifest.files)

    def uri_of(self, path: str) -> str:
        """The full URI of a published file."""
        return self._publisher.uri_of(path)

    def completed(self) -> RunManifest | None:
        """The manifest of this very run if it has ended before.

        Raises:
            InvalidConfiguration: the folder holds another run, which is never overwritten.
        """
        place = "spec.output.uri already holds"
        cure = "choose another folder or remove it"
        try:
            manifest = read_manifest(self._store)
        except UnreadableManifest as error:
            raise InvalidConfiguration(f"{place} a {MANIFEST_NAME} that is not ours ({error}); {cure}") from error
        if manifest is not None and not self._identity.matches(manifest):
            raise InvalidConfiguration(
                f"{place} another run ({manifest.name}, written {manifest.created_time}, with another spec, other "
                f"pictures or another base model); {cure}"
            )
        return manifest

    def local(self, path: str) -> Path:
        """Where the local copy of a published file lies."""
        return self._folder / path

    def write(self, path: str, writer: Callable[[Path], object]) -> Path:
        """Lets `writer` write the local file that will be published as `path`. Raises StorageUnavailable."""
        target = self._local(path)
        with disk_errors(target):
            writer(target)
        return target

    def publish(
        self, path: str, kind: FileKind, *, epoch: int | None = None, step: int | None = None, loss: float | None = None
    ) -> ManifestFile:
        """Stores the local file `path` and notes it for the manifest."""
        description = describe(self._folder / path, path, kind, epoch=epoch, step=step, loss=loss)
        self._publisher.publish(self._folder / path, description)
        return description

    def finish(self, *, epoch: int, step: int) -> None:
        """Writes the manifest of the whole run: from now on it is complete."""
        self._publisher.publish_manifest(self._manifest(self.files, complete=True, epoch=epoch, step=step))

    def publish_state(self, state: TrainingState, metrics: Sequence[str]) -> None:
        """Stores `state`; older ones go when this one can be read, but for the newest but one."""
        folder = f"state/step-{state.step}"
        files = [file.model_dump(mode="json", by_alias=True) for file in self.files]
        writers: dict[str, Callable[[Path], object]] = {
            _FILES_FILE: lambda path: path.write_text(json.dumps(files)),
            _METRICS_FILE: lambda path: path.write_text("".join(metrics)),
            _STATE_FILE: lambda path: write_state(state, path),
        }
        publisher = Publisher(self._store, folder=folder)
        for name, writer in writers.items():
            local = self.write(f"{folder}/{name}", writer)
            publisher.publish(local, describe(local, name, "state", epoch=state.epoch, step=state.step))
            local.unlink()
        manifest = self._manifest(publisher.files, complete=False, epoch=state.epoch, step=state.step)
        publisher.publish_manifest(manifest)
        if read_manifest(self._store, folder=folder) == manifest:
            self._remove_old_states()

    def newest_state(self) -> SavedState | None:
        """The newest state of this run that can be read whole; takes over what the run had published."""
        for folder in self._state_folders():
            saved = self._read_state(folder)
            if saved is not None:
                saved = replace(saved, files=self._still_there(saved.files))
                self._publisher.restore(saved.files)
                return saved
        return None

    def fetch_back(self, kind: FileKind) -> None:
        """Makes sure that everything published of this kind lies in the local folder."""
        for file in self.files:
            if file.kind == kind and not (self._folder / file.path).is_file():
                self._store.get_file(file.path, self._local(file.path), sha256=file.sha256)

    def _still_there(self, files: tuple[ManifestFile, ...]) -> tuple[ManifestFile, ...]:
        """What nobody removed since: a manifest must not name a file that is gone."""
        keys = set(self._store.list())
        for file in files:
            if file.path not in keys:
                logger.warning("%s was removed; the manifest will not name it", self.uri_of(file.path))
        return tuple(file for file in files if file.path in keys)

    def _local(self, path: str) -> Path:
        target = self._folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        return target

    def _read_state(self, folder: str) -> SavedState | None:
        local = self._folder / folder
        try:
            manifest = read_manifest(self._store, folder=folder)
            if manifest is None or not self._identity.matches(manifest):
                logger.warning("%s is of another run and is left alone", self.uri_of(folder))
                return None
            fetch_published(self._store, manifest, local, folder=folder)
            files = json.loads((local / _FILES_FILE).read_text())
            return SavedState(
                training=read_state(local / _STATE_FILE),
                files=tuple(ManifestFile.model_validate_json(json.dumps(file)) for file in files),
                metrics=tuple((local / _METRICS_FILE).read_text().splitlines(keepends=True)),
            )
        except (MissingFile, DamagedFile, UnreadableManifest, UnreadableState) as error:
            logger.warning("%s cannot be used, an older state is tried: %s", self.uri_of(folder), error)
            return None

    def _state_folders(self) -> Iterator[str]:
        """Folders of states with a manifest, newest first."""
        suffix = f"/{MANIFEST_NAME}"
        folders = [key.removesuffix(suffix) for key in self._store.list("state/step-") if key.endswith(suffix)]
        steps = {folder: folder.removeprefix("state/step-") for folder in folders}
        numbered = [folder for folder in folders if steps[folder].isdecimal()]
        yield from sorted(numbered, key=lambda folder: int(steps[folder]), reverse=True)

    def _remove_old_states(self) -> None:
        for folder in list(self._state_folders())[STATES_KEPT:]:
            # The manifest first: a state without one is never read.
            for key in sorted(self._store.list(f"{folder}/"), key=lambda key: not key.endswith(MANIFEST_NAME)):
                self._store.delete(key)

    def _manifest(self, files: tuple[ManifestFile, ...], *, complete: bool, epoch: int, step: int) -> RunManifest:
        return RunManifest(
            complete=complete,
            name=self._identity.name,
            attempt=self._attempt,
            spec_digest=self._identity.spec_digest,
            dataset_digest=self._identity.dataset_digest,
            base_digest=self._identity.base_digest,
            epoch=epoch,
            step=step,
            total_steps=self._identity.total_steps,
            created_time=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            files=files,
        )
