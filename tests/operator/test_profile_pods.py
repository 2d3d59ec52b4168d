"""lora_operator.pod_template and lora_operator.pod_volumes: what only a profile can ask for."""

from typing import Any

import kubernetes_validate
import pytest

from lora_api.fields import ConfigMapKeyRef
from lora_operator.manifests import build_job, build_preflight_job
from lora_operator.profiles import Profile, load_profiles
from tests.support.documents import make_training

PLAIN = load_profiles("default: {image: 'trainer:1'}")["default"]
CLAIMING = PLAIN.model_copy(update={"gpu_claim_template": "one-gpu"})


def build(profile: Profile) -> dict[str, Any]:
    training = make_training()
    owner = training.metadata.model_copy(update={"uid": "u-1"})
    return build_job(training.model_copy(update={"metadata": owner}), profile, attempt=1)


def pod_of(job: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = job["spec"]["template"]["spec"]
    return spec


def test_gpus_can_come_from_resource_claims_one_each() -> None:
    job = build(CLAIMING)
    [container] = pod_of(job)["containers"]

    assert pod_of(job)["resourceClaims"] == [{"name": "gpu-0", "resourceClaimTemplateName": "one-gpu"}]
    assert container["resources"] == {"claims": [{"name": "gpu-0"}]}
    kubernetes_validate.validate(job, "1.34", strict=True)


@pytest.mark.parametrize("checks", [False, True], ids=["trains on the CPU", "checks the data"])
def test_pods_without_gpu_claim_none(checks: bool) -> None:
    training = make_training(("parallelism.gpusPerNode", 1 if checks else 0))

    job = build_preflight_job(training, CLAIMING) if checks else build_job(training, CLAIMING, attempt=1)
    [container] = pod_of(job)["containers"]

    assert "resourceClaims" not in pod_of(job)
    assert "claims" not in container.get("resources", {})


def test_certificates_of_the_profile_are_trusted_by_hub_and_store() -> None:
    job = build(profile=PLAIN.model_copy(update={"ca_bundle_ref": ConfigMapKeyRef(name="company", key="ca.pem")}))
    [volume] = [volume for volume in pod_of(job)["volumes"] if volume["name"] == "trusted"]
    [container] = pod_of(job)["containers"]
    [mount] = [mount for mount in container["volumeMounts"] if mount["name"] == "trusted"]
    environment = {entry["name"]: entry.get("value") for entry in container["env"]}

    assert volume["configMap"] == {"name": "company", "items": [{"key": "ca.pem", "path": "ca.crt"}]}
    assert environment["SSL_CERT_FILE"] == environment["AWS_CA_BUNDLE"] == f"{mount['mountPath']}/ca.crt"
