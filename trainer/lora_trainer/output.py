"""What a run leaves at `output.uri`: adapters, pictures, states to resume from, and the manifest that ends it.

Used by `run`. Everything is written to a local folder first and stored behind the training, in order. A reader trusts
only what a manifest names; so every manifest is stored after its files.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Literal

from lora_api.run_manifest import EVALUATION_MANIFEST_NAME, EvaluationManifest, FileKind, ManifestFile, RunManifest
from lora_api.status import SavedState
from lora_trainer.checkpoint import TrainingState
from lora_trainer.errors import TrainingError
from lora_trainer.results import LOGS_FOLDER, PROVENANCE_PATH, Run, manifest_of
from lora_trainer.states import OnNotice, ResumableState, StagedState, States
from lora_trainer.storage import Publisher, Store, describe
from lora_trainer.storage.disk_errors import disk_errors
from lora_trainer.uploads import UploadQueue

logger = logging.getLogger(__name__)

_MOST_STATES_WAITING = 2


@dataclass(frozen=True)
class OutputSettings:
    """How results are kept."""

    folder: Path
    """An empty local folder of its own."""
    keep_last: int = 2
    """Number of states that are kept."""
    on_change: Literal["Refuse", "Continue"] = "Refuse"
    """What to do with a state of other pictures or another base model."""
    check_owner: Callable[[], None] = lambda: None
    """Raises when another process has taken the output over; asked before anything is stored."""
    on_notice: OnNotice = lambda reason, message: None
    """Told what a person should hear of once."""


class RunOutput:
    """The folder of one run in a store, and a local copy of what goes there."""

    def __init__(self, store: Store, run: Run, settings: OutputSettings) -> None:
        self._store, self._run, self._settings = store, run, settings
        self._folder = settings.folder
        self._publisher = Publisher(store, check_owner=settings.check_owner)
        self._files: dict[str, ManifestFile] = {}
        self._uploads = UploadQueue()
        self._states = States(
            store, run, folder=settings.folder, keep_last=settings.keep_last, check_owner=settings.check_owner
        )
        self._states_waiting: set[int] = set()
        started = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        self._log_path = f"{LOGS_FOLDER}/{started}-start-{run.start}-attempt-{run.attempt}.log"

    @property
    def files(self) -> tuple[ManifestFile, ...]:
        """Everything that was published or handed over to be, in the order of the paths."""
        return tuple(self._files[path] for path in sorted(self._files))

    @property
    def is_saving(self) -> bool:
        """Whether a state is still on its way to the store."""
        return bool(self._states_waiting)

    def uri_of(self, path: str) -> str:
        """The full URI of a published file."""
        return self._publisher.uri_of(path)

    def local(self, path: str) -> Path:
        """Where the local copy of a published file lies."""
        return self._folder / path

    def write(self, path: str, writer: Callable[[Path], object]) -> Path:
        """Lets `writer` write the local file that will be published as `path`. Raises StorageUnavailable."""
        target = self.local(path)
        with disk_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            writer(target)
        return target

    def publish(
        self,
        path: str,
        kind: FileKind,
        *,
        epoch: int | None = None,
        step: int | None = None,
        loss: float | None = None,
        on_stored: Callable[[ManifestFile], None] = lambda file: None,
    ) -> None:
        """Hands the local file `path`, which must not change any more, over, and notes it for the manifest.

        Args:
            on_stored: called in the uploading thread when it lies in the store.

        Raises:
            TrainingError: an earlier upload failed.
        """
        local = self.local(path)
        description = describe(local, path, kind, epoch=epoch, step=step, loss=loss)
        self._files[path] = description

        def store() -> None:
            self._publisher.publish(local, description)
            on_stored(description)

        self._uploads.submit(store)

    def publish_state(
        self, state: TrainingState, metrics: Sequence[str], *, on_saved: Callable[[SavedState], None] = lambda _: None
    ) -> None:
        """Writes `state` to the local folder and hands it over; older ones go when this one was read back.

        `on_saved` is called in the uploading thread when it lies in the store. Waits only while two others are on
        their way. Raises TrainingError when an earlier upload failed.
        """
        if len(self._states_waiting) >= _MOST_STATES_WAITING:
            self._uploads.wait()
        staged = self._states.stage(state, files=self.files, metrics=metrics)
        self._states_waiting.add(id(staged))
        self._uploads.submit(partial(self._store_state, staged, on_saved))

    def _store_state(self, staged: StagedState, on_saved: Callable[[SavedState], None]) -> None:
        try:
            on_saved(self._states.publish(staged))
        finally:
            self._states_waiting.discard(id(staged))

    def newest_state(self) -> ResumableState | None:
        """The newest state of this run that can be read whole; takes over what the run had published. Raises as
        `States.newest`."""
        saved = self._states.newest(on_change=self._settings.on_change, on_notice=self._settings.on_notice)
        if saved is not None:
            there = self._still_there(saved.files)
            self._files |= {file.path: file for file in there}
            self._publisher.restore(there)
        return saved

    def forget_after(self, epoch: int) -> None:
        """Leaves what later epochs published out of every manifest to come."""
        self._files = {path: file for path, file in self._files.items() if (file.epoch or 0) <= epoch}

    def finish(self, *, epoch: int, step: int) -> RunManifest:
        """Stores the manifest of the whole run, after everything else: when this returns, the run is complete."""
        self.write(PROVENANCE_PATH, lambda path: path.write_text(self._run.provenance.to_json()))
        self.publish(PROVENANCE_PATH, "provenance", step=step)
        manifest = manifest_of(self._run, self.files, complete=True, epoch=epoch, step=step)
        self._uploads.submit(partial(self._publisher.publish_manifest, manifest))
        self._uploads.wait()
        return manifest

    def take_over(self, path: str, kind: FileKind, *, epoch: int | None = None) -> None:
        """Notes for a manifest what an earlier start stored at `path`, and of which the local copy was fetched."""
        description = describe(self.local(path), path, kind, epoch=epoch)
        self._files[path] = description
        self._publisher.restore((description,))

    def remove(self, path: str) -> None:
        """Deletes what an earlier start stored; what is not there is no error. Raises as `Fence.check`."""
        self._settings.check_owner()
        self._store.delete(path)

    def finish_evaluation(self, manifest: EvaluationManifest) -> None:
        """Stores the manifest of an evaluation, after everything else."""
        self._uploads.submit(partial(self._publisher.publish_manifest, manifest, name=EVALUATION_MANIFEST_NAME))
        self._uploads.wait()

    def check(self) -> None:
        """Raises the error of an upload that failed."""
        self._uploads.check()

    def wait(self, seconds: float | None = None) -> None:
        """Waits until everything handed over is stored. Raises StillUploading after `seconds`."""
        self._uploads.wait(seconds)

    def close(self, seconds: float | None = None) -> None:
        """Ends the uploads; what has not begun is dropped."""
        self._uploads.close(seconds)

    def publish_log(self, log_file: Path | None) -> None:
        """Stores the log as it is now, as well as can be: a lost log is no reason to fail."""
        if log_file is None:
            return
        try:
            self._store.put_bytes(log_file.read_bytes(), self._log_path)
        except (OSError, TrainingError) as error:
            logger.warning("the log could not be stored: %s", error)

    def fetch_back(self, kind: FileKind) -> None:
        """Makes sure that everything published of this kind lies in the local folder."""
        for file in self.files:
            if file.kind == kind and not self.local(file.path).is_file():
                self._store.get_file(file.path, self.local(file.path), sha256=file.sha256)

    def _still_there(self, files: tuple[ManifestFile, ...]) -> tuple[ManifestFile, ...]:
        """What nobody removed since: a manifest must not name a file that is gone."""
        keys = set(self._store.list())
        for file in files:
            if file.path not in keys:
                logger.warning("%s was removed; the manifest will not name it", self.uri_of(file.path))
        return tuple(file for file in files if file.path in keys)
