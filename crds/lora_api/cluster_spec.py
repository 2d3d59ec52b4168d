"""Where a training runs and where its files lie: output, object store, pods, scheduling, limits, retries."""

import re
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from lora_api.base import ApiModel, Rule
from lora_api.fields import (
    MAX_KEY_LENGTH,
    MUTABLE,
    ConfigMapKeyRef,
    KeysLike,
    LabelName,
    LabelText,
    ObjectName,
    Quantity,
    SecretKeyRef,
    SecretRef,
    ShortText,
    Text,
    WriteUri,
)
from lora_api.quantity import amount_of

_LABEL = "[{0}]([-{0}]*[{0}])?"
_DOMAIN = f"{_LABEL}([.]{_LABEL})*/"
_NAME = "[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_PREFIX, _ANY_CASE_PREFIX = _DOMAIN.format("a-z0-9"), _DOMAIN.format("A-Za-z0-9")
_KEY_PATTERN = f"^({_PREFIX})?{_NAME}$"
_OVERCOMMITTED = ("cpu", "memory", "ephemeral-storage")
"""What may be requested without a limit, and below it."""
_LAUNCHER_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""By these torchrun tells a process its place (https://docs.pytorch.org/docs/stable/elastic/run.html)."""
_KEY_CURE = (
    "keys must be name or prefix/name: the name at most 63 letters, digits, '-', '_' and '.', the prefix a DNS name, "
    f"{MAX_KEY_LENGTH} characters in all; change the key"
)
LabelKey = Annotated[str, Field(min_length=1, max_length=MAX_KEY_LENGTH, pattern=_KEY_PATTERN)]
Labels = Annotated[dict[str, LabelText], Field(max_length=32), KeysLike(_KEY_PATTERN, _KEY_CURE)]
# Kubernetes reads the prefix of an annotation in any case.
Annotations = Annotated[dict[str, Text], Field(max_length=32), KeysLike(f"^({_ANY_CASE_PREFIX})?{_NAME}$", _KEY_CURE)]
Amounts = Annotated[
    dict[str, Quantity],
    Field(max_length=16),
    KeysLike(
        f"^(cpu|memory|ephemeral-storage|hugepages-[0-9]+[KMGTPE]i|{_PREFIX}{_NAME})$",
        "keys must be cpu, memory, ephemeral-storage, hugepages-<size>, or the domain/name of an extended resource; "
        "change the key",
    ),
]
_IP_ENDPOINT = r"^https?://([0-9]+[.][0-9]+[.][0-9]+[.][0-9]+|[\\[].*)(:[0-9]+)?$"
_POWERS = (
    "container.apparmor.security.beta.kubernetes.io/",
    "container.seccomp.security.alpha.kubernetes.io/",
    "seccomp.security.alpha.kubernetes.io/",
    "cdi.k8s.io/",
    "io.kubernetes.cri-o.",
    "k8s.v1.cni.cncf.io/",
    "v1.multus-cni.io/",
    "sidecar.istio.io/userVolume",
)
"""Annotations by which a pod gets what no field of a training can give it."""
RESERVED_LABEL_DOMAINS = ("lora-operator.io/", "app.kubernetes.io/", "batch.kubernetes.io/", "kueue.x-k8s.io/")


def _reserved(key: str) -> bool:
    return key.startswith(RESERVED_LABEL_DOMAINS)


class Storage(ApiModel):
    """How the object store is reached. Secrets are mounted into pods and never read by the operator."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="!has(self.anonymous) || !self.anonymous || !has(self.credentialsSecretRef)",
            message="anonymous and credentialsSecretRef exclude each other; remove one",
            holds=lambda m: not m.anonymous or m.credentials_secret_ref is None,
        ),
        Rule(
            cel="!has(self.caBundleRef) || !has(self.endpoint) || self.endpoint.startsWith('https://')",
            message="caBundleRef checks the certificates of https endpoints, but endpoint is http; remove it or "
            "change endpoint",
            holds=lambda m: m.ca_bundle_ref is None or m.endpoint is None or m.endpoint.startswith("https://"),
        ),
        Rule(
            cel="!has(self.addressing) || self.addressing != 'Virtual' || !has(self.endpoint) || "
            f"!self.endpoint.matches('{_IP_ENDPOINT}')",
            message="addressing Virtual puts the bucket before the host name, but endpoint is an IP address; use Path",
            holds=lambda m: m.addressing != "Virtual" or not re.search(_IP_ENDPOINT, m.endpoint or ""),
        ),
    )

    endpoint: Annotated[str, Field(max_length=1024, pattern=r"^https?://[^/?#@]+$")] | None = None
    """URL of the S3 server with its scheme, such as `https://minio.example.com:9000`. Default: AWS."""
    region: ShortText | None = None
    """Region of the bucket. Default: what the pod's environment says, else us-east-1."""
    addressing: Literal["Auto", "Path", "Virtual"] = "Auto"
    """`Path`: https://host/bucket/key, `Virtual`: https://bucket.host/key. Auto: Path when an endpoint is set."""
    credentials_secret_ref: SecretRef | None = None
    """Secret with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, if needed, AWS_SESSION_TOKEN. Default: the
    pod's own identity (web identity, instance role)."""
    ca_bundle_ref: ConfigMapKeyRef | None = None
    """ConfigMap key with the certificates (PEM) that the endpoint's certificate is checked against."""
    anonymous: bool = False
    """Send unsigned requests."""


class ModelCard(ApiModel):
    """Texts for people who get the adapter file, written as `modelspec.*`."""

    title: ShortText | None = None
    """Title. Default: the adapter's name."""
    author: ShortText | None = None
    """Who made it."""
    description: Text | None = None
    """What it is."""
    license: ShortText | None = None
    """Under which terms it may be used."""
    tags: Text | None = None
    """Tags, separated by commas."""
    usage_hint: Text | None = None
    """How to use it."""
    trigger_phrase: ShortText | None = None
    """Words that call the concept up."""


class Output(ApiModel):
    """What is written, and where."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="!has(self.formats) || self.formats.all(f, self.formats.exists_one(g, g == f))",
            message="formats names a format twice; remove one",
            holds=lambda m: len(set(m.formats)) == len(m.formats),
        ),
        Rule(
            cel="!has(self.formats) || 'kohya' in self.formats",
            message="formats must hold kohya, the file of each checkpoint; add it",
            holds=lambda m: "kohya" in m.formats,
        ),
    )

    uri: WriteUri
    """Folder of the run: `s3://bucket/prefix` or `pvc://claim/path`. One run a folder."""
    name: Annotated[str, Field(max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] | None = None
    """File name of the adapter without `.safetensors`. Default: the object's name."""
    formats: Annotated[tuple[Literal["kohya", "diffusers"], ...], Field(min_length=1, max_length=2)] = ("kohya",)
    """File formats. `kohya` opens in AUTOMATIC1111, ComfyUI, diffusers and sd-scripts; `diffusers`, for
    `load_lora_weights` and PEFT, is written beside it as `<name>-diffusers.safetensors`."""
    precision: Literal["fp16", "bf16", "fp32"] = "fp16"
    """Number format of the adapter files."""
    comment: Text | None = None
    """Free text written into the adapter's metadata (ss_training_comment)."""
    card: ModelCard = ModelCard()
    """What the adapter's metadata says for people who get the file."""
    storage: Storage | None = None
    """Replaces `spec.storage` for the output."""


class Parallelism(ApiModel):
    """How many devices train together. Each gets a batch of `training.batchSize` pictures for every step."""

    nodes: Annotated[int, Field(ge=1, le=64)] = 1
    """Number of pods. All of them run at the same time; when one is lost, all start again from the newest state."""
    gpus_per_node: Annotated[int, Field(ge=0, le=16)] = 1
    """GPUs of each pod, with a process for each; 0 trains on the CPU, with one process a pod."""

    @property
    def processes(self) -> int:
        """Processes that train together."""
        return self.nodes * max(1, self.gpus_per_node)


class Toleration(ApiModel):
    """A Kubernetes toleration."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="has(self.key) || (has(self.operator) && self.operator == 'Exists')",
            message="operator must be Exists when key is left out; set operator: Exists or a key",
            holds=lambda m: m.key is not None or m.operator == "Exists",
        ),
        Rule(
            cel="!has(self.value) || self.value == '' || !has(self.operator) || self.operator == 'Equal'",
            message="value has no effect with operator Exists; remove it",
            holds=lambda m: not m.value or m.operator == "Equal",
        ),
        Rule(
            cel="!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
            message="tolerationSeconds belongs to effect NoExecute; remove it or change effect",
            holds=lambda m: m.toleration_seconds is None or m.effect == "NoExecute",
        ),
    )

    key: LabelKey | None = None
    """Taint key; all keys when absent."""
    operator: Literal["Exists", "Equal"] = "Equal"
    """How key and value are matched."""
    value: LabelText | None = None
    """Taint value."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Taint effect; all effects when absent."""
    toleration_seconds: Annotated[int, Field(ge=0, le=31536000)] | None = None
    """How long a NoExecute taint is tolerated, in seconds."""


class QueueTopology(ApiModel):
    """How close to each other Kueue places the pods of a training. A level is a node label that the queue's Topology
    names."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="[has(self.required), has(self.preferred), has(self.unconstrained) && self.unconstrained]"
            ".filter(given, given).size() == 1",
            message="exactly one of required, preferred and unconstrained must be set",
            holds=lambda m: [m.required is not None, m.preferred is not None, m.unconstrained].count(True) == 1,
        ),
    )

    required: LabelKey | None = None
    """Level of which all pods must share one domain, such as `kubernetes.io/hostname`; else they wait."""
    preferred: LabelKey | None = None
    """Level of which all pods share one domain if there is room, else a level above it."""
    unconstrained: bool = False
    """Any place will do, as long as the topology has room for all pods."""


class Scheduling(ApiModel):
    """Where and when pods may run; added to what the profile says."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="!has(self.queuePriorityClass) || has(self.queueName)",
            message="queuePriorityClass has no effect without queueName; add queueName or remove it",
            holds=lambda m: m.queue_priority_class is None or m.queue_name is not None,
        ),
        Rule(
            cel="!has(self.queueTopology) || has(self.queueName)",
            message="queueTopology has no effect without queueName; add queueName or remove it",
            holds=lambda m: m.queue_topology is None or m.queue_name is not None,
        ),
    )

    queue_name: LabelName | None = None
    """Kueue LocalQueue of this namespace. The queue then decides when the training runs, and may interrupt it."""
    queue_priority_class: LabelName | None = None
    """Kueue WorkloadPriorityClass: the training's rank in its queue."""
    queue_topology: QueueTopology | None = None
    """How close to each other the pods are placed, where the queue knows the topology of its nodes."""
    priority_class: ObjectName | None = Field(default=None, json_schema_extra=MUTABLE)
    """PriorityClass of the pods; a change applies to the next attempt."""
    node_selector: Labels = {}
    """Labels a node must have."""
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=32)] = ()
    """Taints that are tolerated."""
    affinity: dict[str, Any] | None = Field(default=None, json_schema_extra=MUTABLE)
    """Kubernetes affinity, passed through; a change applies to the next attempt."""
    start_deadline_seconds: Annotated[int, Field(ge=60, le=31536000)] | None = None
    """Give up when the pods of the training have not all started this many seconds after the training was created, or
    was resumed before its first start. Waiting in a queue counts, a pause does not; after the check of the data the
    waiting is counted anew."""


