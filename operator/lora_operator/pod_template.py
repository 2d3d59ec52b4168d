"""The pod of a training, built from its spec and a profile; pure. Used by `manifests`."""

from typing import Any

from lora_api import LoraTraining, LoraTrainingSpec, names
from lora_api.cluster_spec import EnvVar, Pod
from lora_operator.observed import Manifest
from lora_operator.profiles import Profile

USER_ID = 65532
"""User and group of the trainer image; group of the volumes."""
POD_IP = "LORA_POD_IP"
SECRET_MODE = 0o440
PATH_OF_CLAIM = "pvc://"


def build_pod_template(training: LoraTraining, profile: Profile, *, attempt: int, labels: Manifest) -> Manifest:
    """The template of a Job's pods; fits the Pod Security standard "restricted"."""
    spec = training.spec
    pod = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": profile.termination_grace_period_seconds,
        "serviceAccountName": spec.pod.service_account_name or profile.service_account_name,
        "priorityClassName": spec.scheduling.priority_class or profile.priority_class,
        "runtimeClassName": profile.runtime_class_name,
        "nodeSelector": {**profile.node_selector, **spec.scheduling.node_selector},
        "tolerations": [t.to_document() for t in (*profile.tolerations, *spec.scheduling.tolerations)],
        "affinity": spec.scheduling.affinity or profile.affinity,
        "imagePullSecrets": [{"name": name} for name in profile.image_pull_secrets],
        "securityContext": _pod_security(),
        "containers": [_container(training, profile, attempt)],
        "volumes": [volume for volume, _ in _volumes(training, profile)],
    }
    metadata = {
        "labels": {**profile.pod_labels, **spec.pod.labels, **labels},
        "annotations": {**profile.pod_annotations, **spec.pod.annotations},
    }
    return {"metadata": _without_empty(metadata), "spec": _without_empty(pod)}


def _without_empty(document: Manifest) -> Manifest:
    return {key: value for key, value in document.items() if value not in (None, {}, [])}


