"""What is known before a model is loaded: fetched files, planned pictures, and what makes the run the same run.

Used by `run` and `preflight`; knows no torch.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

from lora_api.run_manifest import result_settings, spec_digest
from lora_api.spec import LoraTraining, LoraTrainingSpec
from lora_trainer.audience import Audience
from lora_trainer.captioning import model_files as captioning
from lora_trainer.captioning.records import CaptionRecord
from lora_trainer.digests import sha256_of
from lora_trainer.errors import BaseModelUnavailable, InvalidConfiguration
from lora_trainer.families.opening import FILES, VAE_FILES, ModelFiles, open_model
from lora_trainer.provenance import Provenance
from lora_trainer.results import RunIdentity
from lora_trainer.settings import Settings
from lora_trainer.sources import Fetcher, PlannedDataset, fetch_dataset, plan_dataset
from lora_trainer.stopping import StopRequested, StopSignal
from lora_trainer.storage import Connection, Source, Store, check_writable, open_store

logger = logging.getLogger(__name__)

_PATIENT_ATTEMPTS = 30
"""With pauses of up to 30 s: about ten minutes."""

_ADAPTER_FILES = ("*.safetensors",)
CAPTIONER = "spec.dataset.captions.generate.modelUri"


@dataclass(frozen=True)
class Session:
    """The surroundings of a run: where things are, who is told, and whether to stop."""

    settings: Settings
    audience: Audience
    should_stop: Callable[[], bool]
    seconds_left: Callable[[], float | None] = lambda: None
    """Time for saving after `should_stop` became true; None: no limit."""
    log_file: Path | None = None
    """The log of this attempt, which is kept with the results."""
    signal: StopSignal = field(default_factory=StopSignal)
    """Told when another process of the run was told to stop, or is lost."""

    def check_stop(self) -> None:
        """Raises StopRequested when the process was told to stop."""
        if self.should_stop():
            raise StopRequested

    def say(self, reason: str, message: str = "") -> None:
        """Tells what is being done."""
        logger.info("%s%s", reason, f": {message}" if message else "")
        self.audience.tracker.set_reason(reason, message)


@dataclass(frozen=True)
class BaseFiles:
    """Local copies of the base model and of everything else that is loaded before the training."""

    model: ModelFiles
    adapters: tuple[tuple[Path, float], ...] = ()
    """Files and the strengths at which they are merged."""
    initial: Path | None = None
    """The adapter to start from."""
    captioner: Path | None = None
    """Folder of the model that generates captions."""

    @cached_property
    def digests(self) -> Mapping[str, str]:
        """SHA-256 of each file, by a name that says what it is for."""
        digests = dict(self.model.digests)
        digests |= {f"adapters[{index}]": sha256_of(path) for index, (path, _) in enumerate(self.adapters)}
        if self.captioner is not None:
            digests |= captioning.digests_of(self.captioner, field=CAPTIONER)
        return digests if self.initial is None else {**digests, "initial": sha256_of(self.initial)}


class Known(Protocol):
    """What is known of a run beside its pictures."""

    @property
    def training(self) -> LoraTraining:
        """What was asked for."""
        ...

    @property
    def base(self) -> BaseFiles:
        """Local copies of the base model and of what is added to it."""
        ...

    @property
    def provenance(self) -> Provenance:
        """Everything that the result depends on."""
        ...

    @property
    def identity(self) -> RunIdentity:
        """The same in short."""
        ...


@dataclass(frozen=True)
class Prepared:
    """What is known before the model is loaded."""

    training: LoraTraining
    base: BaseFiles
    dataset: PlannedDataset
    captions: tuple[CaptionRecord, ...] = ()
    """Those that were generated."""

    @cached_property
    def provenance(self) -> Provenance:
        """Everything that the result depends on."""
        return provenance_of(self.training, self.dataset, self.base)

    @cached_property
    def identity(self) -> RunIdentity:
        """The same in short: equal for two starts of one run."""
        return identity_of(self.training, self.dataset, base_digest=self.provenance.base_digest)


def prepare(training: LoraTraining, session: Session, *, planned_as: LoraTrainingSpec | None = None) -> Prepared:
    """Fetches base model and pictures, and plans; by the spec that a completed run was `planned_as`, if given.

    Raises:
        TrainingError: as fetching, identifying and planning say.
        StopRequested: the process was told to stop.
    """
    fetcher = make_fetcher(training.spec, session)
    base = prepare_base(training.spec, fetcher, session)
    return Prepared(training, base, prepare_dataset(planned_as or training.spec, fetcher, session))


def prepare_base(spec: LoraTrainingSpec, fetcher: Fetcher, session: Session) -> BaseFiles:
    """Fetches and identifies the base model and what is added to it. Raises as `prepare`."""
    session.say("Downloading", spec.base_model.uri)
    paths = {name: _fetch(name, source, fetcher) for name, source in base_sources(spec).items()}
    session.check_stop()
    return BaseFiles(
        model=open_model(paths["model"], spec.base_model, vae=paths.get("vae")),
        adapters=tuple(
            (paths[f"adapters[{index}]"], adapter.weight) for index, adapter in enumerate(spec.base_model.adapters)
        ),
        initial=paths.get("initial"),
        captioner=paths.get("captioner"),
    )


def prepare_dataset(spec: LoraTrainingSpec, fetcher: Fetcher, session: Session) -> PlannedDataset:
    """Fetches the pictures, decodes every one, and plans. Raises as `prepare`."""
    session.say("Downloading", "pictures")
    sources = fetch_dataset(spec, fetcher)
    session.say("CheckingData", "every picture and caption")
    dataset = plan_dataset(spec, sources, on_picture=session.check_stop)
    plan, tracker = dataset.plan, session.audience.tracker
    logger.info(
        "%s pictures and %s regularisation pictures, %s steps an epoch, %s epochs, %s steps in all",
        plan.images,
        plan.regularization_images,
        plan.steps_per_epoch,
        plan.epochs,
        plan.total_steps,
    )
    for warning in plan.warnings:
        logger.warning("%s", warning)
    tracker.set_plan(plan.to_status())
    tracker.set_dataset_digest(dataset.scanned.digest)
    return dataset


def provenance_of(training: LoraTraining, dataset: PlannedDataset, base: BaseFiles | None) -> Provenance:
    """Everything that the result depends on; without `base` as far as it is known."""
    return Provenance(result_settings(training.spec), dataset.scanned.digests, base.digests if base else {})


def identity_of(training: LoraTraining, dataset: PlannedDataset, *, base_digest: str) -> RunIdentity:
    """What makes two starts the same run."""
    return RunIdentity(
        name=training.output_name,
        spec_digest=spec_digest(training.spec),
        dataset_digest=dataset.scanned.digest,
        base_digest=base_digest,
        total_steps=dataset.plan.total_steps,
    )


def open_output(spec: LoraTrainingSpec, session: Session) -> Store:
    """The output, tried out: a wrong bucket or key is better found before the training than after it.

    Once it has answered, an outage of some minutes is waited for: the training goes on before its uploads.

    Raises:
        TrainingError: as the store answers.
    """
    retried = session.audience.metrics.add_storage_retry
    connection = replace(Connection.for_section(spec, session.settings, "output"), on_retry=retried)
    field, stored = "spec.output.uri", session.audience.stored
    check_writable(open_store(spec.output.uri, connection, field=field, on_bytes=stored))
    return open_store(spec.output.uri, replace(connection, attempts=_PATIENT_ATTEMPTS), field=field, on_bytes=stored)


def make_fetcher(spec: LoraTrainingSpec, session: Session) -> Fetcher:
    def on_bytes(count: int) -> None:
        session.audience.metrics.add_fetched(count)
        session.check_stop()

    return Fetcher(spec, session.settings, on_bytes, session.audience.metrics.add_storage_retry)


def base_sources(spec: LoraTrainingSpec) -> dict[str, Source]:
    """Every model and adapter, by name: `model`, `vae`, `adapters[<n>]`, `initial` and `captioner`."""
    base, initial, generator = spec.base_model, spec.network.initial_uri, spec.dataset.captions.generate
    sources = {"model": Source(base.uri, "spec.baseModel.uri", BaseModelUnavailable, FILES)}
    if base.vae_uri is not None:
        sources["vae"] = Source(base.vae_uri, "spec.baseModel.vaeUri", BaseModelUnavailable, VAE_FILES)
    for index, adapter in enumerate(base.adapters):
        field = f"spec.baseModel.adapters[{index}].uri"
        sources[f"adapters[{index}]"] = Source(adapter.uri, field, BaseModelUnavailable, _ADAPTER_FILES)
    if initial is not None:
        sources["initial"] = Source(initial, "spec.network.initialUri", InvalidConfiguration, _ADAPTER_FILES)
    if generator is not None:
        sources["captioner"] = Source(generator.model_uri, CAPTIONER, BaseModelUnavailable, captioning.FILES)
    return sources


def _fetch(name: str, source: Source, fetcher: Fetcher) -> Path:
    if name in ("model", "vae", "captioner"):
        return fetcher.fetch(source)
    return fetcher.fetch_file(source.uri, source.field, source.unusable)
