"""The LoraTraining object: everything a user may ask for. The one place where fields and defaults are written."""

import re
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from lora_api import names
from lora_api.base import ApiModel, Rule
from lora_api.cluster_spec import Limits, Output, Parallelism, Pod, Resume, Retry, Scheduling, Storage
from lora_api.dataset_spec import Dataset
from lora_api.evaluation_spec import Checkpoints, Evaluation, Samples
from lora_api.fields import FOR_GOOD, MUTABLE, ObjectName
from lora_api.model_spec import NOT_IN_SDXL, ONLY_IN_SDXL, BaseModelSpec, Network
from lora_api.optimizer_spec import ADAPTIVE, PAGED, SCHEDULE_FREE, STATE_LIKE_WEIGHTS, Optimizer
from lora_api.status import LoraTrainingStatus
from lora_api.training_spec import Training

Section = Literal["baseModel", "dataset", "output"]
"""Parts of a spec that may reach a store of their own."""
SECTIONS: tuple[Section, ...] = ("baseModel", "dataset", "output")
_HAS_RATE = "(has(self.optimizer.{0}) ? self.optimizer.{0} > 0.0 : {1})"
_TEXT_ENCODER_RATE = _HAS_RATE.format("textEncoderLearningRate", "self.optimizer.learningRate > 0.0")


def _listed(names_: tuple[str, ...]) -> str:
    return f"[{', '.join(repr(name) for name in names_)}]"


def _trains_something(m: "LoraTrainingSpec") -> bool:
    optimizer = m.optimizer
    unet, text = optimizer.unet_learning_rate, optimizer.text_encoder_learning_rate
    text = optimizer.learning_rate if text is None else text
    return (m.network.unet and (optimizer.learning_rate if unet is None else unet) > 0) or (
        m.network.text_encoder and (text > 0 or (optimizer.text_encoder2_learning_rate or 0) > 0)
    )


def _inside(uri: str, folder: str | None) -> bool:
    return folder is not None and (uri.rstrip("/") + "/").startswith(folder.rstrip("/") + "/")


def _fits_block_weights(m: "LoraTrainingSpec") -> bool:
    if m.base_model.family is None or m.evaluation is None or m.evaluation.grid is None:
        return True
    lengths = (12, 20) if m.base_model.family == "sdxl" else (17, 26)
    return all(one.values is None or len(one.values) in lengths for one in m.evaluation.grid.block_weights)


