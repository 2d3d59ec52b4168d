"""One training from the spec to the manifest, stage by stage. Called by `lora run`; the pod runs the same.

fetch -> scan -> bucket -> plan -> encode -> adapt -> (batch -> step -> report) -> save -> store
"""

import gc
import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace

import torch
from accelerate import Accelerator
from torch import Tensor

from lora_api.exit_codes import ExitCode, outcome_of
from lora_api.spec import LoraTraining, LoraTrainingSpec
from lora_api.status import MemoryRung
from lora_trainer import memory
from lora_trainer.assembly import (
    Residence,
    base_name,
    check_prediction,
    load_model,
    make_learner,
    make_painter,
    make_residence,
    open_inputs,
)
from lora_trainer.checks import check_training
from lora_trainer.compute import make_accelerator, prefer_determinism
from lora_trainer.conditioning import size_conditions
from lora_trainer.data.buckets import side_limits
from lora_trainer.data.statistics import describe_dataset
from lora_trainer.errors import Interrupted, InterruptedUnsaved, OutOfMemory, StorageUnavailable, TrainingError
from lora_trainer.evaluate import CompletedRun, Studio, check_grid, evaluate, evaluate_finished
from lora_trainer.families.base import BaseModel
from lora_trainer.families.opening import hashes_of_model, hashes_of_vae
from lora_trainer.generated_captions import publish_captions, with_generated_captions
from lora_trainer.generators import generator
from lora_trainer.loop import Trainer, train
from lora_trainer.lora.metadata import RunFacts
from lora_trainer.lora.verify import Probe
from lora_trainer.measuring import make_bench
from lora_trainer.memory import StepTooLarge
from lora_trainer.optim import optimizer_class_name
from lora_trainer.output import RunOutput
from lora_trainer.prepare import Prepared, Session, open_output, prepare
from lora_trainer.recorder import Product, Recorder
from lora_trainer.results import Ended, completed
from lora_trainer.rng import Purpose
from lora_trainer.run_documents import Document, PictureFolders, run_documents
from lora_trainer.sources import truncation_warning
from lora_trainer.state_places import Wanted, is_changed, newest_state
from lora_trainer.stopping import StopRequested
from lora_trainer.storage import MissingFile, Store
from lora_trainer.takeover import taking_over
from lora_trainer.uploads import StillUploading

logger = logging.getLogger(__name__)

_PROBE_CELLS = 8
"""Side in latent cells of the picture on which a written adapter is tried."""


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
        doing = session.audience.tracker.snapshot().reason
        raise OutOfMemory(f"the GPU has too little memory ({doing}): {str(error).splitlines()[0]}") from error


def _run(training: LoraTraining, session: Session) -> Ended:
    spec = training.spec
    check_training(training)
    accelerator = make_accelerator(spec)  # Without a GPU nothing needs to be fetched.
    prefer_determinism(cpu_threads=session.settings.cpu_threads)
    store = open_output(spec, session)
    prepared = prepare(training, session)
    finished = completed(store, prepared.identity, prepared.provenance)
    if finished is not None:
        return evaluate_finished(finished, store, prepared, session)
    # Before the output is taken over: a run of other settings or data may still be writing to it.
    if (found := newest_state(store)) is not None:
        is_changed(store, *found, Wanted(prepared.identity, prepared.provenance, spec.resume.on_change))
    prepared = with_generated_captions(prepared, store, accelerator.device, session)
    return _train_within_memory(store, prepared, session)


def _train_within_memory(store: Store, prepared: Prepared, session: Session) -> Ended:
    """Trains; after a step that was too large for the GPU once more, from the newest state, with less."""
    rungs = _rungs_taken(store, prepared)
    while True:
        try:
            with taking_over(store, prepared, rungs, session) as output:
                return _train(store, prepared, rungs, output, session)
        except StepTooLarge as error:
            rungs = (*rungs, _next_rung(prepared.training.spec, rungs, error))
        # Model and optimizer go with the frames of the error; this gives their room back to the device.
        gc.collect()
        torch.cuda.empty_cache()
        logger.warning("too little memory: %s; going on from the newest state", rungs[-1].message)
        session.audience.tracker.add_notice(rungs[-1].name, rungs[-1].message)


