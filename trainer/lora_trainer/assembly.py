"""Puts a run together: the model with its adapters, latents and captions, and the batches. Used by `run`."""

import logging
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from lora_api.dataset_spec import Dataset
from lora_api.spec import LoraTrainingSpec
from lora_trainer.compute import DTYPES
from lora_trainer.conditioning import PARTS, TextStates, Tokens
from lora_trainer.data.augment import View
from lora_trainer.data.caption_draws import constant_caption, rules_are_constant
from lora_trainer.data.latent_store import UNUSED_DAYS, LatentFiles, remove_unused
from lora_trainer.data.latents import (
    EncodedOnDemand,
    Encoder,
    LatentsInMemory,
    LatentSource,
    encode_to_files,
    encode_to_memory,
)
from lora_trainer.data.loader import Loader
from lora_trainer.data.texts import FrozenTexts, TextSource, TrainedTexts
from lora_trainer.data.views import Pictures
from lora_trainer.diffusion import objective
from lora_trainer.diffusion.noise import make_schedule
from lora_trainer.diffusion.objective import Objective
from lora_trainer.drawing import Painter
from lora_trainer.errors import InvalidConfiguration
from lora_trainer.families.base import BaseModel
from lora_trainer.families.catalogue import load
from lora_trainer.families.probe import probe_prediction
from lora_trainer.loop import Inputs, Learner
from lora_trainer.lora.adapter import InvalidAdapterFile
from lora_trainer.lora.formats import read_adapter
from lora_trainer.lora.inject import add_adapters
from lora_trainer.lora.merge import merge_into
from lora_trainer.measuring import measured_examples
from lora_trainer.optim import learning_rates
from lora_trainer.prepare import Known, Prepared, Session
from lora_trainer.storage import Connection, MissingFile, Store, open_store
from lora_trainer.world import World

logger = logging.getLogger(__name__)

_LATENTS_ON_DEVICE_BYTES = 2 << 30
"""Latents up to this size move to the device; more would take the room of activations."""


_SENT_AT_ONCE = 256
"""Latents that a process sends in one piece, which lies in memory several times: 64 MiB for pictures of 1024 px."""


class Residence:
    """Where the parts of the model live: all on the device, or with `lowMemory` only while they are used."""

    def __init__(self, model: BaseModel, device: torch.device, visiting: Set[str]) -> None:
        """`visiting` parts live on the CPU and come to the device when they are needed."""
        self.model, self.device = model, device
        self._visiting = visiting
        self._here: set[str] = set()

    @contextmanager
    def having(self, *parts: str) -> Iterator[None]:
        """Brings parts to the device, and afterwards sends home those that it brought."""
        brought = [part for part in parts if part in self._visiting - self._here]
        self.model.place(*brought, device=self.device)
        self._here.update(brought)
        try:
            yield
        finally:
            self._here.difference_update(brought)
            self.model.place(*brought, device=torch.device("cpu"))

    def settle(self) -> None:
        """Sends the visiting parts home."""
        self.model.place(*self._visiting, device=torch.device("cpu"))


def load_model(prepared: Known, device: torch.device, session: Session) -> BaseModel:
    """The base model on `device`, other adapters merged into it.

    Raises:
        BaseModelUnavailable, InvalidConfiguration: it, or an adapter, cannot be loaded or does not fit.
    """
    spec = prepared.training.spec
    session.say("LoadingModel", spec.base_model.uri)
    model = load(
        prepared.base.model,
        device,
        precision=DTYPES[spec.training.precision],
        clip_skip=spec.base_model.clip_skip,
        max_tokens=spec.dataset.captions.max_tokens,
        weighted=spec.dataset.captions.weighted,
    )
    session.check_stop()
    for index, (path, weight) in enumerate(prepared.base.adapters):
        try:
            merge_into(model.parts, read_adapter(path), weight)
        except InvalidAdapterFile as error:
            raise InvalidConfiguration(f"spec.baseModel.adapters[{index}].uri: {error}") from error
    if spec.training.gradient_checkpointing:
        model.checkpoint_gradients()
    if spec.training.attention == "xformers":
        _prefer_xformers(model)
    return model


def _prefer_xformers(model: BaseModel) -> None:
    try:
        model.use_xformers()
    except RuntimeError as error:
        logger.warning("spec.training.attention is xformers, but sdpa is used instead: %s", error)


