"""The LoraTraining object: everything a user may ask for. The one place where fields and defaults are written."""

import re
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from lora_api import names
from lora_api.base import ApiModel, Rule, supported
from lora_api.cluster_spec import Limits, Output, Parallelism, Pod, Retry, Scheduling, Storage
from lora_api.fields import MUTABLE, ObjectName
from lora_api.status import LoraTrainingStatus
from lora_api.training_spec import (
    BaseModelSpec,
    Checkpoints,
    Dataset,
    Evaluation,
    Network,
    Optimizer,
    Samples,
    Training,
)


def _output_inside_dataset(spec: "LoraTrainingSpec") -> bool:
    dataset, output = spec.dataset.uri, spec.output.uri
    return dataset is not None and (output.rstrip("/") + "/").startswith(dataset.rstrip("/") + "/")


class LoraTrainingSpec(ApiModel):
    """What to train, from which pictures, and where to put the result."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="!has(self.dataset.uri) || !(self.output.uri + '/').startsWith("
            "self.dataset.uri.endsWith('/') ? self.dataset.uri : self.dataset.uri + '/')",
            message="output.uri must not lie inside dataset.uri; write somewhere else",
            holds=lambda m: not _output_inside_dataset(m),
        ),
        Rule(
            cel="!has(self.training.maxSteps) || self.optimizer.schedule.warmupSteps < self.training.maxSteps",
            message="optimizer.schedule.warmupSteps must be smaller than training.maxSteps; lower it",
            holds=lambda m: m.training.max_steps is None or m.optimizer.schedule.warmup_steps < m.training.max_steps,
        ),
        Rule(
            cel="self.network.textEncoder || !has(self.optimizer.textEncoderLearningRate)",
            message="optimizer.textEncoderLearningRate has no effect while network.textEncoder is false; remove it",
            holds=lambda m: m.network.text_encoder or m.optimizer.text_encoder_learning_rate is None,
        ),
    )

    profile: ObjectName = "default"
    """A named set of cluster settings (image, node selector, tolerations, storage) of the operator's chart."""
    suspend: bool = Field(default=False, json_schema_extra=MUTABLE)
    """Pause: the pod saves its state and stops, and the GPU is free. Set it to false to go on."""
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
    samples: Samples = Samples()
    """Pictures drawn while training."""
    evaluation: Annotated[Evaluation, supported()] | None = None
    """What is measured and drawn after training."""
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
