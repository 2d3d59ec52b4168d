"""What is known before a model is loaded: fetched files, planned pictures, and what makes the run the same run.

Used by `run`.
"""

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lora_api.run_manifest import spec_digest
from lora_api.spec import LoraTraining, LoraTrainingSpec
from lora_trainer.errors import BaseModelUnavailable, InvalidConfiguration
from lora_trainer.families.catalogue import FILES, VAE_FILES, ModelFiles, open_model
from lora_trainer.families.model_files import sha256_of
from lora_trainer.output import RunIdentity
from lora_trainer.recorder import Audience
from lora_trainer.settings import Settings
from lora_trainer.sources import Fetcher, PlannedDataset, fetch_dataset, plan_dataset
from lora_trainer.stopping import StopRequested
from lora_trainer.storage import Connection, Source

logger = logging.getLogger(__name__)


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
    """Local copies of the base model and what is added to it."""

    model: ModelFiles
    adapters: tuple[tuple[Path, float], ...]
    """Files and the strengths at which they are merged."""
    digest: str
    """SHA-256 over the content of all of them."""


@dataclass(frozen=True)
class Prepared:
    """What is known before the model is loaded."""

    training: LoraTraining
    base: BaseFiles
    initial: Path | None
    """The adapter to start from."""
    dataset: PlannedDataset
    identity: RunIdentity


def prepare(training: LoraTraining, session: Session) -> Prepared:
    """Fetches base model and pictures, and plans.

    Raises:
        TrainingError: as fetching, identifying and planning say.
        StopRequested: the process was told to stop.
    """
    spec = training.spec
    session.say("Downloading", "base model and pictures")
    fetcher = _fetcher(spec, session)
    base = _fetch_base(spec, fetcher)
    initial = _fetch_initial(spec, fetcher)
    sources = fetch_dataset(spec, fetcher)
    session.check_stop()
    dataset = plan_dataset(spec, sources)
    plan = dataset.plan
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
    session.audience.tracker.set_plan(plan.to_status())
    start = () if initial is None else (sha256_of(initial),)
    identity = RunIdentity(
        name=training.output_name,
        spec_digest=spec_digest(spec),
        dataset_digest=dataset.scanned.digest,
        base_digest=_combined(base.digest, *start),
        total_steps=plan.total_steps,
    )
    return Prepared(training, base, initial, dataset, identity)


def _fetcher(spec: LoraTrainingSpec, session: Session) -> Fetcher:
    def on_bytes(count: int) -> None:
        session.audience.metrics.add_fetched(count)
        session.check_stop()

    return Fetcher(Connection(spec.storage, session.settings), on_bytes, spec.dataset.workers)


def _fetch_base(spec: LoraTrainingSpec, fetcher: Fetcher) -> BaseFiles:
    base = spec.base_model
    path = fetcher.fetch(Source(base.uri, "spec.baseModel.uri", BaseModelUnavailable, FILES))
    vae = None
    if base.vae_uri is not None:
        vae = fetcher.fetch(Source(base.vae_uri, "spec.baseModel.vaeUri", BaseModelUnavailable, VAE_FILES))
    model = open_model(path, base, vae=vae)
    adapters = []
    for index, adapter in enumerate(base.adapters):
        field = f"spec.baseModel.adapters[{index}].uri"
        adapters.append((fetcher.fetch_file(adapter.uri, field, BaseModelUnavailable), adapter.weight))
    parts = [f"{sha256_of(path)} {weight!r}" for path, weight in adapters]
    return BaseFiles(model, tuple(adapters), _combined(model.digest, *parts))


def _fetch_initial(spec: LoraTrainingSpec, fetcher: Fetcher) -> Path | None:
    uri = spec.network.initial_uri
    return None if uri is None else fetcher.fetch_file(uri, "spec.network.initialUri", InvalidConfiguration)


def _combined(first: str, *more: str) -> str:
    """`first` alone, or the SHA-256 over it and the others."""
    return hashlib.sha256("\n".join((first, *more)).encode()).hexdigest() if more else first
