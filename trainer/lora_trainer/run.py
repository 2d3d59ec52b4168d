"""One training from the spec to the manifest, stage by stage. Called by `lora run`; the pod runs the same.

fetch -> scan -> bucket -> plan -> encode -> adapt -> (batch -> step -> report) -> save -> store
"""

import hashlib
import logging
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor

from lora_api.run_manifest import RunManifest, spec_digest
from lora_api.spec import LoraTraining, LoraTrainingSpec
from lora_trainer.compute import DTYPES, make_accelerator, prefer_determinism
from lora_trainer.data.buckets import side_limits
from lora_trainer.data.dataset import ScannedDataset, scan
from lora_trainer.data.latents import encode_pictures
from lora_trainer.data.placed import PlacedExample, place_examples
from lora_trainer.data.statistics import describe_dataset
from lora_trainer.data.texts import frozen_texts, trained_texts
from lora_trainer.diffusion.noise import make_schedule
from lora_trainer.drawing import Painter
from lora_trainer.errors import (
    BaseModelUnavailable,
    Interrupted,
    InterruptedUnsaved,
    InvalidDataset,
    OutOfMemory,
    TrainingError,
)
from lora_trainer.families import sd15
from lora_trainer.families.base import BaseModel
from lora_trainer.families.detect import identify, refuse_single_file
from lora_trainer.loop import Inputs, StopRequested, Trainer, train
from lora_trainer.lora.inject import add_adapters
from lora_trainer.lora.metadata import RunFacts
from lora_trainer.lora.verify import Probe
from lora_trainer.optim import learning_rates, optimizer_class_name
from lora_trainer.output import RunIdentity, RunOutput
from lora_trainer.plan import TrainingPlan, derive_plan
from lora_trainer.recorder import Audience, Product, Recorder, adapter_path, artifacts_of, checkpoint_of
from lora_trainer.rng import Purpose, generator
from lora_trainer.settings import Settings
from lora_trainer.storage import Connection, Source, Store, check_writable, fetch, open_store

logger = logging.getLogger(__name__)

_LATENTS_ON_DEVICE_BYTES = 2 << 30
"""Latents up to this size move to the device; more would take the room of activations."""
_PROBE_CELLS = 8
"""Side in latent cells of the picture on which a written adapter is tried."""


@dataclass(frozen=True)
class Session:
    """The surroundings of a run: where things are, who is told, and whether to stop."""

    settings: Settings
    audience: Audience
    should_stop: Callable[[], bool]

    def check_stop(self) -> None:
        """Raises StopRequested when the process was told to stop."""
        if self.should_stop():
            raise StopRequested

    def say(self, reason: str, message: str = "") -> None:
        """Tells what is being done."""
        logger.info("%s%s", reason, f": {message}" if message else "")
        self.audience.tracker.set_reason(reason, message)


@dataclass(frozen=True)
class Prepared:
    """What is known before the model is loaded."""

    training: LoraTraining
    base: Path
    base_digest: str
    dataset: ScannedDataset
    pictures: tuple[PlacedExample, ...]
    plan: TrainingPlan


@dataclass(frozen=True)
class Ended:
    """How a run ended well."""

    reason: str
    """`Completed` or `AlreadyTrained`."""
    message: str


def run_training(training: LoraTraining, session: Session) -> Ended:
    """Trains, and leaves everything at `output.uri`. A second start goes on from the newest state there.

    Raises:
        TrainingError: as the class says; `Interrupted` when `session.should_stop` became true.
    """
    try:
        return _run(training, session)
    except StopRequested as stop:
        message = "told to stop before the first new step; nothing was lost"
        raise Interrupted(message, hint="The next attempt begins where this one did.") from stop
    except torch.OutOfMemoryError as error:
        raise OutOfMemory(f"the GPU has too little memory: {str(error).splitlines()[0]}") from error


def _run(training: LoraTraining, session: Session) -> Ended:
    spec = training.spec
    accelerator = make_accelerator(spec)
    prefer_determinism(cpu_threads=session.settings.cpu_threads)
    refuse_single_file(spec.base_model.uri)
    store = _open_output(spec, session)
    prepared = _prepare(training, session)
    session.settings.work_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=session.settings.work_dir, prefix="output-") as folder:
        output = RunOutput(store, _identity(prepared), attempt=session.settings.attempt, folder=Path(folder))
        finished = output.completed()
        if finished is not None:
            return _already_trained(finished, output, session)
        model = _load_model(prepared, accelerator.device, session)
        return _train(prepared, model, accelerator, output, session)


