"""One training from the spec to the manifest, stage by stage. Called by `lora run`; the pod runs the same.

fetch -> scan -> bucket -> plan -> encode -> adapt -> (batch -> step -> report) -> save -> store
"""

import hashlib
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace

import torch
from accelerate import Accelerator
from torch import Tensor

from lora_api.spec import LoraTraining
from lora_api.status import MemoryRung
from lora_trainer import memory
from lora_trainer.assembly import Residence, base_name, check_prediction, make_painter, open_inputs
from lora_trainer.briefing import Briefing, brief
from lora_trainer.checkpoint import state_to_bytes
from lora_trainer.checks import check_training
from lora_trainer.compute import make_accelerator, prefer_determinism
from lora_trainer.conditioning import size_conditions
from lora_trainer.data.buckets import side_limits
from lora_trainer.data.statistics import describe_dataset
from lora_trainer.errors import Interrupted, InterruptedUnsaved, OutOfMemory, StorageUnavailable, TrainingError
from lora_trainer.evaluate import CompletedRun, Studio, check_grid, evaluate, evaluate_finished
from lora_trainer.families.base import BaseModel
from lora_trainer.families.opening import hashes_of_model, hashes_of_vae
from lora_trainer.follow import follow
from lora_trainer.generated_captions import publish_captions, with_generated_captions
from lora_trainer.generators import generator
from lora_trainer.ladder import descend
from lora_trainer.loop import Trainer, train
from lora_trainer.lora.metadata import RunFacts
from lora_trainer.lora.verify import Probe
from lora_trainer.measuring import make_bench
from lora_trainer.optim import optimizer_class_name
from lora_trainer.output import RunOutput
from lora_trainer.prepare import Prepared, Session, open_output, prepare
from lora_trainer.recorder import Product, Recorder
from lora_trainer.rendezvous import joined
from lora_trainer.results import Ended, completed
from lora_trainer.rng import Purpose
from lora_trainer.run_documents import Document, PictureFolders, run_documents
from lora_trainer.sources import truncation_warning
from lora_trainer.state_places import Wanted, is_changed, newest_state
from lora_trainer.stopping import StopRequested
from lora_trainer.storage import MissingFile, Store
from lora_trainer.takeover import taking_over
from lora_trainer.uploads import StillUploading
from lora_trainer.workshop import Workshop, set_up
from lora_trainer.world import World

logger = logging.getLogger(__name__)

_PROBE_CELLS = 8
"""Side in latent cells of the picture on which a written adapter is tried."""


def run_training(training: LoraTraining, session: Session) -> Ended:
    """Trains, and leaves everything at `output.uri`. A second start goes on from the newest state there.

    Where several processes train together, each of them calls it.

    Raises:
        TrainingError: as the class says; `Interrupted` when `session.should_stop` became true.
    """
    try:
        check_training(training)
        with joined(training.spec, session) as world:
            return train_in(world, training, session)
    except StopRequested as stop:
        message = f"{str(stop) or 'told to stop'} before the first new step; nothing was lost"
        raise Interrupted(message, hint="The next attempt begins where this one did.") from stop
    except torch.OutOfMemoryError as error:
        doing = session.audience.tracker.snapshot().reason
        raise OutOfMemory(f"the GPU has too little memory ({doing}): {str(error).splitlines()[0]}") from error


def train_in(world: World, training: LoraTraining, session: Session) -> Ended:
    """Trains as one of the processes of `world`; the first one does all but the steps alone. Raises as `run_training`,
    and StopRequested before there is anything to be saved."""
    return _lead(world, training, session) if world.is_lead else follow(world, training, session)


def _lead(world: World, training: LoraTraining, session: Session) -> Ended:
    spec = training.spec
    accelerator = make_accelerator(spec)  # Without a GPU nothing needs to be fetched.
    prefer_determinism(cpu_threads=session.settings.cpu_threads)
    store = open_output(spec, session)
    prepared = prepare(training, session)
    finished = completed(store, prepared.identity, prepared.provenance)
    if finished is not None:
        brief(world, None)
        return evaluate_finished(finished, store, prepared, session, look=lambda: prepared)
    # Before the output is taken over: a run of other settings or data may still be writing to it.
    if (found := newest_state(store)) is not None:
        is_changed(store, *found, Wanted(prepared.identity, prepared.provenance, spec.resume.on_change))
    prepared = with_generated_captions(prepared, store, accelerator.device, session)
    return _train_within_memory(store, prepared, session, world)