class EnvVar(ApiModel):
    """An environment variable of the trainer container."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="[has(self.value), has(self.secretKeyRef), has(self.configMapKeyRef)].filter(given, given).size() == 1",
            message="exactly one of value, secretKeyRef and configMapKeyRef must be set",
            holds=lambda m: sum(v is not None for v in (m.value, m.secret_key_ref, m.config_map_key_ref)) == 1,
        ),
        Rule(
            cel="!self.name.startsWith('LORA_')",
            message="names that start with LORA_ are the operator's own; choose another name",
            holds=lambda m: not m.name.startswith("LORA_"),
        ),
        Rule(
            cel=f"!(self.name in {list(_LAUNCHER_VARIABLES)})",
            message=f"{', '.join(_LAUNCHER_VARIABLES)} tell a process its place among the others and are set by the "
            "trainer; use spec.parallelism",
            holds=lambda m: m.name not in _LAUNCHER_VARIABLES,
        ),
    )

    name: Annotated[str, Field(max_length=253, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
    """Name of the variable."""
    value: Text | None = None
    """Its value."""
    secret_key_ref: SecretKeyRef | None = None
    """Take the value from a Secret."""
    config_map_key_ref: ConfigMapKeyRef | None = None
    """Take the value from a ConfigMap."""


class Resources(ApiModel):
    """Resource requests and limits; GPUs are set by `parallelism`."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="(!has(self.requests) || !self.requests.exists(k, k.endsWith('/gpu'))) && "
            "(!has(self.limits) || !self.limits.exists(k, k.endsWith('/gpu')))",
            message="GPUs are asked for by spec.parallelism.gpusPerNode; remove them from requests and limits",
            holds=lambda m: not any(key.endswith("/gpu") for key in (*m.requests, *m.limits)),
        ),
        Rule(
            cel=f"!has(self.requests) || self.requests.all(k, k in {list(_OVERCOMMITTED)} || "
            "(has(self.limits) && k in self.limits))",
            message="requests of resources other than cpu, memory and ephemeral-storage need an equal limit; add them "
            "to limits",
            holds=lambda m: all(key in _OVERCOMMITTED or key in m.limits for key in m.requests),
        ),
    )

    requests: Amounts = {}
    """What a node must have free, such as `{cpu: "4", memory: 16Gi}`."""
    limits: Amounts = {}
    """What a pod may use at most."""

    @model_validator(mode="after")
    def _check_amounts(self) -> Self:
        # No rule: CEL knows amounts by the API server's own quantity() only, which the tests' evaluator lacks.
        faults = [*_fractions("requests", self.requests), *_fractions("limits", self.limits), *self._excesses()]
        if faults:
            raise PydanticCustomError("rule", "{faults}", {"faults": "; ".join(faults)})
        return self

    def _excesses(self) -> Iterator[str]:
        for name, asked in self.requests.items():
            limit = self.limits.get(name, asked)
            if name in _OVERCOMMITTED and amount_of(asked) > amount_of(limit):
                yield f"requests.{name} is {asked}, more than limits.{name} ({limit}); lower it"
            if name not in _OVERCOMMITTED and amount_of(asked) != amount_of(limit):
                yield f"requests.{name} is {asked}, but limits.{name} is {limit}; make them equal"


