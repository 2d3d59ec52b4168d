"""The manifests in the object store: a reader trusts only files that one of them names and whose digest fits."""

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from lora_api.evaluation_spec import Evaluation
from lora_api.spec import LoraTrainingSpec
from lora_api.status import Count, EvaluationStatus, MemoryRung, Number, StatusModel, Time

MANIFEST_NAME = "manifest.json"
EVALUATION_MANIFEST_NAME = "evaluation/manifest.json"
FileKind = Literal[
    "adapter",
    "sample",
    "sheet",
    "metrics",
    "state",
    "provenance",
    "training",
    "plan",
    "captions",
    "measures",
    "grid",
    "report",
]


def _inside(path: str) -> str:
    """Refuses what is no file below the manifest: whoever can write to a store could name any file of a reader's."""
    if any(part in {"", ".", ".."} or "\0" in part or "\\" in part for part in path.split("/")):
        raise ValueError("must name a file below the manifest")
    return path


class ManifestFile(StatusModel):
    """A file beside or below the manifest."""

    path: Annotated[str, Field(min_length=1, max_length=1024), AfterValidator(_inside)]
    """Path relative to the manifest, with `/`."""
    sha256: Annotated[str, Field(min_length=64, max_length=64)]
    """Digest of the whole file."""
    size_bytes: Count
    """Size in bytes."""
    kind: FileKind
    """What the file is."""
    epoch: Count | None = None
    """Epoch that it belongs to."""
    step: Count | None = None
    """Step that it belongs to."""
    loss: Number | None = None
    """Mean training loss of the epoch."""


class RunManifest(StatusModel):
    """What a run (or one state of it) is and made; written after every file that it names."""

    format_version: Literal[1] = 1
    """Version of this format."""
    complete: bool
    """False: a state to resume from; true: the run has ended well."""
    name: str
    """Name of the adapter."""
    attempt: Count = 1
    """Attempt that wrote it."""
    spec_digest: str
    """Digest of everything in the spec that changes the result."""
    dataset_digest: str
    """Digest of the pictures and captions."""
    base_digest: str
    """Digest of the base model's files."""
    epoch: Count
    """Epochs completed."""
    step: Count
    """Steps made."""
    total_steps: Count
    """Steps planned."""
    created_time: Time
    """When it was written."""
    memory_rungs: tuple[MemoryRung, ...] = ()
    """What was given up because the GPU's memory was too small."""
    files: tuple[ManifestFile, ...]
    """Every file, in the order of their paths."""


class EvaluationManifest(StatusModel):
    """What an evaluation of a completed run made; written after every file that it names."""

    format_version: Literal[1] = 1
    """Version of this format."""
    run_sha256: Annotated[str, Field(min_length=64, max_length=64)]
    """Digest of the `manifest.json` of the run that was evaluated."""
    evaluation_digest: str
    """Digest of the settings that it was made with."""
    created_time: Time
    """When it was written."""
    status: EvaluationStatus
    """What it found."""
    files: tuple[ManifestFile, ...]
    """Every file, by paths relative to the run's own manifest, in their order."""


_PLACES = ("uri", "vaeUri", "initialUri", "cacheUri", "modelUri")
_WITHOUT_EFFECT = (*_PLACES, "tokenSecretRef", "storage", "workers", "latentCache")
"""Fields of sections that say where something lies, or how much is worked on or kept at a time."""
_RESULT_FIELDS = ("base_model", "dataset", "network", "optimizer", "training", "checkpoints", "samples")


def spec_digest(spec: LoraTrainingSpec) -> str:
    """SHA-256 over the fields that change the result; where files lie and where pods run does not count."""
    canonical = json.dumps(result_settings(spec), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def result_settings(spec: LoraTrainingSpec) -> dict[str, Any]:
    """The fields that change the result, as a YAML file has them: what `spec_digest` is made of."""
    content = spec.model_dump(mode="json", by_alias=True, include=set(_RESULT_FIELDS))
    # Who computes which of a step's batches changes nothing but the last bits, so their number counts.
    content["training"]["gradientAccumulationSteps"] = spec.batches_per_step
    # When states are saved changes nothing in what they lead to.
    content["checkpoints"] = {"everyEpochs": spec.checkpoints.every_epochs}
    base, dataset = content["baseModel"], content["dataset"]
    # Of the evaluation only what decides on which pictures is trained, and for how long.
    dataset["validationFraction"] = spec.held_out_fraction
    if spec.evaluation is not None and spec.evaluation.early_stop is not None:
        wanted = {"best_epoch", "early_stop"}
        content["evaluation"] = spec.evaluation.model_dump(mode="json", by_alias=True, include=wanted)
    for section in (
        base,
        dataset,
        dataset["regularization"],
        dataset["captions"]["generate"] or {},
        content["network"],
        *base["adapters"],
        *dataset["subsets"],
    ):
        for place in _WITHOUT_EFFECT:
            section.pop(place, None)
    content["output"] = spec.output.model_dump(mode="json", by_alias=True, exclude={"uri", "storage"})
    return content


def evaluation_digest(spec: LoraTrainingSpec) -> str:
    """SHA-256 over everything that says how a completed run is evaluated; of a spec without `evaluation` as well."""
    return digest_of_evaluation(spec.evaluation)


def digest_of_evaluation(evaluation: Evaluation | None) -> str:
    """The same of the part of a spec that decides it. A field that keeps its default does not count: one that is new
    with the next version changes nothing."""
    wanted = evaluation and evaluation.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    canonical = json.dumps(wanted, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
