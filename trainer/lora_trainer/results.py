"""What a run leaves behind, by name: where each result lies, and whether an output holds this very run already.

Knows no torch: read by the pre-flight step as well as by `output`, `recorder` and `run`.
"""

import hashlib
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import ValidationError

from lora_api.run_manifest import (
    EVALUATION_MANIFEST_NAME,
    MANIFEST_NAME,
    EvaluationManifest,
    ManifestFile,
    RunManifest,
    evaluation_digest,
)
from lora_api.spec import LoraTrainingSpec
from lora_api.status import Artifacts, Checkpoint, MemoryRung
from lora_trainer.errors import InvalidConfiguration
from lora_trainer.evaluation.measures import from_lines
from lora_trainer.progress import ProgressTracker
from lora_trainer.provenance import Provenance, differences
from lora_trainer.storage import MissingFile, Store, UnreadableManifest, read_manifest

METRICS_PATH = "evaluation/metrics.jsonl"
MEASURES_PATH = "evaluation/measures.jsonl"
"""Of a run that was measured only when it was evaluated."""
GRID_PATH = "evaluation/grid.png"
SIMILARITY_PATH = "evaluation/similarity.json"
REPORT_PATH = "evaluation/report.html"
PROVENANCE_PATH = "provenance.json"
PLAN_PATH = "plan.json"
TRAINING_PATH = "training.yaml"
LOGS_FOLDER = "logs"

logger = logging.getLogger(__name__)

UriOf = Callable[[str], str]
"""Path in the output -> full URI."""


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
class Run:
    """One start of a run, as its manifests tell of it."""

    identity: RunIdentity
    provenance: Provenance
    attempt: int
    """Number of the Job, from 1."""
    start: int
    """Number of the process among all that ever wrote to the output; grows with every start."""
    memory_rungs: tuple[MemoryRung, ...] = ()
    """What was given up because the GPU's memory was too small."""


def manifest_of(run: Run, files: tuple[ManifestFile, ...], *, complete: bool, epoch: int, step: int) -> RunManifest:
    """The manifest of the whole run (`complete`), or of one of its states."""
    identity = run.identity
    return RunManifest(
        complete=complete,
        name=identity.name,
        attempt=run.attempt,
        spec_digest=identity.spec_digest,
        dataset_digest=identity.dataset_digest,
        base_digest=identity.base_digest,
        epoch=epoch,
        step=step,
        total_steps=identity.total_steps,
        created_time=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        memory_rungs=run.memory_rungs,
        files=files,
    )


@dataclass(frozen=True)
class Ended:
    """How a run ended well."""

    reason: str
    """`Completed`, `AlreadyTrained` or, of the pre-flight step, `Verified`."""
    message: str


def find_manifest(store: Store) -> RunManifest | None:
    """The manifest of the run that has ended at `store`, if there is one.

    Raises:
        InvalidConfiguration: what lies in its place is no manifest of ours.
    """
    try:
        return read_manifest(store)
    except UnreadableManifest as error:
        raise InvalidConfiguration(
            f"spec.output.uri already holds a {MANIFEST_NAME} that is not ours ({error}); "
            "choose another folder or remove it"
        ) from error


def read_provenance(store: Store, path: str = PROVENANCE_PATH) -> Provenance | None:
    """What a run, or a state of it, was made from; None: that cannot be told."""
    try:
        return Provenance.from_json(store.get_bytes(path).decode())
    except (MissingFile, ValueError):
        return None


def completed(store: Store, identity: RunIdentity, provenance: Provenance) -> RunManifest | None:
    """The manifest of this very run if it has ended before.

    Raises:
        InvalidConfiguration: the folder holds another run, which is never overwritten; names what differs.
    """
    manifest = find_manifest(store)
    if manifest is None or identity.matches(manifest):
        return manifest
    before = read_provenance(store)
    if before is None:
        raise _is_another_run(manifest, _UNKNOWN)
    error = _is_another_run(manifest, differences(before, provenance).all)
    if not differences(before.apart_from_evaluation(), provenance.apart_from_evaluation()).all:
        raise InvalidConfiguration(f"{error}, or evaluate the run that is there (`lora evaluate`)")
    raise error


def completed_apart_from_evaluation(store: Store, identity: RunIdentity, provenance: Provenance) -> RunManifest | None:
    """The same, where settings of the evaluation may have changed since, also those that decided how was trained."""
    manifest = find_manifest(store)
    if manifest is None or identity.matches(manifest):
        return manifest
    before = read_provenance(store)
    found = _UNKNOWN
    if before is not None:
        found = differences(before.apart_from_evaluation(), provenance.apart_from_evaluation()).all
    if found:
        raise _is_another_run(manifest, found)
    return manifest


_UNKNOWN: tuple[str, ...] = ("with another spec, other pictures or another base model",)


def _is_another_run(manifest: RunManifest, found: tuple[str, ...]) -> InvalidConfiguration:
    return InvalidConfiguration(
        f"spec.output.uri already holds another run ({manifest.name}, written {manifest.created_time}): "
        f"{'; '.join(found)}; choose another folder or remove it"
    )


def run_sha256(store: Store) -> str:
    """Digest of the manifest of the run that has ended at `store`. Raises MissingFile."""
    return hashlib.sha256(store.get_bytes(MANIFEST_NAME)).hexdigest()


def evaluation_of(store: Store, spec: LoraTrainingSpec) -> EvaluationManifest | None:
    """What an evaluation by the settings of `spec` made of the completed run at `store`, if it has ended."""
    try:
        manifest = EvaluationManifest.model_validate_json(store.get_bytes(EVALUATION_MANIFEST_NAME))
    except MissingFile:
        return None
    except ValidationError:
        logger.warning("%s cannot be read; it is made again", store.uri_of(EVALUATION_MANIFEST_NAME))
        return None
    known = (manifest.run_sha256, manifest.evaluation_digest)
    return manifest if known == (run_sha256(store), evaluation_digest(spec)) else None