class LoraTrainingSpec(ApiModel):
    """What to train, from which pictures, and where to put the result."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="!has(self.dataset.uri) || !(self.output.uri + '/').startsWith("
            "self.dataset.uri.endsWith('/') ? self.dataset.uri : self.dataset.uri + '/')",
            message="output.uri must not lie inside dataset.uri; write somewhere else",
            holds=lambda m: not _inside(m.output.uri, m.dataset.uri),
        ),
        Rule(
            cel="!has(self.training.maxSteps) || self.optimizer.schedule.warmupSteps < self.training.maxSteps",
            message="optimizer.schedule.warmupSteps must be smaller than training.maxSteps; lower it",
            holds=lambda m: m.training.max_steps is None or m.optimizer.schedule.warmup_steps < m.training.max_steps,
        ),
        Rule(
            cel="self.network.textEncoder || (!has(self.optimizer.textEncoderLearningRate) && "
            "!has(self.optimizer.textEncoder2LearningRate))",
            message="optimizer.textEncoderLearningRate has no effect while network.textEncoder is false; remove it",
            holds=lambda m: (
                m.network.text_encoder
                or (m.optimizer.text_encoder_learning_rate is None and m.optimizer.text_encoder2_learning_rate is None)
            ),
        ),
        Rule(
            cel="self.network.unet || !has(self.optimizer.unetLearningRate)",
            message="optimizer.unetLearningRate has no effect while network.unet is false; remove it",
            holds=lambda m: m.network.unet or m.optimizer.unet_learning_rate is None,
        ),
        Rule(
            cel="!has(self.optimizer.textEncoder2LearningRate) || !has(self.baseModel.family) || "
            "self.baseModel.family == 'sdxl'",
            message="optimizer.textEncoder2LearningRate belongs to sdxl, which has two text encoders; remove it",
            holds=lambda m: m.optimizer.text_encoder2_learning_rate is None or m.base_model.family in (None, "sdxl"),
        ),
        Rule(
            cel=f"!has(self.training.ema) || !(self.optimizer.name in {_listed(SCHEDULE_FREE)})",
            message="training.ema does not work with a schedule-free optimizer, which averages by itself; remove it",
            holds=lambda m: m.training.ema is None or m.optimizer.name not in SCHEDULE_FREE,
        ),
        Rule(
            cel=f"!(self.optimizer.name in {_listed(ADAPTIVE)}) || "
            "self.network.blocks.all(b, b.learningRateFactor == 1.0 || b.learningRateFactor == 0.0)",
            message="network.blocks[].learningRateFactor must be 0 or 1 with prodigy and dadaptation, which know one "
            "learning rate; change it",
            holds=lambda m: (
                m.optimizer.name not in ADAPTIVE or all(b.learning_rate_factor in (0, 1) for b in m.network.blocks)
            ),
        ),
        Rule(
            cel="!(self.network.type in ['loha', 'lokr']) || self.output.formats.all(f, f != 'diffusers')",
            message="output.formats diffusers cannot hold loha and lokr adapters, only kohya can; remove it, or set "
            "network.type to locon",
            holds=lambda m: m.network.type not in ("loha", "lokr") or "diffusers" not in m.output.formats,
        ),
        Rule(
            cel="!has(self.baseModel.prediction) || self.baseModel.prediction != 'epsilon' || "
            "(!self.training.loss.scaleVPredictionLikeNoise && !self.training.loss.zeroTerminalSnr)",
            message="training.loss.zeroTerminalSnr and scaleVPredictionLikeNoise belong to v_prediction models, but "
            "baseModel.prediction is epsilon; remove them",
            holds=lambda m: (
                m.base_model.prediction != "epsilon"
                or not (m.training.loss.scale_v_prediction_like_noise or m.training.loss.zero_terminal_snr)
            ),
        ),
        Rule(
            cel="!has(self.baseModel.prediction) || self.baseModel.prediction != 'v_prediction' || "
            "!has(self.training.loss.vPredictionLikeLoss)",
            message="training.loss.vPredictionLikeLoss belongs to epsilon models, but baseModel.prediction is "
            "v_prediction; remove it",
            holds=lambda m: m.base_model.prediction != "v_prediction" or m.training.loss.v_prediction_like_loss is None,
        ),
        Rule(
            cel="!has(self.dataset.cacheUri) || !(self.output.uri + '/').startsWith(self.dataset.cacheUri + '/')",
            message="output.uri must not lie inside dataset.cacheUri; write somewhere else",
            holds=lambda m: not _inside(m.output.uri, m.dataset.cache_uri),
        ),
        Rule(
            cel="self.parallelism.gpusPerNode != 0 || self.training.precision != 'fp16'",
            message="training.precision fp16 does not train on a CPU (parallelism.gpusPerNode: 0); use bf16 or fp32",
            holds=lambda m: m.parallelism.gpus_per_node != 0 or m.training.precision != "fp16",
        ),
        Rule(
            cel="!self.training.fullPrecision || self.training.precision != 'fp16' || "
            f"!(self.optimizer.name in {_listed(STATE_LIKE_WEIGHTS)})",
            message="optimizer.name: this optimizer keeps squared gradients in the weights' own format, which fp16 "
            "cannot hold; with training.fullPrecision use precision bf16, or adamw8bit, lion or adafactor",
            holds=lambda m: (
                not m.training.full_precision
                or m.training.precision != "fp16"
                or m.optimizer.name not in STATE_LIKE_WEIGHTS
            ),
        ),
        Rule(
            cel=f"self.parallelism.gpusPerNode != 0 || !(self.optimizer.name in {_listed(PAGED)})",
            message="optimizer.name: paged optimizers need a GPU, but parallelism.gpusPerNode is 0; use the one "
            "without paged, such as adamw8bit",
            holds=lambda m: m.parallelism.gpus_per_node != 0 or m.optimizer.name not in PAGED,
        ),
        Rule(
            cel="(self.network.unet && "
            f"{_HAS_RATE.format('unetLearningRate', 'self.optimizer.learningRate > 0.0')}) || "
            f"(self.network.textEncoder && ({_TEXT_ENCODER_RATE} || "
            "(has(self.optimizer.textEncoder2LearningRate) && self.optimizer.textEncoder2LearningRate > 0.0)))",
            message="optimizer: the learning rate of everything that network adapts is 0, so nothing would be "
            "trained; raise learningRate",
            holds=_trains_something,
        ),
        Rule(
            cel="!has(self.optimizer.loraPlus) || ((self.network.unet || !has(self.optimizer.loraPlus.unetRatio)) && "
            "(self.network.textEncoder || !has(self.optimizer.loraPlus.textEncoderRatio)))",
            message="optimizer.loraPlus: a ratio of a part that network does not adapt has no effect; remove it",
            holds=lambda m: (
                m.optimizer.lora_plus is None
                or (
                    (m.network.unet or m.optimizer.lora_plus.unet_ratio is None)
                    and (m.network.text_encoder or m.optimizer.lora_plus.text_encoder_ratio is None)
                )
            ),
        ),
        Rule(
            cel="!has(self.baseModel.family) || !self.network.blocks.exists(b, b.name in "
            f"(self.baseModel.family == 'sdxl' ? {_listed(NOT_IN_SDXL)} : {_listed(ONLY_IN_SDXL)}))",
            message="network.blocks names a block that baseModel.family does not have (sdxl ends at IN08 and OUT08; "
            "M01 and M02 belong to sdxl only); remove it",
            holds=lambda m: (
                m.base_model.family is None
                or not {block.name for block in m.network.blocks}.intersection(
                    NOT_IN_SDXL if m.base_model.family == "sdxl" else ONLY_IN_SDXL
                )
            ),
        ),
        Rule(
            cel="!has(self.baseModel.family) || !has(self.evaluation) || !has(self.evaluation.grid) || "
            "!has(self.evaluation.grid.blockWeights) || self.evaluation.grid.blockWeights.all(w, !has(w.values) || "
            "w.values.size() in (self.baseModel.family == 'sdxl' ? [12, 20] : [17, 26]))",
            message="evaluation.grid.blockWeights: values must be 17 or 26 numbers, and for sdxl 12 or 20, as "
            "baseModel.family says; correct the list",
            holds=_fits_block_weights,
        ),
        Rule(
            cel="!has(self.training.maxSteps) || !has(self.optimizer.schedule.decaySteps) || "
            "self.optimizer.schedule.warmupSteps + self.optimizer.schedule.decaySteps <= self.training.maxSteps",
            message="optimizer.schedule.warmupSteps and decaySteps must not add up to more than training.maxSteps; "
            "lower one",
            holds=lambda m: (
                m.training.max_steps is None
                or m.optimizer.schedule.warmup_steps + (m.optimizer.schedule.decay_steps or 0) <= m.training.max_steps
            ),
        ),
        Rule(
            cel="!has(self.training.maxSteps) || "
            "self.optimizer.schedule.pieces.all(p, p.fromStep < self.training.maxSteps)",
            message="optimizer.schedule.pieces: fromStep must be smaller than training.maxSteps; remove what is never "
            "reached",
            holds=lambda m: (
                m.training.max_steps is None
                or all(piece.from_step < m.training.max_steps for piece in m.optimizer.schedule.pieces)
            ),
        ),
        Rule(
            cel="!has(self.training.maxSteps) || !has(self.training.ema) || "
            "self.training.ema.everySteps <= self.training.maxSteps",
            message="training.ema.everySteps must not be larger than training.maxSteps; lower it",
            holds=lambda m: (
                m.training.max_steps is None
                or m.training.ema is None
                or m.training.ema.every_steps <= m.training.max_steps
            ),
        ),
        Rule(
            cel="!has(self.training.maxSteps) || !has(self.dataset.captions.tokenWarmup) || "
            "!has(self.dataset.captions.tokenWarmup.steps) || "
            "self.dataset.captions.tokenWarmup.steps <= self.training.maxSteps",
            message="dataset.captions.tokenWarmup.steps must not be larger than training.maxSteps; lower it",
            holds=lambda m: (
                m.training.max_steps is None
                or m.dataset.captions.token_warmup is None
                or (m.dataset.captions.token_warmup.steps or 0) <= m.training.max_steps
            ),
        ),
        Rule(
            cel="!(self.output.uri + '/').startsWith("
            "self.baseModel.uri.endsWith('/') ? self.baseModel.uri : self.baseModel.uri + '/')",
            message="output.uri must not lie inside baseModel.uri; write somewhere else",
            holds=lambda m: not _inside(m.output.uri, m.base_model.uri),
        ),
        Rule(
            cel="self.dataset.subsets.all(s, !(self.output.uri + '/').startsWith("
            "s.uri.endsWith('/') ? s.uri : s.uri + '/'))",
            message="output.uri must not lie inside a folder of dataset.subsets; write somewhere else",
            holds=lambda m: not any(_inside(m.output.uri, subset.uri) for subset in m.dataset.subsets),
        ),
        Rule(
            cel="!has(self.dataset.regularization.uri) || !(self.output.uri + '/').startsWith("
            "self.dataset.regularization.uri.endsWith('/') ? self.dataset.regularization.uri : "
            "self.dataset.regularization.uri + '/')",
            message="output.uri must not lie inside dataset.regularization.uri; write somewhere else",
            holds=lambda m: not _inside(m.output.uri, m.dataset.regularization.uri),
        ),
    )

    profile: ObjectName = "default"
    """A named set of cluster settings (image, node selector, tolerations, storage) of the operator's chart."""
    suspend: bool = Field(default=False, json_schema_extra=MUTABLE)
    """Pause: the pod saves its state and stops, and the GPU is free. Set it to false to go on."""
    cancel: bool = Field(default=False, json_schema_extra=FOR_GOOD)
    """End the training for good: the pod saves its state and stops, and the training fails with the reason Cancelled.
    It never starts again, and this cannot be taken back. One that has ended stays as it is; only its evaluation is
    stopped."""
    base_model: BaseModelSpec
    """The model that the adapter is trained for."""
    dataset: Dataset
    """The captioned pictures."""
    network: Network = Network()
    """The adapter that is trained."""
    optimizer: Optimizer = Optimizer()
    """How weights are updated."""
    training: Training = Training()
    """Length, batch and precision of the run."""
    checkpoints: Checkpoints = Checkpoints()
    """What is saved, and when."""
    resume: Resume = Resume()
    """How a training goes on from a state that an earlier attempt left."""
    samples: Samples = Samples()
    """Pictures drawn while training."""
    evaluation: Evaluation | None = Field(default=None, json_schema_extra=MUTABLE)
    """What is measured and drawn, while training and after it: best epoch, grid, report. `{}`: best epoch and report.
    Of a finished training it may be changed; then only this is made again."""
    output: Output
    """What is written, and where."""
    storage: Storage = Storage()
    """How the object store is reached."""
    parallelism: Parallelism = Parallelism()
    """How many devices train together."""
    scheduling: Scheduling = Scheduling()
    """Where and when pods may run."""
    pod: Pod = Pod()
    """What the trainer's pod is made of."""
    limits: Limits = Field(default=Limits(), json_schema_extra=MUTABLE)
    """When the training is given up."""
    retry: Retry = Field(default=Retry(), json_schema_extra=MUTABLE)
    """What happens after a failure that may not happen again."""
    ttl_seconds_after_finished: Annotated[int, Field(ge=0, le=31536000)] | None = Field(
        default=None, json_schema_extra=MUTABLE
    )
    """Remove the Job and its pods this many seconds after the end. This object stays, and never trains again."""

    def storage_of(self, section: Section | None) -> Storage:
        """How the URIs of a section are reached; None: what holds for the others."""
        own: dict[Section | None, Storage | None] = {
            "baseModel": self.base_model.storage,
            "dataset": self.dataset.storage,
            "output": self.output.storage,
        }
        return own.get(section) or self.storage

    @property
    def read_uris(self) -> tuple[str, ...]:
        """Everything that a training reads."""
        base, dataset = self.base_model, self.dataset
        optional = (base.vae_uri, dataset.uri, dataset.regularization.uri, self.network.initial_uri)
        several = (*(adapter.uri for adapter in base.adapters), *(subset.uri for subset in dataset.subsets))
        similarity = self.evaluation.similarity if self.evaluation is not None else None
        judges = () if similarity is None else (similarity.clip_uri, similarity.dino_uri)
        generator = dataset.captions.generate
        describing = () if generator is None else (generator.model_uri,)
        return (base.uri, *(uri for uri in (*optional, *judges) if uri is not None), *several, *describing)

    @property
    def batches_per_step(self) -> int:
        """Batches, of all processes, whose gradients make up an update."""
        return self.parallelism.processes * self.training.gradient_accumulation_steps

    @property
    def held_out_fraction(self) -> float | None:
        """Share of the training pictures that is never trained on; None: the default of a training whose best epoch is
        asked for."""
        if self.dataset.validation_fraction is not None:
            return self.dataset.validation_fraction
        measures = self.evaluation is not None and self.evaluation.best_epoch.by != "None"
        return None if measures else 0.0

    @property
    def written_uris(self) -> tuple[str, ...]:
        """Every folder that a training writes to."""
        cache = self.dataset.latent_store_uri
        return (self.output.uri,) if cache is None else (self.output.uri, cache)