def _pod_security() -> Manifest:
    return {
        "runAsNonRoot": True,
        "runAsUser": USER_ID,
        "runAsGroup": USER_ID,
        "fsGroup": USER_ID,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _container(training: LoraTraining, profile: Profile, attempt: int) -> Manifest:
    spec = training.spec
    return _without_empty(
        {
            "name": names.TRAINER_CONTAINER,
            "image": spec.pod.image or profile.image,
            "imagePullPolicy": profile.image_pull_policy,
            "command": list(profile.command),
            "args": ["run", f"{names.CONFIG_DIR}/{names.CONFIG_FILE}"],
            "env": _environment(spec, profile, attempt),
            "ports": [{"name": names.TRAINER_PORT_NAME, "containerPort": names.TRAINER_PORT}],
            "resources": _resources(spec, profile),
            "volumeMounts": [mount for _, mount in _volumes(training, profile)],
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


def _resources(spec: LoraTrainingSpec, profile: Profile) -> Manifest:
    limits = {**profile.resources.limits, **spec.pod.resources.limits}
    if spec.parallelism.gpus_per_node:
        limits[profile.gpu_resource] = str(spec.parallelism.gpus_per_node)
    requests = {**profile.resources.requests, **spec.pod.resources.requests}
    return _without_empty({"requests": requests, "limits": limits})


def _environment(spec: LoraTrainingSpec, profile: Profile, attempt: int) -> list[Manifest]:
    own: dict[str, str | Manifest] = {
        names.ENV_ATTEMPT: str(attempt),
        # Before the address below: Kubernetes expands only variables that stand earlier in the list.
        POD_IP: {"fieldRef": {"fieldPath": "status.podIP"}},
        names.ENV_LISTEN_ADDRESS: f"$({POD_IP}):{names.TRAINER_PORT}",
        names.ENV_WORK_DIR: names.WORK_DIR,
        names.ENV_CLAIMS_DIR: names.CLAIMS_DIR,
        names.ENV_TERMINATION_LOG: names.TERMINATION_LOG,
        "HOME": names.WORK_DIR,
        "TMPDIR": names.WORK_DIR,
        "HF_HOME": f"{names.WORK_DIR}/huggingface",
    }
    if spec.storage.credentials_secret_ref:
        own[names.ENV_CREDENTIALS_DIR] = names.CREDENTIALS_DIR
    if spec.base_model.token_secret_ref:
        own[names.ENV_HUB_TOKEN_FILE] = f"{names.HUB_TOKEN_DIR}/{names.HUB_TOKEN_FILE}"
    if spec.storage.ca_bundle_ref:
        own[names.ENV_CA_BUNDLE] = f"{names.CA_BUNDLE_DIR}/{names.CA_BUNDLE_FILE}"
    named = {entry.name: _variable(entry) for entry in (*profile.env, *spec.pod.env)}
    return [_entry(name, value) for name, value in own.items() if name not in named] + list(named.values())


def _entry(name: str, value: str | Manifest) -> Manifest:
    return {"name": name, "value": value} if isinstance(value, str) else {"name": name, "valueFrom": value}


def _variable(entry: EnvVar) -> Manifest:
    for source in ("secret_key_ref", "config_map_key_ref"):
        reference = getattr(entry, source)
        if reference is not None:
            field = "secretKeyRef" if source == "secret_key_ref" else "configMapKeyRef"
            return {"name": entry.name, "valueFrom": {field: reference.to_document()}}
    return {"name": entry.name, "value": entry.value or ""}


def _volumes(training: LoraTraining, profile: Profile) -> list[tuple[Manifest, Manifest]]:
    """Each volume with its mount."""
    spec = training.spec
    shared_memory = {"medium": "Memory", "sizeLimit": _shared_memory(spec, profile)}
    spec_file = {"key": names.CONFIG_FILE, "path": names.CONFIG_FILE}
    found = [
        _config_map("config", names.config_map_name(training.name), spec_file, names.CONFIG_DIR),
        _empty_dir("work", names.WORK_DIR, {"sizeLimit": profile.work_volume_size}),
        _empty_dir("shared-memory", names.SHARED_MEMORY_DIR, shared_memory),
    ]
    credentials, token, bundle = (
        spec.storage.credentials_secret_ref,
        spec.base_model.token_secret_ref,
        spec.storage.ca_bundle_ref,
    )
    if credentials:
        found.append(_secret("credentials", {"secretName": credentials.name}, names.CREDENTIALS_DIR))
    if token:
        items = [{"key": token.key, "path": names.HUB_TOKEN_FILE}]
        found.append(_secret("hub-token", {"secretName": token.name, "items": items}, names.HUB_TOKEN_DIR))
    if bundle:
        file = {"key": bundle.key, "path": names.CA_BUNDLE_FILE}
        found.append(_config_map("ca-bundle", bundle.name, file, names.CA_BUNDLE_DIR))
    return found + _claims(spec)


def _shared_memory(spec: LoraTrainingSpec, profile: Profile) -> str:
    asked = spec.pod.shared_memory
    return profile.shared_memory or asked if asked == Pod().shared_memory else asked


def _config_map(volume: str, name: str, file: Manifest, place: str) -> tuple[Manifest, Manifest]:
    source = {"name": name, "items": [file]}
    return {"name": volume, "configMap": source}, {"name": volume, "mountPath": place, "readOnly": True}


def _secret(volume: str, source: Manifest, place: str) -> tuple[Manifest, Manifest]:
    content = {**source, "defaultMode": SECRET_MODE}
    return {"name": volume, "secret": content}, {"name": volume, "mountPath": place, "readOnly": True}


def _empty_dir(volume: str, place: str, options: dict[str, Any]) -> tuple[Manifest, Manifest]:
    return {"name": volume, "emptyDir": _without_empty(options)}, {"name": volume, "mountPath": place}


def _claims(spec: LoraTrainingSpec) -> list[tuple[Manifest, Manifest]]:
    """PersistentVolumeClaims named by pvc:// URIs; only those that results go to may be written."""
    written = [_claim_of(uri) for uri in spec.written_uris]
    read = [_claim_of(uri) for uri in spec.read_uris]
    mounts: list[tuple[Manifest, Manifest]] = []
    for index, claim in enumerate(dict.fromkeys(name for name in (*written, *read) if name)):
        access = {} if claim in written else {"readOnly": True}
        volume = {"name": f"claim-{index}", "persistentVolumeClaim": {"claimName": claim, **access}}
        mounts.append((volume, {"name": f"claim-{index}", "mountPath": f"{names.CLAIMS_DIR}/{claim}", **access}))
    return mounts


def _claim_of(uri: str | None) -> str | None:
    if uri is None or not uri.startswith(PATH_OF_CLAIM):
        return None
    return uri.removeprefix(PATH_OF_CLAIM).split("/", 1)[0]