def make_learner(model: BaseModel, spec: LoraTrainingSpec, *, prepared: Prepared | None = None) -> Learner:
    """The model with adapters in it, and the objective; the adapters start from `prepared.base.initial`, if any.

    Raises:
        InvalidConfiguration: the network or the objective does not fit the model, or the initial adapter does not
            fit the network.
    """
    objective.check(model.prediction, spec.training.loss)
    dtype = DTYPES[spec.training.precision] if spec.training.full_precision else torch.float32
    adapters = add_adapters(model.parts, spec.network, family=model.family, seed=spec.training.seed, dtype=dtype)
    if prepared is not None and prepared.base.initial is not None:
        try:
            adapters.load(read_adapter(prepared.base.initial))
        except InvalidAdapterFile as error:
            raise InvalidConfiguration(f"spec.network.initialUri: {error}") from error
    for part in PARTS:
        if adapters.of(part):
            logger.info("adapters in %s modules of the %s", len(adapters.of(part)), part)
    betas = model.betas
    schedule = make_schedule(betas.start, betas.end, steps=betas.steps, name=betas.name)
    return Learner(model, adapters, Objective(schedule, model.prediction, spec.training.loss))


def base_name(prepared: Known) -> str:
    """The hub's name of the model or its file's; other URIs say where it lies, not what it is, so the digest does."""
    uri: str = prepared.training.spec.base_model.uri
    model = prepared.base.model
    if uri.startswith("hf://"):
        return uri.removeprefix("hf://").partition("@")[0]
    name = uri.rpartition("/")[2]
    return name if name.endswith(".safetensors") else f"{model.family}-{model.digest[:8]}"


def make_residence(model: BaseModel, spec: LoraTrainingSpec, device: torch.device) -> Residence:
    """Where the parts live while `spec` is trained."""
    visiting: set[str] = set()
    if spec.training.low_memory:
        visiting = {"vae"} if spec.dataset.latent_cache != "None" else set()
        if not trains_text(spec):
            visiting |= {part for part in model.parts if part != "unet"}
    return Residence(model, device, visiting)


def make_painter(
    learner: Learner, residence: Residence, autocast: Callable[[], AbstractContextManager[object]], session: Session
) -> Painter:
    """Draws with the model that is trained."""
    schedule = learner.objective.schedule
    return Painter(learner.model, schedule, autocast, session.check_stop, placing=residence.having)


def trains_text(spec: LoraTrainingSpec) -> bool:
    """Whether any text encoder is trained."""
    rates = learning_rates(spec.optimizer)
    return spec.network.text_encoder and max(rates["text_encoder"], rates["text_encoder_2"]) > 0


@contextmanager
def open_inputs(
    prepared: Prepared,
    residence: Residence,
    autocast: Callable[[], AbstractContextManager[object]],
    session: Session,
    *,
    world: World | None = None,
) -> Iterator[Inputs]:
    """Encodes what is cached, and gives the batches; their threads end with the context. `world`: the processes that
    train together, if they do.

    Raises:
        InvalidDataset: a picture cannot be encoded.
        StorageUnavailable, AccessDenied: the cache cannot be read or written.
    """
    spec, world = prepared.training.spec, world or World()
    pictures = Pictures(prepared.dataset.pictures, spec.dataset, seed=spec.training.seed)
    with residence.having("vae"):
        latents = _latents(prepared, pictures, residence, session, world)
    with autocast():
        texts = _texts(prepared, residence, session)
    plan, workers = prepared.dataset.plan, spec.dataset.workers
    with Loader(pictures, plan, spec, latents, workers, rank=world.rank) as loader:
        yield Inputs(lambda epoch, made: loader.steps(epoch, first_step=made), texts.states, loader.plain)


def _text_parts(model: BaseModel) -> Sequence[str]:
    return [part for part in model.parts if part != "unet"]


def _latents(
    prepared: Prepared, pictures: Pictures, residence: Residence, session: Session, world: World
) -> LatentSource:
    dataset, model, device = prepared.training.spec.dataset, residence.model, residence.device
    source = EncodedOnDemand(pictures, Encoder(model.encode_images, prepared.base.model.vae_digest))
    if dataset.latent_cache == "None":
        return source
    plain = (pictures.plain_view(example.index) for group in measured_examples(prepared) for example in group)
    views = tuple(dict.fromkeys((*pictures.kept_views(prepared.dataset.plan), *plain)))
    session.say("EncodingLatents", f"{len(views)} views of {len(pictures)} pictures")

    def on_progress(done: int, total: int) -> None:
        session.audience.tracker.set_reason("EncodingLatents", f"{done} of {total}")
        session.check_stop()

    own = _share_of(views, dataset, session) if world.size > 1 else views
    if dataset.latent_cache == "Memory":
        kept = encode_to_memory(source, own, workers=dataset.workers, on_progress=on_progress)
        if world.size > 1:
            kept = _exchanged(kept, views, world)
        return kept.to(device) if kept.size_bytes <= _LATENTS_ON_DEVICE_BYTES else kept
    files = _latent_files(prepared.training.spec, session)
    latents, counts = encode_to_files(source, files, own, workers=dataset.workers, on_progress=on_progress)
    logger.info("%s latents were encoded, %s lay in the cache", counts.encoded, counts.found)
    world.wait_for_all()
    # Afterwards, when those of this training are new.
    removed = remove_unused(_latents_folder(session), on_folder=session.check_stop)
    if removed:
        logger.info("%s latents that no training used for %s days were removed", removed, UNUSED_DAYS)
    return latents


