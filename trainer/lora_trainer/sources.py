"""The pictures of a training, wherever they lie: fetched, scanned, placed and planned, without model or GPU.

Used by `prepare` and by `lora plan`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lora_api.advice import warnings_about
from lora_api.spec import LoraTrainingSpec
from lora_trainer.data.caption_draws import constant_caption
from lora_trainer.data.dataset import DatasetSources, ScannedDataset, scan
from lora_trainer.data.example import Example
from lora_trainer.data.holdout import hold_out
from lora_trainer.data.placed import PlacedExample, place_examples
from lora_trainer.errors import InvalidConfiguration, InvalidDataset, TrainingError
from lora_trainer.plan import TrainingPlan, derive_plan
from lora_trainer.settings import Settings
from lora_trainer.storage import Connection, OnBytes, Source, fetch


def _untold() -> None:
    """Nobody is told."""


@dataclass(frozen=True)
class Fetcher:
    """Makes local copies of what URIs name; what an earlier start fetched is used again."""

    spec: LoraTrainingSpec
    settings: Settings
    on_bytes: OnBytes
    on_retry: Callable[[], None] = _untold
    """Told of every request that failed and is made again."""

    def fetch(self, source: Source) -> Path:
        """The local folder or file, which nothing may be written into. Raises as `storage.fetch`."""
        connection = Connection.for_field(self.spec, self.settings, source.field)
        connection = replace(connection, on_retry=self.on_retry)
        workers = max(1, self.spec.dataset.workers)
        return fetch(source, connection.folder_for(source.uri), connection, on_bytes=self.on_bytes, workers=workers)

    def fetch_file(self, uri: str, field: str, unusable: type[TrainingError]) -> Path:
        """The local copy of one `.safetensors` file. Raises as `storage.fetch`, and if it is a folder."""
        path = self.fetch(Source(uri, field, unusable, ("*.safetensors",)))
        if path.is_dir():
            raise unusable(f"{field} is {uri}, a folder; give the .safetensors file")
        return path


@dataclass(frozen=True)
class PlannedDataset:
    """The pictures and every number that follows from them."""

    scanned: ScannedDataset
    pictures: tuple[PlacedExample, ...]
    plan: TrainingPlan


def fetch_dataset(spec: LoraTrainingSpec, fetcher: Fetcher) -> DatasetSources:
    """Local copies of all folders of pictures that `spec.dataset` names."""
    dataset, regularization = spec.dataset, spec.dataset.regularization
    root = extra = None
    if dataset.uri is not None:
        root = fetcher.fetch(_pictures(dataset.uri, "spec.dataset.uri"))
    if regularization.uri is not None:
        extra = fetcher.fetch(_pictures(regularization.uri, "spec.dataset.regularization.uri"))
    subsets = tuple(
        fetcher.fetch(_pictures(subset.uri, f"spec.dataset.subsets[{index}].uri"))
        for index, subset in enumerate(dataset.subsets)
    )
    return DatasetSources(root=root, regularization=extra, subsets=subsets)


def _pictures(uri: str, field: str) -> Source:
    return Source(uri, field, InvalidDataset, repository="dataset")


def plan_dataset(
    spec: LoraTrainingSpec,
    sources: DatasetSources,
    *,
    processes: int | None = None,
    on_picture: Callable[[], None] = lambda: None,
) -> PlannedDataset:
    """Scans, places and plans. `processes` asks what a run with that many would do.

    `on_picture` is called after each picture that was decoded; what it raises ends the scan.

    Raises:
        InvalidDataset, InvalidConfiguration: as scanning, holding out, placing and planning say.
    """
    try:
        scanned = scan(sources, spec.dataset, on_picture=on_picture)
    except OSError as error:
        raise InvalidDataset(
            f"{error.filename} cannot be read: {error.strerror}; let the user that trains read the whole dataset"
        ) from error
    holdout = hold_out(scanned.examples, spec.held_out_fraction)
    _check_early_stop(spec, holdout.examples)
    scanned = replace(scanned, examples=holdout.examples)
    pictures = place_examples(scanned.examples, spec.dataset)
    planned = [picture.to_planned() for picture in pictures]
    warnings = (*warnings_about(spec), *([holdout.notice] if holdout.notice else []), *scanned.warnings)
    plan = derive_plan(planned, spec, warnings=warnings, processes=processes)
    return PlannedDataset(scanned, pictures, plan)


def _check_early_stop(spec: LoraTrainingSpec, examples: Sequence[Example]) -> None:
    stops = spec.evaluation is not None and spec.evaluation.early_stop is not None
    if stops and not any(example.is_held_out for example in examples):
        raise InvalidConfiguration(
            "spec.evaluation.earlyStop is set, but no picture is held out, so that nothing tells when to stop; raise "
            "spec.dataset.validationFraction, add pictures (from 8 on some are by default), or remove earlyStop"
        )


_SHOWN_NAMES = 5
_LONGEST_CAPTION = 225


def truncation_warning(
    examples: Sequence[Example], spec: LoraTrainingSpec, count_tokens: Callable[[Sequence[str]], Sequence[int]]
) -> str | None:
    """Which captions are longer than `maxTokens` and lose their end, by name; None if there are none."""
    limit = spec.dataset.captions.max_tokens
    full = [constant_caption(max(one.caption_lines, key=len), one.captions) for one in examples]
    cut = [one.key for one, count in zip(examples, count_tokens(full), strict=True) if count > limit]
    if not cut:
        return None
    names = ", ".join(cut[:_SHOWN_NAMES]) + (f" and {len(cut) - _SHOWN_NAMES} more" if len(cut) > _SHOWN_NAMES else "")
    cure = "; raise spec.dataset.captions.maxTokens" if limit < _LONGEST_CAPTION else ""
    return f"{len(cut)} captions are longer than {limit} tokens, and their end is cut off: {names}{cure}."
