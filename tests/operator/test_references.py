"""lora_operator.references"""

from lora_operator.references import Reference, references_of
from tests.support.observations import make_subject

EVERYTHING = (
    (
        "storage",
        {
            "endpoint": "https://s3",
            "credentialsSecretRef": {"name": "s3"},
            "caBundleRef": {"name": "ca", "key": "ca.pem"},
        },
    ),
    ("dataset.storage", {"credentialsSecretRef": {"name": "pictures"}}),
    ("output.storage", {"endpoint": "https://s4", "caBundleRef": {"name": "ca", "key": "other.pem"}}),
    ("baseModel", {"uri": "hf://a/b", "vaeUri": "pvc://models/vae", "tokenSecretRef": {"name": "hf", "key": "token"}}),
    (
        "pod",
        {
            "cacheVolumeClaim": "cache",
            "env": [
                {"name": "A", "secretKeyRef": {"name": "more", "key": "a"}},
                {"name": "B", "configMapKeyRef": {"name": "settings", "key": "b"}},
            ],
        },
    ),
)


def test_everything_that_a_training_names_is_known_by_its_field() -> None:
    training = make_subject(*EVERYTHING).training

    assert training is not None
    assert references_of(training) == (
        Reference("spec.storage.credentialsSecretRef", "Secret", "s3"),
        Reference("spec.storage.caBundleRef", "ConfigMap", "ca", "ca.pem"),
        Reference("spec.dataset.storage.credentialsSecretRef", "Secret", "pictures"),
        Reference("spec.output.storage.caBundleRef", "ConfigMap", "ca", "other.pem"),
        Reference("spec.baseModel.tokenSecretRef", "Secret", "hf", "token"),
        Reference("spec.pod.env[A].secretKeyRef", "Secret", "more", "a"),
        Reference("spec.pod.env[B].configMapKeyRef", "ConfigMap", "settings", "b"),
        Reference("spec.pod.cacheVolumeClaim", "PersistentVolumeClaim", "cache"),
        Reference("spec.baseModel.vaeUri", "PersistentVolumeClaim", "models"),
    )


def test_a_training_that_names_nothing_has_no_references() -> None:
    training = make_subject(("baseModel.uri", "hf://a/b")).training

    assert training is not None
    assert references_of(training) == ()
