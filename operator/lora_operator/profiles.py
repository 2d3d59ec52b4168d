"""Profiles: named sets of cluster settings that the chart mounts as a file. Read by `__main__` and `controller`."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BeforeValidator, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from lora_api.base import ApiModel
from lora_api.cluster_spec import EnvVar, LabelKey, Resources, Storage, Toleration
from lora_api.fields import ConfigMapKeyRef, LabelText, ObjectName, Quantity, Text
from lora_api.load import dotted
from lora_operator.errors import SettingsError

log = logging.getLogger(__name__)

DEFAULT_PROFILE = "default"


def _off(value: object) -> object:
    """YAML 1.1, which Helm and PyYAML read, takes the plain word Off for false."""
    return "Off" if value is False else value


Preflight = Annotated[Literal["Job", "InitContainer", "Off"], BeforeValidator(_off)]


class PreflightPod(ApiModel):
    """What the pod that checks the data needs; nothing of the training pod's, whose nodes have GPUs."""

    resources: Resources = Resources(requests={"cpu": "1", "memory": "2Gi"})
    """CPU and memory; never a GPU."""
    node_selector: dict[LabelKey, LabelText] = {}
    """Labels a node must have."""
    tolerations: tuple[Toleration, ...] = ()
    """Taints that are tolerated."""


class Profile(ApiModel):
    """What the pods of a training are made of, as far as the training does not say it."""

    image: Annotated[str, Field(min_length=1, max_length=1024)]
    """Trainer image."""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    """When the image is pulled. Default: what Kubernetes does for its tag."""
    image_pull_secrets: tuple[ObjectName, ...] = ()
    """Secrets, in the namespace of the training, for pulling the image."""
    command: tuple[str, ...] = ()
    """Command that understands `run FILE`. Default: the image's entry point."""
    gpu_resource: LabelKey = "nvidia.com/gpu"
    """Resource that counts GPUs."""
    gpu_claim_template: ObjectName | None = None
    """ResourceClaimTemplate, in the namespace of the training, of a claim for one GPU (dynamic resource allocation).
    A pod then has as many such claims as it wants GPUs, in the place of `gpuResource`."""
    node_selector: dict[LabelKey, LabelText] = {}
    """Labels a node must have."""
    tolerations: tuple[Toleration, ...] = ()
    """Taints that are tolerated."""
    affinity: dict[str, Any] | None = None
    """Kubernetes affinity; replaced by that of the training, if it has one."""
    runtime_class_name: ObjectName | None = None
    """RuntimeClass, such as `nvidia`."""
    priority_class: ObjectName | None = None
    """PriorityClass of the pods."""
    service_account_name: ObjectName | None = None
    """ServiceAccount whose cloud identity the pods use."""
    resources: Resources = Resources()
    """CPU, memory and other resources besides GPUs."""
    env: tuple[EnvVar, ...] = ()
    """Further environment variables."""
    storage: Storage = Storage()
    """Object store of trainings that say nothing about theirs."""
    ca_bundle_ref: ConfigMapKeyRef | None = None
    """ConfigMap key, in the namespace of the training, with all the certificates (PEM) that pods trust in the place of
    those of their image: for the hub, and for stores without a `caBundleRef` of their own."""
    shared_memory: Quantity | None = None
    """Size of /dev/shm of trainings that leave theirs at the default."""
    pod_labels: dict[LabelKey, LabelText] = {}
    """Further labels of the pods."""
    pod_annotations: dict[LabelKey, Text] = {}
    """Further annotations of the pods."""
    termination_grace_period_seconds: Annotated[int, Field(ge=1, le=86400)] = 120
    """Time that a pod told to stop has for saving its state, in seconds."""
    preflight: Preflight = "Job"
    """Where the data of a training that asks for GPUs are checked. `Job`: in a pod of their own, so that no GPU is
    asked for before they can train. `InitContainer`: in the pod that trains, which holds its GPU meanwhile. `Off`: only
    by the training itself."""
    preflight_pod: PreflightPod = PreflightPod()
    """The pod that checks the data; with `InitContainer` its resources."""
    work_volume_size: Quantity | None = None
    """Size limit of the scratch volume that holds base model and pictures. Default: that of the node's disk."""

    @model_validator(mode="after")
    def _check_gpus(self) -> Self:
        if self.gpu_claim_template is not None and "gpu_resource" in self.model_fields_set:
            given = {"resource": self.gpu_resource, "template": self.gpu_claim_template}
            words = "gpuResource is {resource} and gpuClaimTemplate {template}, but GPUs come from one; remove one"
            raise PydanticCustomError("rule", words, given)
        return self


Profiles = dict[str, Profile]


def load_profiles(text: str) -> Profiles:
    """The profiles in YAML `text`. Raises SettingsError that names profile and field."""
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SettingsError(f"the profiles file is no valid YAML: {error}") from error
    if not isinstance(document, dict) or DEFAULT_PROFILE not in document:
        raise SettingsError(f"the profiles file must map names to profiles, {DEFAULT_PROFILE!r} among them; add it")
    return {str(name): _profile(str(name), content) for name, content in document.items()}


def _profile(name: str, content: object) -> Profile:
    try:
        # Through JSON, so that types are judged as strictly as those of a LoraTraining.
        return Profile.model_validate_json(json.dumps(content))
    except TypeError as error:
        raise SettingsError(f"profile {name}: {error}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise SettingsError(f"{dotted(('profiles', name, *first['loc']))}: {first['msg']}") from error


@dataclass
class ProfileFile:
    """The profiles as they are now; the kubelet changes the mounted file when the ConfigMap changes."""

    path: Path
    current: Profiles
    _text: str

    @classmethod
    def open(cls, path: Path) -> "ProfileFile":
        """Reads the file. Raises SettingsError when it cannot be read or is wrong."""
        text = _read(path)
        return cls(path, load_profiles(text), text)

    def refresh(self) -> bool:
        """Reads the file again if it changed; true when the profiles are other ones.

        Raises:
            SettingsError: the file is now wrong; the profiles read before stay in force.
        """
        text = _read(self.path)
        if text == self._text:
            return False
        # Remembered first: one wrong edit is one error, not one every few seconds.
        self._text = text
        self.current = load_profiles(text)
        return True


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"LORA_PROFILES_FILE is {path}, which cannot be read: {error}") from error
