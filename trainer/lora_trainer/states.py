"""Resumable states in the store: written once, trusted only whole, the newest good one found again. Used by `output`.

A state is a folder of its own, `state/step-<n>-epoch-<e>-start-<s>/`: no other process ever writes to it, and no state
is written over another.
"""

import json
import logging
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from lora_api.run_manifest import MANIFEST_NAME, ManifestFile, RunManifest
from lora_api.status import SavedState
from lora_trainer.checkpoint import TrainingState, UnreadableState, read_state, write_state
from lora_trainer.results import PROVENANCE_PATH, Run, manifest_of
from lora_trainer.state_places import StatePlace, Wanted, is_changed, place_of, state_places
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

OnNotice = Callable[[str, str], None]
"""Told a reason (one word) and a message that a person should hear of once."""
_STATE_FILE, _FILES_FILE, _METRICS_FILE = "training.pt", "files.json", "metrics.jsonl"


@dataclass(frozen=True)
class ResumableState:
    """A state that an earlier attempt stored, read whole."""

    training: TrainingState
    files: tuple[ManifestFile, ...]
    """Everything that the run had published."""
    metrics: tuple[str, ...]
    """Lines of `metrics.jsonl`."""
    is_changed: bool
    """Pictures or base model are no longer those that it was trained on."""
    saved: SavedState
    """The same as the status shows it."""


@dataclass(frozen=True)
class StagedState:
    """A state that lies in a local folder and is not stored yet."""

    place: StatePlace
    files: tuple[ManifestFile, ...]
    write_seconds: float


class States:
    """The states of one run."""

    def __init__(
        self, store: Store, run: Run, *, folder: Path, keep_last: int, check_owner: Callable[[], None]
    ) -> None:
        """`folder`: local scratch space. `check_owner` raises when another process has taken the output over."""
        self._store, self._run, self._folder = store, run, folder
        self._keep_last, self._check_owner = keep_last, check_owner
        self._good: list[StatePlace] = []

    def stage(self, state: TrainingState, *, files: Sequence[ManifestFile], metrics: Sequence[str]) -> StagedState:
        """Writes the state to the local folder; the training may go on when this returns.

        Args:
            state: what `checkpoint` writes.
            files: everything that the run has published or handed over to be published.
            metrics: lines of `metrics.jsonl` so far.
        """
        begun = time.monotonic()
        place = StatePlace(start=self._run.start, step=state.step, epoch=state.epoch)
        published = [file.model_dump(mode="json", by_alias=True) for file in files]
        writers: dict[str, Callable[[Path], object]] = {
            _FILES_FILE: lambda path: path.write_text(json.dumps(published)),
            _METRICS_FILE: lambda path: path.write_text("".join(metrics)),
            PROVENANCE_PATH: lambda path: path.write_text(self._run.provenance.to_json()),
            _STATE_FILE: lambda path: write_state(state, path),
        }
        local = self._folder / place.folder
        described = []
        with disk_errors(local):
            local.mkdir(parents=True, exist_ok=True)
            for name, writer in writers.items():
                writer(local / name)
                described.append(describe(local / name, name, "state", epoch=state.epoch, step=state.step))
        return StagedState(place, tuple(described), time.monotonic() - begun)

    def publish(self, staged: StagedState) -> SavedState:
        """Stores a state, reads its manifest back and then lets go of the older ones that are too many."""
        begun, place = time.monotonic(), staged.place
        publisher = Publisher(self._store, folder=place.folder, check_owner=self._check_owner)
        for file in staged.files:
            local = self._folder / place.folder / file.path
            publisher.publish(local, file)
            local.unlink()
        manifest = manifest_of(self._run, publisher.files, complete=False, epoch=place.epoch, step=place.step)
        publisher.publish_manifest(manifest)
        if read_manifest(self._store, folder=place.folder) != manifest:
            raise DamagedFile(f"{self._store.uri_of(place.folder)} does not hold the manifest that was just stored")
        self._good.append(place)
        self._remove_others()
        return self._saved(place, manifest, staged.write_seconds + time.monotonic() - begun)

    def newest(self, *, on_change: Literal["Refuse", "Continue"], on_notice: OnNotice) -> ResumableState | None:
        """The newest state of this run that can be read whole.

        Raises:
            InvalidConfiguration: the newest one is of other settings, or of other data and `on_change` is Refuse.
        """
        places = state_places(self._store)
        for index, place in enumerate(places):
            found = self._read(place, on_change=on_change, on_notice=on_notice)
            if found is not None:
                self._good = places[index:][::-1]
                return found
        return None

    def _read(
        self, place: StatePlace, *, on_change: Literal["Refuse", "Continue"], on_notice: OnNotice
    ) -> ResumableState | None:
        local, uri = self._folder / place.folder, self._store.uri_of(place.folder)
        try:
            manifest = read_manifest(self._store, folder=place.folder)
            if manifest is None:
                return None
            is_changed = self._is_changed(manifest, place, on_change)
            fetch_published(self._store, manifest, local, folder=place.folder)
            files = json.loads((local / _FILES_FILE).read_text())
            return ResumableState(
                training=read_state(local / _STATE_FILE),
                files=tuple(ManifestFile.model_validate_json(json.dumps(file)) for file in files),
                metrics=tuple((local / _METRICS_FILE).read_text().splitlines(keepends=True)),
                is_changed=is_changed,
                saved=self._saved(place, manifest),
            )
        except (MissingFile, DamagedFile, UnreadableManifest, UnreadableState) as error:
            logger.warning("%s cannot be used, an older state is tried: %s", uri, error)
            on_notice("StatePassedOver", f"the state {uri} cannot be used, the one before is taken: {error}")
            return None
        finally:
            # It is in memory now, and the disk of a pod is small.
            shutil.rmtree(local, ignore_errors=True)

    def _is_changed(self, manifest: RunManifest, place: StatePlace, on_change: Literal["Refuse", "Continue"]) -> bool:
        wanted = Wanted(self._run.identity, self._run.provenance, on_change)
        return is_changed(self._store, place, manifest, wanted)

    def _saved(self, place: StatePlace, manifest: RunManifest, seconds: float | None = None) -> SavedState:
        return SavedState(
            step=place.step,
            epoch=place.epoch,
            uri=self._store.uri_of(place.folder),
            size_bytes=sum(file.size_bytes for file in manifest.files),
            saved_time=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if seconds else manifest.created_time,
            save_seconds=None if seconds is None else round(seconds, 3),
        )

    def _remove_others(self) -> None:
        """Leaves the newest good states; damaged ones and those of killed processes go as well.

        Never a successor's: this process may have been frozen since it was last asked who owns the output.
        """
        self._good = self._good[-self._keep_last :]
        kept = {place.folder for place in self._good}
        others = [key for key in self._store.list("state/step-") if self._may_go(key.rpartition("/")[0], kept)]
        # The manifests first: a state without one is never read.
        for key in sorted(others, key=lambda key: not key.endswith(MANIFEST_NAME)):
            self._store.delete(key)

    def _may_go(self, folder: str, kept: set[str]) -> bool:
        place = place_of(folder)
        return folder not in kept and (place is None or place.start <= self._run.start)
