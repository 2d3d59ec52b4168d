"""examples/: each is accepted by the trainer and by the API server, becomes a Job, and its comments are true."""

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from lora_api import LoraTraining, load_training
from lora_api.load import parse_yaml
from lora_devcluster.pod_security import pod_security_faults
from lora_operator.manifests import build_job, build_preflight_job, resolve
from lora_operator.profiles import Profile
from lora_trainer.data.buckets import bucket_sizes, placing
from lora_trainer.plan import PlannedPicture, TrainingPlan, derive_plan
from tests.support.definition import refusals

EXAMPLES = Path(__file__).parents[2] / "examples"
TRAININGS = sorted(path for path in EXAMPLES.glob("*.yaml") if "kind: LoraTraining" in path.read_text())
TEACHING = {"first-lora.yaml", "hina.yaml", "multi-concept-high-resolution.yaml", "sdxl.yaml", "subsets.yaml"}
PROFILE = Profile(image="lora-trainer:0.1.0")
ONE_BUCKET = (768, 768)

each_example = pytest.mark.parametrize("path", TRAININGS, ids=lambda path: path.name)


def load(name: str) -> LoraTraining:
    return load_training((EXAMPLES / name).read_text())


def pictures(*folders: tuple[int, int, bool]) -> list[PlannedPicture]:
    """Pictures of folders (count, repeats, is_regularization), all of one shape."""
    kinds = [(repeats, is_reg) for count, repeats, is_reg in folders for _ in range(count)]
    return [PlannedPicture(index, ONE_BUCKET, *kind) for index, kind in enumerate(kinds)]


def plan_of(name: str, *folders: tuple[int, int, bool]) -> TrainingPlan:
    return derive_plan(pictures(*folders), load(name).spec)


def test_there_are_examples() -> None:
    assert {path.name for path in TRAININGS} >= TEACHING


@each_example
def test_the_trainer_and_the_api_server_accept_it(path: Path) -> None:
    document, _ = parse_yaml(path.read_text())

    assert load_training(path.read_text()).name == document["metadata"]["name"]
    assert refusals(document) == []


@each_example
@pytest.mark.parametrize("version", ["1.29", "1.37"])
def test_its_job_fits_kubernetes_and_a_restricted_namespace(path: Path, version: str) -> None:
    document, _ = parse_yaml(path.read_text())
    document["metadata"] |= {"namespace": "ml", "uid": "8a6b1f2e-0000-4000-8000-000000000000"}
    training = resolve(load_training(yaml.safe_dump(document)), PROFILE)

    for job in (build_job(training, PROFILE, attempt=1), build_preflight_job(training, PROFILE)):
        kubernetes_validate.validate(job, version, strict=True)
        assert pod_security_faults(job["spec"]["template"]["spec"], "restricted") == []


@each_example
def test_no_two_examples_write_to_one_place(path: Path) -> None:
    others = [load_training(other.read_text()) for other in TRAININGS if other != path]
    mine = load_training(path.read_text())

    assert mine.spec.output.uri not in {other.spec.output.uri for other in others}
    assert mine.name not in {other.name for other in others}


def test_the_first_lora_is_ten_lines_long() -> None:
    lines = (EXAMPLES / "first-lora.yaml").read_text().splitlines()

    assert len([line for line in lines if not line.startswith("#")]) <= 10


def test_the_seed_case_says_what_its_users_say() -> None:
    spec = load("hina.yaml").spec

    assert (spec.network.rank, spec.network.alpha) == (128, 128)
    assert (spec.optimizer.name, spec.training.precision) == ("adamw8bit", "bf16")
    assert (spec.dataset.size_px, spec.dataset.captions.max_tokens) == ((768, 768), 150)
    assert (spec.base_model.clip_skip, spec.training.epochs) == (2, 10)


def test_the_seed_case_counts_its_steps_rightly() -> None:
    plan = plan_of("hina.yaml", (98, 50, False), (520, 20, True))

    assert (plan.steps_per_epoch, plan.total_steps) == (9800, 98_000)


def test_the_multi_concept_case_counts_its_samples_rightly() -> None:
    plan = plan_of(
        "multi-concept-high-resolution.yaml", (20, 100, False), (50, 20, False), (500, 5, True), (500, 5, True)
    )

    assert plan.samples_per_epoch == 6000
    assert plan.steps_per_epoch == 3000
    assert plan.epochs == 8


def test_the_subsets_and_the_style_count_their_samples_rightly() -> None:
    subsets = plan_of("subsets.yaml", (60, 2, False), (12, 5, False), (25, 1, False), (200, 1, True))
    style = plan_of("sdxl.yaml", (80, 4, False))

    assert (subsets.samples_per_epoch, style.samples_per_epoch, style.steps_per_epoch) == (410, 320, 160)


def test_the_multi_concept_case_names_the_buckets_that_there_are() -> None:
    dataset = load("multi-concept-high-resolution.yaml").spec.dataset
    sizes = bucket_sizes(dataset.size_px, 512, 1024, step=64)
    text = (EXAMPLES / "multi-concept-high-resolution.yaml").read_text()

    assert [f"{width}x{height}" in text for width, height in sizes if width <= height] == [True] * 6
    assert placing(dataset.size_px, dataset.buckets)(3000, 4000).bucket == (640, 896)


def test_the_secret_is_the_one_that_the_examples_name() -> None:
    secret: dict[str, Any] = yaml.safe_load((EXAMPLES / "s3-credentials.yaml").read_text())
    named = {reference.name for name in TEACHING if (reference := load(name).spec.storage.credentials_secret_ref)}

    kubernetes_validate.validate(secret, "1.37", strict=True)
    assert named == {secret["metadata"]["name"]}


def test_no_example_holds_a_key() -> None:
    secret = yaml.safe_load((EXAMPLES / "s3-credentials.yaml").read_text())

    assert set(secret["stringData"]) == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
    assert set(secret["stringData"].values()) == {"replace-me"}
