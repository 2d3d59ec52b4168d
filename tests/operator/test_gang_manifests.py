"""lora_operator.manifests and lora_operator.pod_template, of several pods that train together"""

from typing import Any

import kubernetes_validate
import pytest

from lora_api import LoraTraining, names
from lora_operator.manifests import (
    Used,
    build_evaluation_job,
    build_job,
    build_job_patch,
    build_preflight_job,
    build_service,
    needs_preflight_job,
)
from lora_operator.profiles import load_profiles
from tests.support.documents import make_training
from tests.support.observations import make_job

PROFILE = load_profiles("default: {image: 'trainer:1', sharedMemory: 16Gi}")["default"]
TWO_BY_FOUR = ("parallelism", {"nodes": 2, "gpusPerNode": 4})
QUEUED: tuple[tuple[str, Any], ...] = (
    ("scheduling", {"queueName": "gpus", "queueTopology": {"required": "cloud.provider.com/rack"}}),
)


def make(*changes: tuple[str, Any]) -> LoraTraining:
    training = make_training(TWO_BY_FOUR, *changes)
    return training.model_copy(update={"metadata": training.metadata.model_copy(update={"uid": "u-1"})})


def build(*changes: tuple[str, Any], attempt: int = 1, used: Used | None = None) -> dict[str, Any]:
    return build_job(make(*changes), PROFILE, attempt=attempt, used=used or Used())


def pod_of(job: dict[str, Any]) -> dict[str, Any]:
    return job["spec"]["template"]["spec"]


def environment(job: dict[str, Any]) -> dict[str, Any]:
    entries = pod_of(job)["containers"][0]["env"]
    return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in entries}


@pytest.mark.parametrize("version", ["1.29", "1.31", "1.34", "1.36", "1.37"])
def test_a_training_on_two_nodes_of_four_gpus_is_valid_in_every_supported_kubernetes(version: str) -> None:
    training = make(*QUEUED)

    for manifest in (build(*QUEUED), build_service(training), build_preflight_job(training, PROFILE)):
        kubernetes_validate.validate(manifest, version, strict=True)


def test_all_pods_run_at_once_and_the_first_that_fails_ends_the_job() -> None:
    spec = build(("retry.maxFailures", 5))["spec"]

    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 2, 2)
    assert (spec["backoffLimit"], spec["podReplacementPolicy"], spec["suspend"]) == (0, "Failed", False)
    assert "podFailurePolicy" not in spec
    assert "backoffLimitPerIndex" not in spec


def test_each_pod_asks_for_the_gpus_of_one_node_and_has_room_for_what_they_share() -> None:
    pod = pod_of(build())
    (memory,) = [volume["emptyDir"] for volume in pod["volumes"] if volume["name"] == "shared-memory"]

    assert pod["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": "4"}
    assert memory == {"medium": "Memory", "sizeLimit": "16Gi"}


def test_pods_are_told_their_rank_and_where_they_meet() -> None:
    told = environment(build(attempt=3))

    rank = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    assert told["LORA_NODE_RANK"] == {"fieldRef": {"fieldPath": rank}}
    assert told["LORA_RENDEZVOUS"] == "hina-a3-0.hina-nodes.ml.svc:29500"


def test_the_service_names_the_pods_that_train_before_they_are_ready() -> None:
    service, job = build_service(make()), build()
    assert service is not None
    labels = job["spec"]["template"]["metadata"]["labels"]

    assert (service["metadata"]["name"], service["metadata"]["namespace"]) == (pod_of(job)["subdomain"], "ml")
    assert service["spec"]["selector"].items() <= labels.items()
    assert service["spec"]["selector"][names.LABEL_STAGE] == names.STAGE_TRAINING
    assert (service["spec"]["clusterIP"], service["spec"]["publishNotReadyAddresses"]) == ("None", True)
    assert service["metadata"]["ownerReferences"] == job["metadata"]["ownerReferences"]


def test_a_training_on_one_node_has_no_service_and_knows_of_no_others() -> None:
    training = make_training(("parallelism", {"gpusPerNode": 4}))
    job = build_job(training, PROFILE, attempt=1)

    assert build_service(training) is None
    assert "subdomain" not in pod_of(job)
    assert not {"LORA_NODE_RANK", "LORA_RENDEZVOUS"} & set(environment(job))


@pytest.mark.parametrize(("mode", "is_needed"), [("Job", True), ("InitContainer", True), ("Off", False)])
def test_the_data_are_checked_once_and_not_on_every_node(mode: str, is_needed: bool) -> None:
    profile = PROFILE.model_copy(update={"preflight": mode})
    training = make_training(TWO_BY_FOUR)

    assert needs_preflight_job(training.spec, profile) is is_needed
    assert "initContainers" not in pod_of(build_job(training, profile, attempt=1))


def test_one_pod_with_one_gpu_evaluates() -> None:
    job = build_evaluation_job(make_training(TWO_BY_FOUR), PROFILE, generation=2, attempts=1)

    assert (job["spec"]["completions"], job["spec"]["parallelism"]) == (1, 1)
    assert pod_of(job)["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": "1"}
    assert "subdomain" not in pod_of(job)


@pytest.mark.parametrize(
    ("wish", "annotation"),
    [
        ({"required": "cloud.provider.com/rack"}, ("required", "cloud.provider.com/rack")),
        ({"preferred": "cloud.provider.com/block"}, ("preferred", "cloud.provider.com/block")),
        ({"unconstrained": True}, ("unconstrained", "true")),
    ],
)
def test_the_queue_is_told_how_close_to_place_the_pods(wish: dict[str, Any], annotation: tuple[str, str]) -> None:
    job = build(("scheduling", {"queueName": "gpus", "queueTopology": wish}))
    annotations = job["spec"]["template"]["metadata"]["annotations"]

    told = {key: value for key, value in annotations.items() if key.startswith("kueue.x-k8s.io/")}
    assert told == {f"kueue.x-k8s.io/podset-{annotation[0]}-topology": annotation[1]}
    assert job["spec"]["suspend"] is True


def test_no_number_of_pods_or_retries_of_a_job_is_ever_changed() -> None:
    training = make_training(TWO_BY_FOUR, ("retry.maxFailures", 9))
    job = make_job(completions=2, parallelism=2, backoffLimit=0)

    assert build_job_patch(training.spec, job, Used()) is None