def _rungs_taken(store: Store, prepared: Prepared) -> tuple[MemoryRung, ...]:
    if prepared.training.spec.retry.on_out_of_memory == "Fail":
        return ()
    try:
        return memory.from_json(store.get_bytes(memory.RUNGS_KEY), spec_digest=prepared.identity.spec_digest)
    except MissingFile:
        return ()


def _next_rung(spec: LoraTrainingSpec, rungs: Sequence[MemoryRung], error: StepTooLarge) -> MemoryRung:
    """Raises OutOfMemory when the spec wants no ladder, or its end is reached."""
    message = f"the GPU has too little memory for a step: {error}"
    if spec.retry.on_out_of_memory == "Fail":
        cure = outcome_of(ExitCode.OUT_OF_MEMORY).hint + " Or set retry.onOutOfMemory: Ladder."
        raise OutOfMemory(message, hint=cure) from error
    rung = memory.next_rung(spec, rungs, step=error.step)
    if rung is None:
        tried = ", ".join(rung.name for rung in rungs) or "nothing, for there was nothing to give up"
        raise OutOfMemory(f"{message}; the ladder has ended, it gave up {tried}") from error
    return rung


def _train(store: Store, prepared: Prepared, rungs: Sequence[MemoryRung], output: RunOutput, session: Session) -> Ended:
    """Trains with what `rungs` leave; adapters say so, but it is the same run."""
    at_once = memory.examples_at_once(prepared.training.spec, rungs)
    spec, plan = memory.apply(prepared.training.spec, rungs), prepared.dataset.plan
    training, documents = prepared.training.model_copy(update={"spec": spec}), _documents(prepared)
    prepared, accelerator = replace(prepared, training=training), make_accelerator(spec)
    model = load_model(prepared, accelerator.device, session)
    _warn_of_cut_captions(prepared, model, session)
    learner = make_learner(model, spec, prepared=prepared)
    residence = make_residence(model, spec, accelerator.device)
    trainer = Trainer(learner, plan=plan, spec=spec, accelerator=accelerator, examples_at_once=at_once)
    painter = make_painter(learner, residence, accelerator.autocast, session)
    check_grid(spec, painter)
    probe = _probe(residence, accelerator)
    product = Product(training, _facts(prepared), learner.adapters, probe, painter, documents)
    recorder = Recorder(product, trainer, output, session.audience, log_file=session.log_file)
    residence.settle()
    with open_inputs(prepared, residence, accelerator.autocast, session) as inputs:
        _resume(recorder, output, session)
        publish_captions(output, prepared.captions)
        if trainer.step == 0:
            check_prediction(learner, inputs, accelerator.autocast, accelerator.device, examples=at_once)
        with _saving_when_stopped(recorder, trainer, output, session):
            bench = make_bench(
                prepared,
                learner,
                inputs,
                autocast=accelerator.autocast,
                device=accelerator.device,
                on_batch=session.check_stop,
            )
            recorder.begin(bench)
            train(
                trainer,
                inputs,
                should_stop=session.should_stop,
                after_step=recorder.after_step,
                after_epoch=recorder.after_epoch,
                is_over=lambda: recorder.is_over,
            )
            manifest = recorder.finish()
    studio = Studio(painter, learner.adapters)
    evaluate(CompletedRun(prepared, store, output, manifest), lambda: studio, session)
    adapter_uri = recorder.artifacts().adapter_uri
    early = f", stopped early of {plan.epochs}" if trainer.epoch < plan.epochs else ""
    return Ended("Completed", f"{trainer.step} steps in {trainer.epoch} epochs{early}: {adapter_uri}")


def _warn_of_cut_captions(prepared: Prepared, model: BaseModel, session: Session) -> None:
    warning = truncation_warning(prepared.dataset.scanned.examples, prepared.training.spec, model.count_tokens)
    if warning:
        logger.warning("%s", warning)
        plan = replace(prepared.dataset.plan, warnings=(*prepared.dataset.plan.warnings, warning))
        session.audience.tracker.set_plan(plan.to_status())