def _train_within_memory(store: Store, prepared: Prepared, session: Session, world: World) -> Ended:
    """Trains; after a step that was too large for the GPU once more, from the newest state, with less."""

    def train_with(rungs: tuple[MemoryRung, ...]) -> Ended:
        with taking_over(store, prepared, rungs, session) as output:
            workshop = set_up(prepared, rungs, session, world)
            return _train(store, workshop, documents, output, session)

    def on_rung(rung: MemoryRung) -> None:
        logger.warning("too little memory: %s; going on from the newest state", rung.message)
        session.audience.tracker.add_notice(rung.name, rung.message)

    rungs, documents = _rungs_taken(store, prepared), _documents(prepared)
    brief(world, Briefing(prepared.identity, prepared.captions, rungs))
    return descend(prepared.training.spec, rungs, train_with, on_rung=on_rung)


def _rungs_taken(store: Store, prepared: Prepared) -> tuple[MemoryRung, ...]:
    if prepared.training.spec.retry.on_out_of_memory == "Fail":
        return ()
    try:
        return memory.from_json(store.get_bytes(memory.RUNGS_KEY), spec_digest=prepared.identity.spec_digest)
    except MissingFile:
        return ()


def _train(
    store: Store, workshop: Workshop, documents: tuple[Document, ...], output: RunOutput, session: Session
) -> Ended:
    """Trains with what the rungs have left; adapters say so, but it is the same run."""
    prepared, learner, residence = workshop.prepared, workshop.learner, workshop.residence
    trainer, device, autocast = workshop.trainer, workshop.accelerator.device, workshop.accelerator.autocast
    _warn_of_cut_captions(prepared, learner.model, session)
    painter = make_painter(learner, residence, autocast, session)
    check_grid(prepared.training.spec, painter)
    probe = _probe(residence, workshop.accelerator)
    product = Product(prepared.training, _facts(prepared), learner.adapters, probe, painter, documents)
    recorder = Recorder(product, trainer, output, session.audience, log_file=session.log_file)
    residence.settle()
    with open_inputs(prepared, residence, autocast, session, world=trainer.world) as inputs:
        _resume(recorder, output, session)
        _share_state(trainer)
        publish_captions(output, prepared.captions)
        if trainer.step == 0:
            check_prediction(learner, inputs, autocast, device, examples=workshop.examples_at_once)
        with _saving_when_stopped(recorder, trainer, output, session):
            bench = make_bench(prepared, learner, inputs, autocast=autocast, device=device, on_batch=session.check_stop)
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
    evaluate(CompletedRun(prepared, store, output, manifest, lambda: prepared), lambda: studio, session)
    adapter_uri = recorder.artifacts().adapter_uri
    early = f", stopped early of {trainer.plan.epochs}" if trainer.epoch < trainer.plan.epochs else ""
    return Ended("Completed", f"{trainer.step} steps in {trainer.epoch} epochs{early}: {adapter_uri}")


def _share_state(trainer: Trainer) -> None:
    """Lets the other processes begin where this one does."""
    if trainer.world.size > 1:
        trainer.world.from_lead(state_to_bytes(trainer.state()))


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
        place = f"{str(stop) or trainer.world.why_stop()} at step {trainer.step}"
        raise _stopped(recorder, place, output, session) from stop
    except StorageUnavailable as error:
        if session.should_stop():
            # A preemption, not a failure: the store or the disk had no more time to come back.
            raise InterruptedUnsaved(f"told to stop, but the state could not be stored: {error}") from error
        raise


def _stopped(recorder: Recorder, place: str, output: RunOutput, session: Session) -> TrainingError:
    """Saves the state while there is time; gives the error that says whether that went well."""
    session.say("Saving", f"{place}: storing the state")
    try:
        recorder.tell_position()
        recorder.save_state()
        output.wait(session.seconds_left())
    except (TrainingError, StillUploading) as error:
        return InterruptedUnsaved(f"{place}, but the state could not be stored: {error}")
    if not recorder.saves_states and recorder.has_trained:
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
        held_out_images=plan.held_out_images,
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