def _open_output(spec: LoraTrainingSpec, session: Session) -> Store:
    """The output, tried out: a wrong bucket or key is better found before the training than after it."""
    connection = Connection(spec.storage, session.settings)
    metrics = session.audience.metrics
    store = open_store(spec.output.uri, connection, field="spec.output.uri", on_bytes=metrics.add_stored)
    check_writable(store)
    return store


def _prepare(training: LoraTraining, session: Session) -> Prepared:
    """Fetches base model and pictures, and plans."""
    spec = training.spec
    session.say("Downloading", "base model and pictures")
    base = _fetch(Source(spec.base_model.uri, "spec.baseModel.uri", BaseModelUnavailable, sd15.FILES), spec, session)
    identify(base, spec.base_model)
    assert spec.dataset.uri is not None, "the contract refuses a dataset without uri"
    data = _fetch(Source(spec.dataset.uri, "spec.dataset.uri", InvalidDataset), spec, session)
    session.check_stop()
    dataset = scan(data, spec.dataset)
    pictures = place_examples(dataset.examples, spec.dataset)
    plan = derive_plan([picture.to_planned() for picture in pictures], spec, warnings=dataset.warnings)
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
    return Prepared(training, base, sd15.digest_of(base), dataset, pictures, plan)


def _fetch(source: Source, spec: LoraTrainingSpec, session: Session) -> Path:
    """A local copy; what an earlier start fetched is used again."""

    def on_bytes(count: int) -> None:
        session.audience.metrics.add_fetched(count)
        session.check_stop()

    name = hashlib.sha256(f"{spec.storage.endpoint} {source.uri}".encode()).hexdigest()[:16]
    target = session.settings.work_dir / "fetched" / name
    connection = Connection(spec.storage, session.settings)
    return fetch(source, target, connection, on_bytes=on_bytes, workers=spec.dataset.workers or 1)


def _identity(prepared: Prepared) -> RunIdentity:
    return RunIdentity(
        name=prepared.training.output_name,
        spec_digest=spec_digest(prepared.training.spec),
        dataset_digest=prepared.dataset.digest,
        base_digest=prepared.base_digest,
        total_steps=prepared.plan.total_steps,
    )


def _already_trained(manifest: RunManifest, output: RunOutput, session: Session) -> Ended:
    tracker = session.audience.tracker
    output.take_over(manifest)
    loss = None
    for file in manifest.files:
        if file.kind == "adapter" and file.path != adapter_path(manifest.name, None):
            tracker.add_checkpoint(checkpoint_of(file, output))
            loss = file.loss
    tracker.step(manifest.step, epoch=manifest.epoch, loss=loss, learning_rate=None)
    artifacts = artifacts_of(output, manifest.name)
    tracker.set_artifacts(artifacts)
    return Ended("AlreadyTrained", f"this very run was completed {manifest.created_time}: {artifacts.adapter_uri}")


def _load_model(prepared: Prepared, device: torch.device, session: Session) -> BaseModel:
    spec = prepared.training.spec
    session.say("LoadingModel", spec.base_model.uri)
    model: BaseModel = sd15.load(
        prepared.base,
        device,
        precision=DTYPES[spec.training.precision],
        clip_skip=spec.base_model.clip_skip,
        max_tokens=spec.dataset.captions.max_tokens,
    )
    if spec.training.gradient_checkpointing:
        model.checkpoint_gradients()
    limit = spec.dataset.captions.max_tokens
    counts = model.count_tokens([example.caption for example in prepared.dataset.examples])
    cut = sum(count > limit for count in counts)
    if cut:
        warning = f"{cut} captions are longer than {limit} tokens and are cut; raise spec.dataset.captions.maxTokens."
        logger.warning("%s", warning)
        plan = replace(prepared.plan, warnings=(*prepared.plan.warnings, warning))
        session.audience.tracker.set_plan(plan.to_status())
    return model


def _train(
    prepared: Prepared, model: BaseModel, accelerator: Accelerator, output: RunOutput, session: Session
) -> Ended:
    training, plan = prepared.training, prepared.plan
    spec = training.spec
    adapters = add_adapters(model.unet, model.text_encoder, spec.network, seed=spec.training.seed)
    logger.info("adapters in %s modules of the UNet", len(adapters.of("unet")))
    logger.info("adapters in %s modules of the text encoder", len(adapters.of("text_encoder")))
    betas = model.betas
    schedule = make_schedule(betas.start, betas.end, steps=betas.steps, name=betas.name)
    trainer = Trainer(model, adapters, schedule=schedule, plan=plan, spec=spec, accelerator=accelerator)
    painter = Painter(model, schedule, accelerator.autocast, session.check_stop)
    product = Product(training, _facts(prepared), adapters, _probe(model, accelerator), painter)
    recorder = Recorder(product, trainer, output, session.audience)
    inputs = _inputs(prepared, model, accelerator, session)
    _resume(recorder, output, session)
    try:
        recorder.begin()
        train(
            trainer,
            inputs,
            should_stop=session.should_stop,
            after_step=recorder.after_step,
            after_epoch=recorder.after_epoch,
        )
        artifacts = recorder.finish()
    except StopRequested as stop:
        raise _stopped(recorder, trainer) from stop
    return Ended("Completed", f"{plan.total_steps} steps in {plan.epochs} epochs: {artifacts.adapter_uri}")