def _fractions(field: str, amounts: dict[str, str]) -> Iterator[str]:
    for name, amount in amounts.items():
        if name not in _OVERCOMMITTED and amount_of(amount).denominator != 1:
            yield f"{field}.{name} is {amount}, but extended resources are counted; write a whole number"


class Pod(ApiModel):
    """What the trainer's pod is made of; added to what the profile says."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="!has(self.labels) || self.labels.all(k, !k.startsWith('lora-operator.io/')"
            " && !k.startsWith('app.kubernetes.io/') && !k.startsWith('batch.kubernetes.io/')"
            " && !k.startsWith('kueue.x-k8s.io/'))",
            message="labels of lora-operator.io, app.kubernetes.io, batch.kubernetes.io and kueue.x-k8s.io "
            "are set by controllers; choose another prefix",
            holds=lambda m: not any(_reserved(key) for key in m.labels),
        ),
        Rule(
            cel="!has(self.annotations) || self.annotations.all(k, !k.startsWith('lora-operator.io/'))",
            message="annotations of lora-operator.io are set by the operator; choose another prefix",
            holds=lambda m: not any(key.startswith("lora-operator.io/") for key in m.annotations),
        ),
        Rule(
            cel="!has(self.annotations) || self.annotations.all(k, "
            + " && ".join(f"!k.startsWith('{power}')" for power in _POWERS)
            + ")",
            message="annotations that loosen AppArmor or seccomp, or add devices (cdi.k8s.io, CRI-O), networks "
            "(Multus) or Istio volumes are for the cluster's operator; remove them, or ask for a profile",
            holds=lambda m: not any(key.startswith(_POWERS) for key in m.annotations),
        ),
        Rule(
            cel="!has(self.env) || self.env.all(e, self.env.exists_one(f, f.name == e.name))",
            message="env names a variable twice; remove one",
            holds=lambda m: len({variable.name for variable in m.env}) == len(m.env),
        ),
    )

    image: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    """Trainer image. Default: that of the profile."""
    resources: Resources = Resources()
    """CPU, memory and other resources besides GPUs."""
    env: Annotated[tuple[EnvVar, ...], Field(max_length=64)] = ()
    """Further environment variables."""
    service_account_name: ObjectName | None = None
    """ServiceAccount whose cloud identity the pod uses; its API token is never mounted. Default: the
    profile's, else `default`."""
    labels: Labels = {}
    """Further labels of the pod."""
    annotations: Annotations = {}
    """Further annotations of the pod."""
    cache_volume_claim: ObjectName | None = None
    """PersistentVolumeClaim that keeps fetched models, pictures and, with `dataset.latentCache: Disk`, latents between
    pods and trainings. It needs room for all of them; nothing in it is ever the only copy."""
    shared_memory: Quantity = "2Gi"
    """Size of /dev/shm."""


