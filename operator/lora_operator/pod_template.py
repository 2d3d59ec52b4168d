"""The pods of a training, built from its spec and a profile; pure. Used by `manifests`."""

import json
import re
from dataclasses import dataclass

from lora_api import LoraTraining, LoraTrainingSpec, names
from lora_api.cluster_spec import EnvVar
from lora_operator.kueue import topology_annotations
from lora_operator.observed import ANNOTATION_INDEX
from lora_operator.pod_volumes import TRUSTED_FILE, Volume, build_volumes
from lora_operator.profiles import Profile
from lora_operator.subject import Manifest

USER_ID = 65532
"""User and group of the trainer image; group of the volumes."""
POD_IP = "LORA_POD_IP"
CONFIG_PATH = f"{names.CONFIG_DIR}/{names.CONFIG_FILE}"
COMMANDS = {names.STAGE_TRAINING: "run", names.STAGE_PREFLIGHT: "preflight", names.STAGE_EVALUATION: "evaluate"}
"""What the trainer image is told to do."""
_NOT_PRINTABLE_IN_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


@dataclass(frozen=True)
class Meeting:
    """How several pods find each other."""

    service: str
    """The headless Service that gives each pod a name of its own."""
    address: str
    """`host:port` at which the first waits for the others."""


@dataclass(frozen=True)
class PodRole:
    """What one pod is for."""

    stage: str
    """`names.STAGE_TRAINING`, `names.STAGE_PREFLIGHT` or `names.STAGE_EVALUATION`."""
    attempt: int
    labels: dict[str, str]
    grace_seconds: int
    """Time that it has for saving its state once it was told to stop."""
    meeting: Meeting | None = None
    """Where it meets the others, if several train together."""


def build_pod_template(training: LoraTraining, profile: Profile, role: PodRole) -> Manifest:
    """The template of a Job's pods; fits the Pod Security standard "restricted"."""
    spec, volumes = training.spec, build_volumes(training, profile)
    checks_only = role.stage == names.STAGE_PREFLIGHT
    pod = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        # The kernel drops a SIGTERM that comes to process 1 before Python can catch it; the pause container is that.
        "shareProcessNamespace": True,
        "terminationGracePeriodSeconds": role.grace_seconds,
        "serviceAccountName": spec.pod.service_account_name or profile.service_account_name,
        "priorityClassName": spec.scheduling.priority_class or profile.priority_class,
        "imagePullSecrets": [{"name": name} for name in profile.image_pull_secrets],
        "securityContext": _pod_security(),
        **(_any_node(profile) if checks_only else _gpu_node(spec, profile)),
        "initContainers": _init_containers(spec, profile, role, volumes),
        "containers": [_only_container(spec, profile, role, volumes)],
        "volumes": [volume for volume, _ in volumes],
        "resourceClaims": _gpu_claims(spec, profile, role),
        "subdomain": role.meeting.service if role.meeting else None,
    }
    metadata = {"labels": {**profile.pod_labels, **spec.pod.labels, **role.labels}}
    annotations = pod_annotations(training, profile)
    if role.stage == names.STAGE_TRAINING:
        annotations |= topology_annotations(spec.scheduling)
    return {
        "metadata": {**_without_empty(metadata), "annotations": annotations},
        "spec": _without_empty(pod),
    }


def pod_annotations(training: LoraTraining, profile: Profile) -> dict[str, str]:
    """The annotations of a pod; one of them is the training itself, which its containers read as a file."""
    given = {**profile.pod_annotations, **training.spec.pod.annotations}
    return {**given, names.ANNOTATION_TRAINING: _dump(training)}


def _dump(training: LoraTraining) -> str:
    """JSON, which every YAML reader takes: text such as `1e-2` or `no` stays text without further care."""
    meta = {"name": training.name, "namespace": training.metadata.namespace, "uid": training.metadata.uid}
    document = {
        "apiVersion": training.api_version,
        "kind": training.kind,
        "metadata": {key: value for key, value in meta.items() if value},
        "spec": training.spec.to_document(),
    }
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False)
    return _NOT_PRINTABLE_IN_YAML.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _without_empty(document: Manifest) -> Manifest:
    return {key: value for key, value in document.items() if value not in (None, {}, [])}


