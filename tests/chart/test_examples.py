"""charts/lora-operator/examples: values that can be installed as they are, for hardware and cases that are usual."""

from typing import Any

import kubernetes_validate
import pytest

from lora_api import names
from lora_operator.manifests import build_job
from lora_operator.profiles import load_profiles
from tests.support.chart import CHART, EXAMPLES, example, hooks, only, render, run_helm
from tests.support.documents import make_training

VERSIONS = ("1.29", "1.37")
# Made by others' definitions; their own test looks at them.
FOREIGN = (names.API_VERSION, "monitoring.coreos.com/v1")


@pytest.mark.parametrize("name", EXAMPLES)
def test_helm_finds_nothing_to_complain_about(name: str) -> None:
    result = run_helm("lint", "--strict", str(CHART), values=example(name))

    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", EXAMPLES)
def test_every_object_fits_the_types_of_kubernetes(name: str, version: str) -> None:
    own = [found for found in (*render(example(name)), *hooks(example(name))) if found["apiVersion"] not in FOREIGN]

    for manifest in own:
        if manifest["kind"] != "CustomResourceDefinition":
            kubernetes_validate.validate(manifest, version, strict=True)


def pod_of(profile: str, gpus: int = 1) -> dict[str, Any]:
    """The pod of a training with this profile of examples/profiles.yaml; its Job fits the types of Kubernetes."""
    read = load_profiles(only("ConfigMap", example("profiles"))["data"]["profiles.yaml"])[profile]
    training = make_training(("parallelism.gpusPerNode", gpus))
    owned = training.model_copy(update={"metadata": training.metadata.model_copy(update={"uid": "u"})})
    job = build_job(owned, read, attempt=1)
    kubernetes_validate.validate(job, "1.37", strict=True)
    spec: dict[str, Any] = job["spec"]["template"]["spec"]
    return spec


@pytest.mark.parametrize(
    ("profile", "resource"),
    [
        ("default", "nvidia.com/gpu"),
        ("time-sliced", "nvidia.com/gpu.shared"),
        ("mig", "nvidia.com/mig-3g.20gb"),
        ("spot", "nvidia.com/gpu"),
        ("amd", "amd.com/gpu"),
    ],
)
def test_a_gpu_is_asked_for_by_the_name_that_the_hardware_has(profile: str, resource: str) -> None:
    [container] = pod_of(profile)["containers"]

    assert container["resources"]["limits"][resource] == "1"


def test_dynamic_resource_allocation_claims_a_gpu_in_the_place_of_that() -> None:
    pod = pod_of("dra")
    [container] = pod["containers"]

    assert pod["resourceClaims"] == [{"name": "gpu-0", "resourceClaimTemplateName": "one-gpu"}]
    assert set(container["resources"]["limits"]) == {"memory"}


def test_spot_nodes_are_told_from_others_in_three_clouds() -> None:
    pod = pod_of("spot")
    wanted = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]

    assert len(wanted) == 3
    assert {"cloud.google.com/gke-spot", "kubernetes.azure.com/scalesetpriority"} <= {
        t["key"] for t in pod["tolerations"]
    }
    # Google and Azure give half a minute's notice.
    assert pod["terminationGracePeriodSeconds"] < 30