def _resume(recorder: Recorder, output: RunOutput, session: Session) -> None:
    saved = output.newest_state()
    if saved is None:
        logger.info("no state of this run at %s: it starts at step 0", output.uri_of("state"))
        return
    session.say("Resuming", f"from step {saved.training.step}")
    if saved.is_changed:
        message = f"pictures or base model changed since step {saved.training.step}; its epoch begins anew with them"
        session.audience.tracker.add_notice("ResumedOnChange", message)
    recorder.resume(saved)


@contextmanager
def _saving_when_stopped(recorder: Recorder, trainer: Trainer, output: RunOutput, session: Session) -> Iterator[None]:
    """Turns the order to stop into the error that says whether the state could be stored."""
    try:
        yield
    except StopRequested as stop:
        raise _stopped(recorder, trainer, output, session) from stop
    except StorageUnavailable as error:
        if session.should_stop():
            # A preemption, not a failure: the store or the disk had no more time to come back.
            raise InterruptedUnsaved(f"told to stop, but the state could not be stored: {error}") from error
        raise


def _stopped(recorder: Recorder, trainer: Trainer, output: RunOutput, session: Session) -> TrainingError:
    """Saves the state while there is time; gives the error that says whether that went well."""
    place = f"told to stop at step {trainer.step}"
    session.say("Saving", f"{place}: storing the state")
    try:
        recorder.tell_position()
        recorder.save_state()
        output.wait(session.seconds_left())
    except (TrainingError, StillUploading) as error:
        return InterruptedUnsaved(f"{place}, but the state could not be stored: {error}")
    if not recorder.saves_states and trainer.step > 0:
        return InterruptedUnsaved(f"{place}, and spec.checkpoints.saveState is false: the next attempt begins anew")
    return Interrupted(f"{place}; the next attempt goes on from there")


def _documents(prepared: Prepared) -> tuple[Document, ...]:
    plan = prepared.dataset.plan
    statistics = describe_dataset(prepared.dataset.pictures, plan)
    folders = PictureFolders(statistics.training_folders, statistics.tag_frequency)
    return run_documents(prepared.training, plan, folders, dataset_digest=prepared.identity.dataset_digest)


def _facts(prepared: Prepared) -> RunFacts:
    spec, plan, identity = prepared.training.spec, prepared.dataset.plan, prepared.identity
    statistics = describe_dataset(prepared.dataset.pictures, plan)
    vae_uri, files = spec.base_model.vae_uri, prepared.base.model
    base_hash, base_digest = hashes_of_model(files)
    vae_hash, vae_digest = hashes_of_vae(files)
    session = "".join((identity.spec_digest, identity.dataset_digest, identity.base_digest))
    return RunFacts(
        base_name=base_name(prepared),
        base_digest=base_digest,
        base_old_hash=base_hash,
        family=files.family,
        prediction=files.prediction,
        session_id=int(hashlib.sha256(session.encode()).hexdigest()[:8], 16),
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
        subsets=statistics.subsets,
        vae_name=None if vae_uri is None else vae_uri.rstrip("/").rpartition("/")[2],
        vae_digest=vae_digest,
        vae_old_hash=vae_hash,
    )


def _probe(residence: Residence, accelerator: Accelerator) -> Probe:
    """Runs text encoders and UNet on one small fixed input."""
    model, device = residence.model, residence.device
    autocast: Callable[[], AbstractContextManager[object]] = accelerator.autocast
    shape = (1, model.latent_channels, _PROBE_CELLS, _PROBE_CELLS)
    latents = torch.randn(shape, generator=generator(0, Purpose.SAMPLE, "probe")).to(device)
    tokens = model.tokenize(["a photo of a person on a blue background"])
    timesteps = torch.tensor([500], device=device)
    side = _PROBE_CELLS * model.pixels_per_latent
    sizes = size_conditions((side, side), (0, 0), (side, side))[None].to(device)

    @torch.no_grad()
    def probe() -> tuple[Tensor, ...]:
        with residence.having(*model.parts), autocast():
            text = model.encode_texts(tokens)
            states = (text.states.float(),) if text.pooled is None else (text.states.float(), text.pooled.float())
            return *states, model.predict(latents, timesteps, text, sizes)

    return probe
