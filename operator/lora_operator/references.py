"""Which field of a training names a Secret, a ConfigMap or a volume claim; pure. Used by `pod_problems`."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from lora_api import LoraTraining
from lora_api.cluster_spec import Storage

Kind = Literal["Secret", "ConfigMap", "PersistentVolumeClaim"]
_CLAIM_SCHEME = "pvc://"


@dataclass(frozen=True)
class Reference:
    """A field that names an object of the namespace, and the key of it that is wanted."""

    field: str
    kind: Kind
    name: str
    key: str | None = None


def references_of(training: LoraTraining) -> tuple[Reference, ...]:
    """Everything that the training names, in the order of the spec."""
    spec = training.spec
    storages = {
        "spec.storage": spec.storage,
        "spec.baseModel.storage": spec.base_model.storage,
        "spec.dataset.storage": spec.dataset.storage,
        "spec.output.storage": spec.output.storage,
    }
    found = [one for path, storage in storages.items() if storage for one in _of_storage(path, storage)]
    if token := spec.base_model.token_secret_ref:
        found.append(Reference("spec.baseModel.tokenSecretRef", "Secret", token.name, token.key))
    return (*found, *_of_environment(training), *_claims(training))


def _of_storage(path: str, storage: Storage) -> Iterator[Reference]:
    if credentials := storage.credentials_secret_ref:
        yield Reference(f"{path}.credentialsSecretRef", "Secret", credentials.name)
    if bundle := storage.ca_bundle_ref:
        yield Reference(f"{path}.caBundleRef", "ConfigMap", bundle.name, bundle.key)


def _of_environment(training: LoraTraining) -> Iterator[Reference]:
    for variable in training.spec.pod.env:
        path = f"spec.pod.env[{variable.name}]"
        if secret := variable.secret_key_ref:
            yield Reference(f"{path}.secretKeyRef", "Secret", secret.name, secret.key)
        if config_map := variable.config_map_key_ref:
            yield Reference(f"{path}.configMapKeyRef", "ConfigMap", config_map.name, config_map.key)


def _claims(training: LoraTraining) -> Iterator[Reference]:
    spec = training.spec
    if claim := spec.pod.cache_volume_claim:
        yield Reference("spec.pod.cacheVolumeClaim", "PersistentVolumeClaim", claim)
    uris: tuple[tuple[str, str | None], ...] = (
        ("spec.baseModel.uri", spec.base_model.uri),
        ("spec.baseModel.vaeUri", spec.base_model.vae_uri),
        *((f"spec.baseModel.adapters[{i}].uri", adapter.uri) for i, adapter in enumerate(spec.base_model.adapters)),
        ("spec.dataset.uri", spec.dataset.uri),
        *((f"spec.dataset.subsets[{i}].uri", subset.uri) for i, subset in enumerate(spec.dataset.subsets)),
        ("spec.dataset.regularization.uri", spec.dataset.regularization.uri),
        ("spec.dataset.cacheUri", spec.dataset.latent_store_uri),
        ("spec.network.initialUri", spec.network.initial_uri),
        ("spec.output.uri", spec.output.uri),
    )
    for field, uri in uris:
        if uri is not None and uri.startswith(_CLAIM_SCHEME):
            yield Reference(field, "PersistentVolumeClaim", uri.removeprefix(_CLAIM_SCHEME).split("/", 1)[0])
