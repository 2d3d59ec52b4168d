"""A run as it lies in a store: only what its manifests name, every file checked against its digest. Used by `writing`.

A run that is still going on is read from its newest state; what cannot be read is told, and the rest is shown.
"""

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from lora_api.load import InvalidTraining, load_training
from lora_api.run_manifest import (
    EVALUATION_MANIFEST_NAME,
    MANIFEST_NAME,
    EvaluationManifest,
    FileKind,
    ManifestFile,
    RunManifest,
)
from lora_api.spec import LoraTraining
from lora_api.status import EvaluationStatus, Plan
from lora_trainer.errors import InvalidConfiguration
from lora_trainer.evaluation.choice import choose
from lora_trainer.evaluation.measures import Measure, from_lines
from lora_trainer.provenance import Provenance
from lora_trainer.results import MEASURES_PATH, METRICS_PATH, PLAN_PATH, PROVENANCE_PATH, TRAINING_PATH, find_manifest
from lora_trainer.state_places import newest_state
from lora_trainer.storage import DamagedFile, MissingFile, Store

logger = logging.getLogger(__name__)

SIMILARITY_PATH = "evaluation/similarity.json"
GRID_INDEX_PATH = "evaluation/grid.json"
_STATE_FILES, _STATE_METRICS = "files.json", "metrics.jsonl"


@dataclass(frozen=True)
class Problem:
    """A file that is not shown, and why."""

    kind: Literal["missing", "damaged", "unreadable", "stale"]
    path: str


@dataclass(frozen=True)
class Step:
    """What was noted of some steps."""

    step: int
    loss: float
    rates: Mapping[str, float]
    """Part of the network -> learning rate."""


@dataclass(frozen=True)
class GridPicture:
    """A single picture of the grid."""

    path: str
    epoch: int
    weight: float
    prompt: str
    seed: int
    sampler: str
    guidance: float
    block_weights: str | None
    """Name of the preset."""


@dataclass(frozen=True)
class RunRecord:
    """Everything that a report tells of a run."""

    uri: str
    manifest: RunManifest
    """Of the run, or of its newest state while it is going on."""
    files: Mapping[str, ManifestFile]
    """Everything published, by path."""
    evaluation: EvaluationStatus | None
    """What its measures say; None: nothing was measured."""
    is_evaluated: bool
    """Whether its evaluation has ended."""
    training: LoraTraining | None
    yaml: str | None
    """The training as a file."""
    settings: Mapping[str, Any]
    """The spec as far as it is known."""
    plan: Plan | None
    folders: Mapping[str, Mapping[str, int]]
    """Folder of training pictures -> `n_repeats` and `img_count`."""
    tags: Mapping[str, int]
    """Tag -> number of training captions with it."""
    steps: tuple[Step, ...]
    measures: tuple[Measure, ...]
    similarity: Mapping[str, Any] | None
    grid: tuple[GridPicture, ...]
    problems: tuple[Problem, ...]

    @property
    def name(self) -> str:
        """Name of the adapter."""
        return self.manifest.name

    @property
    def best_epoch(self) -> int | None:
        """The epoch to use; None: unknown."""
        return self.evaluation.best_epoch if self.evaluation is not None else None

    @property
    def doubt(self) -> str | None:
        """Why the best epoch is not certain, as a key of `words`; None: it is, or none is known."""
        status = self.evaluation
        if status is None or status.best_epoch is None or status.confidence == "High":
            return None
        if not status.held_out_images:
            return "doubt_nothing_held_out"
        if status.usable_from is None:
            return "doubt_no_gain"
        losses = [measure.held_out_loss for measure in self.measures if measure.held_out_loss is not None]
        return "doubt_last_is_lowest" if losses and losses[-1] == min(losses) else "doubt_few_pictures"

    @property
    def epochs(self) -> tuple[int, ...]:
        """Epochs of which there is an adapter."""
        return tuple(sorted({file.epoch for file in self.of_kind("adapter") if file.epoch}))

    def of_kind(self, kind: FileKind) -> list[ManifestFile]:
        """The files of a kind, by path."""
        return [file for file in self.files.values() if file.kind == kind]