class ObjectMeta(ApiModel):
    """The part of Kubernetes' metadata that we look at."""

    model_config = {"extra": "allow"}

    name: str
    """Name of the object: at most 52 characters, lower case, digits and `-`."""
    namespace: str | None = None
    """Namespace of the object."""
    uid: str | None = None
    """Identity given by the API server."""
    generation: int | None = None
    """Counts changes of the spec."""

    @field_validator("name")
    @classmethod
    def _check_name(cls, value: str) -> str:
        if len(value) > names.MAX_NAME_LENGTH or not re.match(r"^[a-z]([-a-z0-9]*[a-z0-9])?$", value):
            raise PydanticCustomError(
                "name",
                "is {value}, but must be at most {limit} lower-case letters, digits and '-', starting with a letter",
                {"value": value, "limit": names.MAX_NAME_LENGTH},
            )
        return value


class LoraTraining(ApiModel):
    """A LoRA training run of Stable Diffusion: captioned pictures in, an adapter per epoch out."""

    api_version: Literal["lora-operator.io/v1alpha1"]
    """Version of this API."""
    kind: Literal["LoraTraining"]
    """Kind of object."""
    metadata: ObjectMeta
    """Standard object metadata."""
    spec: LoraTrainingSpec
    """What to train."""
    status: LoraTrainingStatus | None = None
    """What became of it; written by the operator."""

    @property
    def name(self) -> str:
        """Name of the object."""
        return self.metadata.name

    @property
    def output_name(self) -> str:
        """File name of the adapter without its extension."""
        return self.spec.output.name or self.metadata.name