def is_evaluated(store: Store, spec: LoraTrainingSpec) -> bool:
    """Whether nothing is left to do for the completed run at `store`: `spec` asks for no evaluation, or it is there."""
    return spec.evaluation is None or evaluation_of(store, spec) is not None


def tell_already_trained(
    manifest: RunManifest, tracker: ProgressTracker, store: Store, *, evaluation: EvaluationManifest | None = None
) -> Ended:
    """Tells what the run of `manifest` at `store` made, and what was found of it, as if it had just been made."""
    loss, measured = None, _held_out_losses(store)
    for file in manifest.files:
        if is_checkpoint(file, manifest.name):
            checkpoint, loss = checkpoint_of(file, store.uri_of, measured.get(file.epoch or 0)), file.loss
            tracker.add_checkpoint(checkpoint)
            if evaluation is not None and file.epoch == evaluation.status.best_epoch:
                tracker.set_best_checkpoint(checkpoint)
    tracker.step(manifest.step, epoch=manifest.epoch, loss=loss, learning_rate=None)
    artifacts = tell_artifacts(manifest, tracker, store.uri_of, evaluation=evaluation)
    return Ended("AlreadyTrained", f"this very run was completed {manifest.created_time}: {artifacts.adapter_uri}")


def _held_out_losses(store: Store) -> dict[int, float | None]:
    """Loss of each epoch on held-out pictures, as far as it can be read."""
    losses: dict[int, float | None] = {}
    for path in (METRICS_PATH, MEASURES_PATH):
        try:
            measures, _ = from_lines(store.get_bytes(path).decode().splitlines())
        except MissingFile:
            continue
        except ValueError as error:
            logger.warning("%s cannot be read: %s", path, error)
            continue
        losses |= {measure.epoch: measure.held_out_loss for measure in measures}
    return losses


def tell_artifacts(
    manifest: RunManifest, tracker: ProgressTracker, uri_of: UriOf, *, evaluation: EvaluationManifest | None
) -> Artifacts:
    """Tells where the results of a run and of its evaluation lie, and which epoch is best."""
    found = () if evaluation is None else evaluation.files
    artifacts = artifacts_of((*manifest.files, *found), manifest.name, uri_of)
    tracker.set_artifacts(artifacts)
    if evaluation is not None:
        tracker.set_evaluation(evaluation.status)
    return artifacts


def adapter_path(name: str, epoch: int | None) -> str:
    """Where the adapter of an epoch, or the final one, lies in the output."""
    return f"adapters/{name}.safetensors" if epoch is None else f"adapters/{name}-{epoch:06d}.safetensors"


def best_paths(name: str) -> tuple[str, str]:
    """Where the copy of the best epoch's adapter lies in kohya's format, and where in diffusers'."""
    return f"adapters/{name}-best.safetensors", f"adapters/{name}-best-diffusers.safetensors"


def sheet_path(name: str, epoch: int | None = None) -> str:
    """Where the sheet of all pictures up to an epoch, or the final one, lies in the output."""
    return f"samples/{name}-sheet.png" if epoch is None else f"samples/{name}-sheet-{epoch:06d}.png"


def is_checkpoint(file: ManifestFile, name: str) -> bool:
    """Whether it is the adapter of an epoch; the final one, and other formats, hold the same weights once more."""
    return bool(file.kind == "adapter" and file.epoch and file.path == adapter_path(name, file.epoch))


def epoch_paths(name: str, epoch: int) -> tuple[str, str]:
    """Where the adapter of an epoch lies in kohya's format, and where in diffusers'."""
    path = adapter_path(name, epoch)
    return path, path.removesuffix(".safetensors") + "-diffusers.safetensors"


def epoch_adapters(manifest: RunManifest) -> dict[int, ManifestFile]:
    """The adapter of each epoch, ascending: in kohya's format if there is one."""
    found: dict[int, ManifestFile] = {}
    for file in manifest.files:
        epoch = file.epoch or 0
        is_epochs = file.kind == "adapter" and file.path in epoch_paths(manifest.name, epoch)
        if is_epochs and (epoch not in found or is_checkpoint(file, manifest.name)):
            found[epoch] = file
    return dict(sorted(found.items()))


def checkpoint_of(file: ManifestFile, uri_of: UriOf, validation_loss: float | None = None) -> Checkpoint:
    """An adapter of the manifest as the status shows it, with its loss on held-out pictures if it is known."""
    return Checkpoint(
        epoch=file.epoch or 0,
        step=file.step or 0,
        uri=uri_of(file.path),
        sha256=file.sha256,
        size_bytes=file.size_bytes,
        loss=file.loss,
        validation_loss=validation_loss,
    )


def artifacts_of(files: Iterable[ManifestFile], name: str, uri_of: UriOf) -> Artifacts:
    """Where the results of a run lie, as far as `files` names them."""
    published = {file.path for file in files}

    def found(path: str) -> str | None:
        return uri_of(path) if path in published else None

    return Artifacts(
        adapter_uri=uri_of(adapter_path(name, None)),
        best_adapter_uri=found(best_paths(name)[0]),
        samples_uri=found(sheet_path(name)),
        grid_uri=found(GRID_PATH),
        report_uri=found(REPORT_PATH),
        manifest_uri=uri_of(MANIFEST_NAME),
        logs_uri=uri_of(LOGS_FOLDER),
    )
