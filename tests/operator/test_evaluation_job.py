"""lora_operator.manifests: the Job that evaluates a training that has succeeded"""

from typing import Any

import kubernetes_validate
import pytest

from lora_api import LoraTraining, evaluation_digest, names
from lora_operator.kueue import LABEL_QUEUE
from lora_operator.manifests import UNUSED, build_evaluation_job, build_job, build_job_patch
from lora_operator.observed import parse_job
from lora_operator.profiles import Profile
from tests.support.documents import make_training
from tests.support.observations import make_evaluation_job

PROFILE = Profile(image="trainer:1", preflight="InitContainer")
WISH = ("evaluation", {"grid": {}})


def build(*changes: tuple[str, Any], generation: int = 2, attempts: int = 1) -> dict[str, Any]:
    return build_evaluation_job(wishing(*changes), PROFILE, generation=generation, attempts=attempts)


def attempt_of(job: dict[str, Any]) -> int:
    """The number by which its pods claim the output."""
    return next(int(entry["value"]) for entry in container_of(job)["env"] if entry["name"] == names.ENV_ATTEMPT)


def wishing(*changes: tuple[str, Any]) -> LoraTraining:
    found = make_training(WISH, *changes)
    return found.model_copy(update={"metadata": found.metadata.model_copy(update={"uid": "u-1"})})


def container_of(job: dict[str, Any]) -> dict[str, Any]:
    return job["spec"]["template"]["spec"]["containers"][0]


@pytest.mark.parametrize("version", ["1.29", "1.37"])
def test_it_is_valid_in_every_supported_kubernetes(version: str) -> None:
    kubernetes_validate.validate(build(("limits.activeSeconds", 60)), version, strict=True)


def test_it_says_what_it_is_about() -> None:
    meta = build(generation=7)["metadata"]

    assert meta["name"] == "hina-e7"
    assert (meta["labels"][names.LABEL_TRAINING], meta["labels"][names.LABEL_STAGE]) == ("hina", "evaluation")
    assert meta["annotations"][names.ANNOTATION_EVALUATION_DIGEST] == evaluation_digest(wishing().spec)


def test_the_operator_knows_again_what_it_is_about() -> None:
    served = {"uid": "u-2", "resourceVersion": "1", "creationTimestamp": "2026-11-22T11:00:00Z"}
    job = build()

    read = parse_job({**job, "metadata": {**job["metadata"], **served}})

    assert (read.stage, read.evaluation_digest) == ("evaluation", evaluation_digest(wishing().spec))


def test_its_pod_is_that_of_the_training_but_checks_nothing_before() -> None:
    ours, theirs = build(), build_job(wishing(), PROFILE, attempt=1)

    assert container_of(ours)["args"][0] == "evaluate"
    for field in ("resources", "volumeMounts", "securityContext", "ports"):
        assert container_of(ours)[field] == container_of(theirs)[field]
    assert {entry["name"] for entry in container_of(ours)["env"]} == {e["name"] for e in container_of(theirs)["env"]}
    assert "initContainers" in theirs["spec"]["template"]["spec"]
    assert "initContainers" not in ours["spec"]["template"]["spec"]


def test_its_pods_come_after_all_that_trained_and_those_of_earlier_wishes() -> None:
    trained = attempt_of(build_job(wishing(), PROFILE, attempt=4))

    first, second = (attempt_of(build(generation=generation, attempts=4)) for generation in (2, 3))

    assert trained < first < second


def test_it_is_bounded_like_a_training() -> None:
    spec = build(("limits.activeSeconds", 600), ("retry.maxFailures", 2))["spec"]

    assert (spec["activeDeadlineSeconds"], spec["backoffLimit"], spec["podReplacementPolicy"]) == (600, 2, "Failed")


def test_it_waits_in_the_queue_of_the_training() -> None:
    job = build(("scheduling.queueName", "gpus"))

    assert (job["metadata"]["labels"][LABEL_QUEUE], job["spec"]["suspend"]) == ("gpus", True)


@pytest.mark.parametrize("generation", [2, 10**6])
def test_its_pods_have_names_that_kubernetes_takes(generation: int) -> None:
    name = names.evaluation_job_name("h" * names.MAX_NAME_LENGTH, generation)

    # An Indexed Job names the host of its only pod `<job>-0`.
    assert len(f"{name}-0") <= 63


def test_its_time_follows_the_spec() -> None:
    job = make_evaluation_job("d", activeDeadlineSeconds=600)

    patch = build_job_patch(wishing(("limits.activeSeconds", 900)).spec, job, UNUSED)

    assert patch is not None
    assert patch["spec"] == {"activeDeadlineSeconds": 900}
