"""What a run says of itself beside its results: the training as a file that does it again, and its plan. Pure.

Published by `recorder` with the results; read by `report`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from lora_api.redaction import redact
from lora_api.run_manifest import FileKind, spec_digest
from lora_api.spec import LoraTraining
from lora_trainer.plan import TrainingPlan
from lora_trainer.results import PLAN_PATH, TRAINING_PATH


@dataclass(frozen=True)
class Document:
    """A text file of the output."""

    path: str
    kind: FileKind
    text: str


@dataclass(frozen=True)
class PictureFolders:
    """The training pictures by folder."""

    folders: Mapping[str, Mapping[str, int]]
    """Folder -> `n_repeats` and `img_count`."""
    tags: Mapping[str, Mapping[str, int]]
    """Folder -> tag -> number of captions with it."""


def run_documents(
    training: LoraTraining, plan: TrainingPlan, folders: PictureFolders, *, dataset_digest: str
) -> tuple[Document, ...]:
    """`training.yaml` and `plan.json` of a run."""
    content = {
        "specDigest": spec_digest(training.spec),
        "datasetDigest": dataset_digest,
        "plan": plan.to_status().to_document(),
        "folders": folders.folders,
        "tags": {folder: folders.tags.get(folder, {}) for folder in folders.folders},
    }
    return (
        Document(TRAINING_PATH, "training", to_yaml(training)),
        Document(PLAN_PATH, "plan", json.dumps(content, indent=2, ensure_ascii=False) + "\n"),
    )


def to_yaml(training: LoraTraining) -> str:
    """The training as `lora run` and `kubectl apply` take it: what was set, without what looks like a secret."""
    document = training.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude={"status"})
    document["metadata"] = {
        name: value for name, value in document["metadata"].items() if name in ("name", "namespace") and value
    }
    text: str = yaml.safe_dump(_redacted(document), sort_keys=False, allow_unicode=True, width=120)
    return text


def _redacted(value: Any) -> Any:
    """Text by text, so that the YAML stays one."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {name: _redacted(one) for name, one in value.items()}
    if isinstance(value, Sequence):
        return [_redacted(one) for one in value]
    return value