def _gpu_node(spec: LoraTrainingSpec, profile: Profile) -> Manifest:
    """Where a pod that trains may run."""
    return {
        "runtimeClassName": profile.runtime_class_name,
        "nodeSelector": {**profile.node_selector, **spec.scheduling.node_selector},
        "tolerations": [t.to_document() for t in (*profile.tolerations, *spec.scheduling.tolerations)],
        "affinity": spec.scheduling.affinity or profile.affinity,
    }


def _any_node(profile: Profile) -> Manifest:
    """Where a pod that only checks the data may run: what leads to nodes with GPUs is left out."""
    chosen = profile.preflight_pod
    return {"nodeSelector": chosen.node_selector, "tolerations": [t.to_document() for t in chosen.tolerations]}


def _pod_security() -> Manifest:
    return {
        "runAsNonRoot": True,
        "runAsUser": USER_ID,
        "runAsGroup": USER_ID,
        "fsGroup": USER_ID,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _only_container(spec: LoraTrainingSpec, profile: Profile, role: PodRole, volumes: list[Volume]) -> Manifest:
    """The container whose end is the pod's."""
    body = _container(spec, profile, role, volumes)
    checks_only = role.stage == names.STAGE_PREFLIGHT
    return body | {
        "name": names.TRAINER_CONTAINER,
        "args": [COMMANDS[role.stage], CONFIG_PATH],
        "ports": [{"name": names.TRAINER_PORT_NAME, "containerPort": names.TRAINER_PORT}],
        "resources": _preflight_resources(profile) if checks_only else _resources(spec, profile, role),
    }


def _init_containers(spec: LoraTrainingSpec, profile: Profile, role: PodRole, volumes: list[Volume]) -> list[Manifest]:
    """The check of the data in the training's own pod, where the profile wants it there."""
    if role.stage != names.STAGE_TRAINING or not checks_in_pod(spec, profile):
        return []
    body = _container(spec, profile, role, volumes)
    return [
        body
        | {
            "name": names.PREFLIGHT_CONTAINER,
            "args": [COMMANDS[names.STAGE_PREFLIGHT], CONFIG_PATH],
            "resources": _preflight_resources(profile),
        }
    ]


def checks_in_pod(spec: LoraTrainingSpec, profile: Profile) -> bool:
    """Whether an init container checks the data; one check is enough where several pods train."""
    alone = spec.parallelism.nodes == 1
    return profile.preflight == "InitContainer" and alone and spec.parallelism.gpus_per_node > 0


def _container(spec: LoraTrainingSpec, profile: Profile, role: PodRole, volumes: list[Volume]) -> Manifest:
    """What all containers of the trainer image share."""
    return _without_empty(
        {
            "image": spec.pod.image or profile.image,
            "imagePullPolicy": profile.image_pull_policy,
            "command": list(profile.command),
            "env": _environment(spec, profile, role),
            "volumeMounts": [mount for _, mount in volumes],
            "terminationMessagePath": names.TERMINATION_LOG,
            "terminationMessagePolicy": "FallbackToLogsOnError",
            "securityContext": {
                "runAsNonRoot": True,
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
                "seccompProfile": {"type": "RuntimeDefault"},
            },
        }
    )


def _resources(spec: LoraTrainingSpec, profile: Profile, role: PodRole) -> Manifest:
    limits = {**profile.resources.limits, **spec.pod.resources.limits}
    if (gpus := _gpus(spec, role)) and profile.gpu_claim_template is None:
        limits[profile.gpu_resource] = str(gpus)
    requests = {**profile.resources.requests, **spec.pod.resources.requests}
    claims = [{"name": claim["name"]} for claim in _gpu_claims(spec, profile, role)]
    return _without_empty({"requests": requests, "limits": limits, "claims": claims})


def _gpus(spec: LoraTrainingSpec, role: PodRole) -> int:
    """GPUs of the pod: one process evaluates, and none is needed to check the data."""
    most = {names.STAGE_PREFLIGHT: 0, names.STAGE_EVALUATION: 1}.get(role.stage, spec.parallelism.gpus_per_node)
    return min(most, spec.parallelism.gpus_per_node)


def _gpu_claims(spec: LoraTrainingSpec, profile: Profile, role: PodRole) -> list[Manifest]:
    """The pod's claims, one for each GPU, where the profile takes GPUs by dynamic resource allocation."""
    if profile.gpu_claim_template is None:
        return []
    template = {"resourceClaimTemplateName": profile.gpu_claim_template}
    return [{"name": f"gpu-{index}", **template} for index in range(_gpus(spec, role))]


def _preflight_resources(profile: Profile) -> Manifest:
    asked = profile.preflight_pod.resources
    return _without_empty({"requests": asked.requests, "limits": asked.limits})


def _environment(spec: LoraTrainingSpec, profile: Profile, role: PodRole) -> list[Manifest]:
    own: dict[str, str | Manifest] = {
        names.ENV_ATTEMPT: str(role.attempt),
        names.ENV_POD_NAME: _field("metadata.name"),
        names.ENV_POD_UID: _field("metadata.uid"),
        # Before the address below: Kubernetes expands only variables that stand earlier in the list.
        POD_IP: _field("status.podIP"),
        names.ENV_LISTEN_ADDRESS: f"$({POD_IP}):{names.TRAINER_PORT}",
        names.ENV_GRACE_SECONDS: str(role.grace_seconds),
        names.ENV_WORK_DIR: names.WORK_DIR,
        names.ENV_CLAIMS_DIR: names.CLAIMS_DIR,
        names.ENV_TERMINATION_LOG: names.TERMINATION_LOG,
        "HOME": names.WORK_DIR,
        "TMPDIR": names.WORK_DIR,
        "HF_HOME": f"{names.WORK_DIR}/huggingface",
    }
    if role.meeting is not None:
        own[names.ENV_NODE_RANK] = _field(f"metadata.annotations['{ANNOTATION_INDEX}']")
        own[names.ENV_RENDEZVOUS] = role.meeting.address
    if profile.ca_bundle_ref:
        # Read by the hub's client, and by the store's where it has no certificates of its own.
        own |= {"SSL_CERT_FILE": TRUSTED_FILE, "AWS_CA_BUNDLE": TRUSTED_FILE}
    if spec.pod.cache_volume_claim:
        own[names.ENV_CACHE_DIR] = names.CACHE_DIR
    if spec.storage.credentials_secret_ref:
        own[names.ENV_CREDENTIALS_DIR] = names.CREDENTIALS_DIR
    if spec.base_model.token_secret_ref:
        own[names.ENV_HUB_TOKEN_FILE] = f"{names.HUB_TOKEN_DIR}/{names.HUB_TOKEN_FILE}"
    if spec.storage.ca_bundle_ref:
        own[names.ENV_CA_BUNDLE] = f"{names.CA_BUNDLE_DIR}/{names.CA_BUNDLE_FILE}"
    named = {entry.name: _variable(entry) for entry in (*profile.env, *spec.pod.env)}
    return [_entry(name, value) for name, value in own.items() if name not in named] + list(named.values())


def _field(path: str) -> Manifest:
    return {"fieldRef": {"fieldPath": path}}


def _entry(name: str, value: str | Manifest) -> Manifest:
    return {"name": name, "value": value} if isinstance(value, str) else {"name": name, "valueFrom": value}


def _variable(entry: EnvVar) -> Manifest:
    for source in ("secret_key_ref", "config_map_key_ref"):
        reference = getattr(entry, source)
        if reference is not None:
            field = "secretKeyRef" if source == "secret_key_ref" else "configMapKeyRef"
            return {"name": entry.name, "valueFrom": {field: reference.to_document()}}
    return {"name": entry.name, "value": entry.value or ""}