def _share_of(views: Sequence[View], dataset: Dataset, session: Session) -> Sequence[View]:
    """Those that this process encodes for all others; where files of a disk are shared, for those of its machine."""
    ranks = session.settings.ranks
    assert ranks is not None, "several processes without a number"
    if dataset.latent_cache == "Disk":
        return views[ranks.local_rank :: ranks.local_size]
    return views[ranks.rank :: ranks.size]


def _exchanged(kept: LatentsInMemory, views: Sequence[View], world: World) -> LatentsInMemory:
    """All `views`, of which each process has encoded its share."""
    count = _SENT_AT_ONCE * world.size
    pieces = (views[start : start + count] for start in range(0, len(views), count))
    shares = (kept.to_bytes(piece[world.rank :: world.size]) for piece in pieces)
    return LatentsInMemory.from_bytes((part for share in shares for part in world.from_each(share)), views)


def _latents_folder(session: Session) -> Path:
    return (session.settings.cache_dir or session.settings.work_dir) / "latents"


def _latent_files(spec: LoraTrainingSpec, session: Session) -> LatentFiles:
    """On disk, where later runs find them if there is a cache; for `Store` in a folder of that store, so that what
    lies there lies in the store as well."""
    folder = _latents_folder(session)
    uri = spec.dataset.latent_store_uri
    if uri is None:
        return LatentFiles(folder / "disk")
    connection = Connection.for_section(spec, session.settings, "dataset")
    connection = replace(connection, on_retry=session.audience.metrics.add_storage_retry)
    store = open_store(uri, connection, field="spec.dataset.cacheUri", on_bytes=session.audience.stored)
    return LatentFiles(folder / connection.folder_for(uri).name, StoredLatents(store))


@dataclass(frozen=True)
class StoredLatents:
    """Latents in an object store."""

    store: Store

    def get(self, key: str) -> bytes | None:
        """The file of that name, or None."""
        try:
            return self.store.get_bytes(key)
        except MissingFile:
            return None

    def put(self, key: str, data: bytes) -> None:
        """Keeps a file."""
        self.store.put_bytes(data, key)


def _texts(prepared: Prepared, residence: Residence, session: Session) -> TextSource:
    """The states of captions; those that never change are encoded now if the text encoders are not trained."""
    model, spec = residence.model, prepared.training.spec
    if trains_text(spec):
        return TrainedTexts(model.tokenize, model.encode_texts)

    def encode(tokens: Tokens) -> TextStates:
        session.check_stop()
        with residence.having(*_text_parts(model)):
            return model.encode_texts(tokens)

    frozen = FrozenTexts(model.tokenize, encode)
    examples = prepared.dataset.scanned.examples
    constant = (example for example in examples if rules_are_constant(example.captions))
    with residence.having(*_text_parts(model)):
        frozen.prepare(constant_caption(example.caption, example.captions) for example in constant)
    return frozen


def check_prediction(
    learner: Learner,
    inputs: Inputs,
    autocast: Callable[[], AbstractContextManager[object]],
    device: torch.device,
    *,
    examples: int,
) -> None:
    """Tries the base model on `examples` of the first batch.

    Raises:
        InvalidConfiguration: it clearly predicts something else than it is said to.
    """
    model = learner.model
    batch = next(inputs.steps(1, 0))[0].rows(slice(examples))
    alpha_bars = learner.objective.schedule.alphas_cumprod
    latents, sizes = batch.latents.to(device), batch.sizes.to(device)
    with torch.no_grad(), autocast():
        # Not without the adapters: these states may be kept for the training.
        text = inputs.text(batch.captions)
        with learner.adapters.disabled():
            found = probe_prediction(model, latents, text, sizes, alpha_bars=alpha_bars)
    if found not in (None, model.prediction):
        raise InvalidConfiguration(
            f"spec.baseModel.prediction: the model is said to predict {model.prediction}, but on these pictures it "
            f"predicts {found}; set the field to {found}, or correct prediction_type in the model's "
            "scheduler/scheduler_config.json"
        )