class Limits(ApiModel):
    """When a training is given up."""

    active_seconds: Annotated[int, Field(ge=60, le=31536000)] | None = None
    """Total running time over all attempts and retries, in seconds. Pauses and waiting in a queue do not count; waiting
    for a node does, as for any Job."""
    stall_seconds: Annotated[int, Field(ge=60, le=86400)] | None = None
    """A trainer that gives no sign of life for this long (no step, no picture, no byte) is called Stalled; after as
    long again it ends and is started anew from its newest state. Default: found from how long each kind of work
    usually takes, at least 900."""


class Retry(ApiModel):
    """What happens after a failure that may not happen again."""

    max_failures: Annotated[int, Field(ge=0, le=100)] = 3
    """Failures that are retried, such as an unreachable store; preemptions do not count."""
    on_out_of_memory: Literal["Fail", "Ladder"] = "Fail"
    """What to do when the GPU's memory is too small. `Ladder`: go on with half of each batch at a time, as often as the
    batch can be halved, then with gradient checkpointing, then with the 8-bit form of the optimizer. Batch size and
    number of steps stay as they are; every rung is told in the status and in the manifest."""


class Resume(ApiModel):
    """How a training goes on from a state that an earlier attempt left at `output.uri`."""

    on_change: Literal["Refuse", "Continue"] = "Refuse"
    """What to do when pictures, captions or base model are no longer those of the state. `Refuse`: fail, and name what
    changed. `Continue`: go on with the weights of the state, from the beginning of the epoch it was in."""