def _resume(recorder: Recorder, output: RunOutput, session: Session) -> None:
    saved = output.newest_state()
    if saved is None:
        logger.info("no state of this run at %s: it starts at step 0", output.uri_of("state"))
        return
    session.say("Resuming", f"from step {saved.training.step}")
    recorder.resume(saved)


def _stopped(recorder: Recorder, trainer: Trainer) -> TrainingError:
    """Saves the state; gives the error that says whether that went well."""
    try:
        recorder.save_state()
    except TrainingError as error:
        return InterruptedUnsaved(f"told to stop at step {trainer.step}, but the state could not be stored: {error}")
    return Interrupted(f"told to stop at step {trainer.step}; the next attempt goes on from there")


def _inputs(prepared: Prepared, model: BaseModel, accelerator: Accelerator, session: Session) -> Inputs:
    """Encodes the pictures, and the captions too if the text encoder is not trained."""
    spec = prepared.training.spec
    device = accelerator.device
    total = len(prepared.pictures)
    session.say("EncodingLatents", f"{total} pictures")

    def on_progress(done: int, total: int) -> None:
        session.audience.tracker.set_reason("EncodingLatents", f"{done} of {total} pictures")
        session.check_stop()

    cache = encode_pictures(
        prepared.pictures,
        model.encode_images,
        flip=spec.dataset.augmentation.flip,
        workers=spec.dataset.workers,
        on_progress=on_progress,
    )
    if cache.size_bytes <= _LATENTS_ON_DEVICE_BYTES:
        cache = cache.to(device)
    examples = prepared.dataset.examples
    captions = [example.caption for example in examples]
    text_is_trained = spec.network.text_encoder and learning_rates(spec.optimizer)["text_encoder"] > 0
    texts = trained_texts if text_is_trained else frozen_texts
    with accelerator.autocast():
        states = texts(captions, model.tokenize, model.encode_texts, device=device)
    weight = spec.dataset.regularization.loss_weight
    weights = torch.tensor([weight if example.is_regularization else 1.0 for example in examples])
    return Inputs(lambda index, flipped: cache.get(index, flipped=flipped), states, weights)


def _facts(prepared: Prepared) -> RunFacts:
    spec, plan = prepared.training.spec, prepared.plan
    statistics = describe_dataset(prepared.pictures, plan)
    identity = "".join((spec_digest(spec), prepared.dataset.digest, prepared.base_digest))
    return RunFacts(
        base_name=_base_name(spec.base_model.uri, prepared.base_digest),
        base_digest=prepared.base_digest,
        session_id=int(hashlib.sha256(identity.encode()).hexdigest()[:8], 16),
        optimizer=optimizer_class_name(spec.optimizer),
        training_samples=statistics.training_samples,
        regularization_samples=statistics.regularization_samples,
        batches_per_epoch=plan.batches_per_epoch,
        epochs=plan.epochs,
        total_steps=plan.total_steps,
        bucket_limits=side_limits(spec.dataset.size_px, spec.dataset.buckets),
        bucket_info=statistics.bucket_info,
        dataset_dirs=statistics.training_folders,
        regularization_dirs=statistics.regularization_folders,
        tag_frequency=statistics.tag_frequency,
    )


def _base_name(uri: str, digest: str) -> str:
    """The hub's name of the model; other URIs say where it lies, not what it is, so the digest names it."""
    return uri.removeprefix("hf://").partition("@")[0] if uri.startswith("hf://") else f"sd15-{digest[:8]}"


def _probe(model: BaseModel, accelerator: Accelerator) -> Probe:
    """Runs text encoder and UNet on one small fixed input."""
    device: torch.device = accelerator.device
    autocast: Callable[[], AbstractContextManager[object]] = accelerator.autocast
    shape = (1, model.latent_channels, _PROBE_CELLS, _PROBE_CELLS)
    latents = torch.randn(shape, generator=generator(0, Purpose.SAMPLE, "probe")).to(device)
    ids = model.tokenize(["a photo of a person on a blue background"]).to(device)
    timesteps = torch.tensor([500], device=device)

    @torch.no_grad()
    def probe() -> tuple[Tensor, ...]:
        with autocast():
            states = model.encode_texts(ids)
            return states.float(), model.predict(latents, timesteps, states)

    return probe
