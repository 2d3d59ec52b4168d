"""The volumes of a training's pods, each with its mount; pure. Used by `pod_template`."""

from typing import Any

from lora_api import LoraTraining, LoraTrainingSpec, names
from lora_api.cluster_spec import Pod, Storage
from lora_api.fields import ConfigMapKeyRef, SecretRef
from lora_api.spec import SECTIONS, Section
from lora_operator.profiles import Profile
from lora_operator.subject import Manifest

SECRET_MODE = 0o440
PATH_OF_CLAIM = "pvc://"
TRUSTED_DIR = "/etc/lora/trusted"
TRUSTED_FILE = f"{TRUSTED_DIR}/{names.CA_BUNDLE_FILE}"
"""The certificates of the profile, which take the place of the image's."""

Volume = tuple[Manifest, Manifest]
"""A volume of the pod and its mount in the containers."""


def build_volumes(training: LoraTraining, profile: Profile) -> list[Volume]:
    """All volumes: the spec, scratch space, the cache, secrets, certificates, claims."""
    spec = training.spec
    shared_memory = {"medium": "Memory", "sizeLimit": _shared_memory(spec, profile)}
    found = [
        _spec_file(),
        _empty_dir("work", names.WORK_DIR, {"sizeLimit": profile.work_volume_size}),
        _empty_dir("shared-memory", names.SHARED_MEMORY_DIR, shared_memory),
    ]
    if spec.pod.cache_volume_claim:
        claim = {"claimName": spec.pod.cache_volume_claim}
        found.append(
            ({"name": "cache", "persistentVolumeClaim": claim}, {"name": "cache", "mountPath": names.CACHE_DIR})
        )
    if profile.ca_bundle_ref:
        found.append(_certificates("trusted", profile.ca_bundle_ref, TRUSTED_DIR))
    found += _of_storage(spec.storage, None)
    for section in SECTIONS:
        own = _own_storage(spec, section)
        found += _of_storage(own, section) if own else []
    token = spec.base_model.token_secret_ref
    if token:
        items = [{"key": token.key, "path": names.HUB_TOKEN_FILE}]
        found.append(_secret("hub-token", {"secretName": token.name, "items": items}, names.HUB_TOKEN_DIR))
    return found + _claims(spec)


def _spec_file() -> Volume:
    """The training itself, from the pod's own annotation: no object beside the Job can be missing or another one."""
    field = {"fieldPath": f"metadata.annotations['{names.ANNOTATION_TRAINING}']"}
    items = [{"path": names.CONFIG_FILE, "fieldRef": field}]
    mount = {"name": "config", "mountPath": names.CONFIG_DIR, "readOnly": True}
    return {"name": "config", "downwardAPI": {"items": items}}, mount


def _own_storage(spec: LoraTrainingSpec, section: Section) -> Storage | None:
    """What a section says itself about its store."""
    storage = spec.storage_of(section)
    return None if storage is spec.storage else storage


def _of_storage(storage: Storage, section: Section | None) -> list[Volume]:
    """Credentials and certificates of one store."""
    suffix = f"-{section.lower()}" if section else ""
    found = []
    if storage.credentials_secret_ref:
        place = names.section_dir(names.CREDENTIALS_DIR, section) if section else names.CREDENTIALS_DIR
        found.append(_credentials(f"credentials{suffix}", storage.credentials_secret_ref, place))
    if storage.ca_bundle_ref:
        place = names.section_dir(names.CA_BUNDLE_DIR, section) if section else names.CA_BUNDLE_DIR
        found.append(_certificates(f"ca-bundle{suffix}", storage.ca_bundle_ref, place))
    return found


def _credentials(volume: str, secret: SecretRef, place: str) -> Volume:
    return _secret(volume, {"secretName": secret.name}, place)


def _certificates(volume: str, bundle: ConfigMapKeyRef, place: str) -> Volume:
    source = {"name": bundle.name, "items": [{"key": bundle.key, "path": names.CA_BUNDLE_FILE}]}
    return {"name": volume, "configMap": source}, {"name": volume, "mountPath": place, "readOnly": True}


def _secret(volume: str, source: Manifest, place: str) -> Volume:
    content = {**source, "defaultMode": SECRET_MODE}
    return {"name": volume, "secret": content}, {"name": volume, "mountPath": place, "readOnly": True}


def _shared_memory(spec: LoraTrainingSpec, profile: Profile) -> str:
    asked = spec.pod.shared_memory
    return profile.shared_memory or asked if asked == Pod().shared_memory else asked


def _empty_dir(volume: str, place: str, options: dict[str, Any]) -> Volume:
    given = {name: value for name, value in options.items() if value is not None}
    return {"name": volume, "emptyDir": given}, {"name": volume, "mountPath": place}


def _claims(spec: LoraTrainingSpec) -> list[Volume]:
    """PersistentVolumeClaims named by pvc:// URIs; only those that results go to may be written."""
    written = [_claim_of(uri) for uri in spec.written_uris]
    read = [_claim_of(uri) for uri in spec.read_uris]
    mounts: list[Volume] = []
    for index, claim in enumerate(dict.fromkeys(name for name in (*written, *read) if name)):
        access = {} if claim in written else {"readOnly": True}
        volume = {"name": f"claim-{index}", "persistentVolumeClaim": {"claimName": claim, **access}}
        mounts.append((volume, {"name": f"claim-{index}", "mountPath": f"{names.CLAIMS_DIR}/{claim}", **access}))
    return mounts


def _claim_of(uri: str | None) -> str | None:
    if uri is None or not uri.startswith(PATH_OF_CLAIM):
        return None
    return uri.removeprefix(PATH_OF_CLAIM).split("/", 1)[0]
