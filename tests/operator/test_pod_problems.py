"""lora_operator.pod_problems"""

import pytest

from lora_operator.observed import Waiting
from lora_operator.pod_problems import (
    explain_refused_job,
    explain_refused_pod,
    explain_unschedulable,
    explain_waiting,
    keeps_the_words,
)
from lora_operator.view import Finding
from tests.support.observations import make_subject

TRAINING = make_subject(
    (
        "storage",
        {
            "endpoint": "https://s3",
            "credentialsSecretRef": {"name": "s3"},
            "caBundleRef": {"name": "ca", "key": "ca.pem"},
        },
    ),
    ("dataset.storage", {"credentialsSecretRef": {"name": "pictures"}}),
    ("baseModel", {"uri": "hf://a/b", "tokenSecretRef": {"name": "hf", "key": "token"}}),
    ("pod", {"cacheVolumeClaim": "cache"}),
).training


def explain(reason: str, words: str) -> Finding:
    found = explain_waiting(Waiting(reason, words), TRAINING)
    assert found is not None
    return found


MISSING = {
    "secret of a variable": ('secret "hf" not found', "Secret hf (spec.baseModel.tokenSecretRef) does not exist"),
    "secret of a volume": (
        'MountVolume.SetUp failed for volume "credentials-dataset" : secret "pictures" not found',
        "Secret pictures (spec.dataset.storage.credentialsSecretRef) does not exist",
    ),
    "secret of the profile": ('secret "company" not found', "Secret company (named by the profile) does not exist"),
    "key of a variable": (
        "couldn't find key token in Secret ml/hf",
        "Secret hf (spec.baseModel.tokenSecretRef) has no key token",
    ),
    "key of a volume": (
        'MountVolume.SetUp failed for volume "hub-token" : references non-existent secret key: token',
        "Secret hf (spec.baseModel.tokenSecretRef) has no key token",
    ),
    "certificates": ('configmap "ca" not found', "ConfigMap ca (spec.storage.caBundleRef) does not exist"),
    "certificate's key": (
        'MountVolume.SetUp failed for volume "ca-bundle" : configmap references non-existent config key: ca.pem',
        "ConfigMap ca (spec.storage.caBundleRef) has no key ca.pem",
    ),
}


@pytest.mark.parametrize(("words", "told"), MISSING.values(), ids=MISSING)
def test_what_is_missing_is_named_with_its_field_and_the_cure(words: str, told: str) -> None:
    found = explain("FailedMount", words)

    assert found.reason == ("SecretMissing" if told.startswith("Secret") else "ConfigMapMissing")
    assert found.message.startswith(told + "; ")
    assert found.message.endswith("the pod then starts by itself")


def test_other_trouble_with_a_volume_is_told_in_the_kubelets_words() -> None:
    found = explain("FailedMount", "MountVolume.MountDevice failed: timed out")

    assert (found.reason, found.message) == ("PodConfigFailed", "MountVolume.MountDevice failed: timed out")


def test_a_pod_that_only_needs_time_has_no_problem() -> None:
    assert explain_waiting(Waiting("ContainerCreating", ""), TRAINING) is None


REGISTRY = 'failed to pull and unpack image "trainer:9": pull access denied'


def test_a_missing_image_is_told_alike_while_it_is_pulled_and_while_that_is_put_off() -> None:
    tried = explain("ErrImagePull", REGISTRY)
    waits = explain("ImagePullBackOff", f'Back-off pulling image "trainer:9": ErrImagePull: {REGISTRY}')

    assert tried == waits
    assert REGISTRY in tried.message
    assert "imagePullSecrets" in tried.message


def test_the_registrys_words_stay_while_an_older_kubelet_backs_off_without_them() -> None:
    tried = explain("ErrImagePull", REGISTRY).message
    waits = explain("ImagePullBackOff", 'Back-off pulling image "trainer:9"').message

    assert keeps_the_words(tried, waits)
    assert not keeps_the_words(waits, tried)
    assert not keeps_the_words(tried, tried)


def test_the_scheduler_is_quoted_with_its_counts() -> None:
    words = "0/3 nodes are available: 1 node(s) had untolerated taint {gpu: }, 2 Insufficient nvidia.com/gpu."

    found = explain_unschedulable(words, TRAINING)

    assert (found.status, found.reason) == ("False", "Unschedulable")
    assert found.message.startswith(words.rstrip("."))


def test_a_missing_claim_is_told_with_the_field_that_names_it() -> None:
    words = '0/1 nodes are available: persistentvolumeclaim "cache" not found.'

    found = explain_unschedulable(words, TRAINING)

    assert "create PersistentVolumeClaim cache (spec.pod.cacheVolumeClaim)" in found.message


def test_an_unbound_claim_is_told_with_what_to_look_at() -> None:
    words = "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims."

    assert "kubectl get pvc" in explain_unschedulable(words, TRAINING).message


QUOTA = 'pods "hina-a1-0-x" is forbidden: exceeded quota: gpus, requested: pods=1, used: pods=1, limited: pods=1'


@pytest.mark.parametrize("found", [explain_refused_pod(f"Error creating: {QUOTA}"), explain_refused_job(QUOTA)])
def test_a_quota_is_told_with_its_numbers(found: Finding) -> None:
    assert found.reason == "QuotaExceeded"
    assert found.message.startswith(QUOTA)


def test_a_pod_that_admission_refuses_is_told_in_its_words() -> None:
    found = explain_refused_pod('Error creating: admission webhook "guard" denied the request: no')

    assert (found.reason, found.message) == (
        "PodRefused",
        'the API server refuses the pod: admission webhook "guard" denied the request: no',
    )