class RunReader:
    """Fetches files of one run into a folder, and remembers what could not be fetched."""

    def __init__(self, store: Store, folder: Path) -> None:
        self._store, self._folder = store, folder
        self._problems: dict[str, Problem] = {}

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What could not be read so far."""
        return tuple(self._problems.values())

    def note(self, kind: Literal["missing", "damaged", "unreadable", "stale"], path: str) -> None:
        """Remembers that `path` is not shown."""
        self._problems[path] = Problem(kind, path)

    def fetch(self, file: ManifestFile | None, *, folder: str = "") -> Path | None:
        """A local copy whose digest fits; None where there is none, which is told in the report."""
        if file is None:
            return None
        key = f"{folder}/{file.path}" if folder else file.path
        target = self._folder / hashlib.sha256(key.encode()).hexdigest()
        if target.is_file():
            return target
        try:
            self._store.get_file(key, target, sha256=file.sha256)
        except MissingFile:
            self.note("missing", key)
        except DamagedFile as error:
            logger.warning("%s", error)
            self.note("damaged", key)
        else:
            return target
        return None

    def text(self, file: ManifestFile | None, *, folder: str = "") -> str | None:
        """The content of a small text file, or None."""
        path = self.fetch(file, folder=folder)
        return None if path is None else path.read_text(encoding="utf-8", errors="replace")

    def read(self, evaluation: EvaluationManifest | None = None) -> RunRecord:
        """The run. `evaluation`: a manifest that is not stored yet.

        Raises:
            InvalidConfiguration: no run lies there.
            AccessDenied, StorageUnavailable: as the store answers.
        """
        manifest = find_manifest(self._store)
        if manifest is None:
            return self._read_unfinished()
        evaluation = evaluation or self._evaluation()
        further = evaluation.files if evaluation is not None else ()
        files = {file.path: file for file in sorted((*manifest.files, *further), key=lambda file: file.path)}
        metrics, provenance = self.text(files.get(METRICS_PATH)), self.text(files.get(PROVENANCE_PATH))
        metrics = (metrics or "") + (self.text(files.get(MEASURES_PATH)) or "")
        return self._record(manifest, files, metrics=metrics, provenance=provenance, evaluation=evaluation)

    def _read_unfinished(self) -> RunRecord:
        found = newest_state(self._store)
        if found is None:
            raise InvalidConfiguration(
                f"{self._store.uri_of('')} holds no run: neither {MANIFEST_NAME} nor a state; give the folder that "
                "spec.output.uri names, after the first state was saved",
                hint="",
            )
        place, manifest = found
        own = {file.path: file for file in manifest.files}
        listed = self.text(own.get(_STATE_FILES), folder=place.folder)
        published = [ManifestFile.model_validate_json(json.dumps(one)) for one in json.loads(listed or "[]")]
        metrics = self.text(own.get(_STATE_METRICS), folder=place.folder)
        provenance = self.text(own.get(PROVENANCE_PATH), folder=place.folder)
        files = {file.path: file for file in published}
        return self._record(manifest, files, metrics=metrics, provenance=provenance, evaluation=None)

    def _evaluation(self) -> EvaluationManifest | None:
        """The manifest of the evaluation of this very run."""
        try:
            manifest = EvaluationManifest.model_validate_json(self._store.get_bytes(EVALUATION_MANIFEST_NAME))
        except MissingFile:
            return None
        except ValidationError:
            self.note("unreadable", EVALUATION_MANIFEST_NAME)
            return None
        if manifest.run_sha256 != hashlib.sha256(self._store.get_bytes(MANIFEST_NAME)).hexdigest():
            self.note("stale", EVALUATION_MANIFEST_NAME)
            return None
        return manifest

    def _record(
        self,
        manifest: RunManifest,
        files: Mapping[str, ManifestFile],
        *,
        metrics: str | None,
        provenance: str | None,
        evaluation: EvaluationManifest | None,
    ) -> RunRecord:
        lines = (metrics or "").splitlines()
        measures, _ = from_lines(lines)
        text = self.text(files.get(TRAINING_PATH))
        training = self._training(text)
        plan = self._json(files.get(PLAN_PATH)) or {}
        return RunRecord(
            uri=self._store.uri_of("").rstrip("/"),
            manifest=manifest,
            files=files,
            evaluation=evaluation.status if evaluation else choose(measures) if measures else None,
            is_evaluated=evaluation is not None,
            training=training,
            yaml=text,
            settings=_settings(training, provenance),
            plan=Plan.model_validate_json(json.dumps(plan["plan"])) if "plan" in plan else None,
            folders=plan.get("folders", {}),
            tags=_added_up(plan.get("tags", {}).values()),
            steps=_steps(lines),
            measures=measures,
            similarity=self._json(files.get(SIMILARITY_PATH)),
            grid=_grid(self._json(files.get(GRID_INDEX_PATH))),
            problems=self.problems,
        )

    def _training(self, text: str | None) -> LoraTraining | None:
        if text is None:
            return None
        try:
            return load_training(text)
        except InvalidTraining:
            # Written by another version: shown as it is.
            self.note("unreadable", TRAINING_PATH)
            return None

    def _json(self, file: ManifestFile | None) -> dict[str, Any] | None:
        text = self.text(file)
        return None if text is None else _object(text)


def _object(text: str) -> dict[str, Any]:
    content = json.loads(text)
    return content if isinstance(content, dict) else {}


def _settings(training: LoraTraining | None, provenance: str | None) -> Mapping[str, Any]:
    if training is not None:
        return training.spec.model_dump(mode="json", by_alias=True)
    return Provenance.from_json(provenance).spec if provenance else {}


def _added_up(counts: Iterable[Mapping[str, int]]) -> Mapping[str, int]:
    """The tags of all folders together, the most frequent first."""
    total: dict[str, int] = {}
    for folder in counts:
        for tag, count in folder.items():
            total[tag] = total.get(tag, 0) + count
    return dict(sorted(total.items(), key=lambda item: -item[1]))


def _steps(lines: Iterable[str]) -> tuple[Step, ...]:
    documents = [json.loads(line) for line in lines]
    return tuple(
        Step(document["step"], document["loss"], document.get("learningRates", {}))
        for document in documents
        if "loss" in document
    )


def _grid(index: Mapping[str, Any] | None) -> tuple[GridPicture, ...]:
    return tuple(
        GridPicture(
            path=one["path"],
            epoch=one["epoch"],
            weight=one["weight"],
            prompt=one["prompt"],
            seed=one["seed"],
            sampler=one["sampler"],
            guidance=one["guidance"],
            block_weights=one.get("blockWeights"),
        )
        for one in (index or {}).get("pictures", ())
    )
