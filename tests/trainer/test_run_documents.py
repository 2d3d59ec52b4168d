"""What a run says of itself: a file that trains it again, and its plan."""

import json
from pathlib import Path

import pytest

from lora_api import LoraTraining, load_training
from lora_api.run_manifest import spec_digest
from lora_trainer.plan import PlannedPicture, derive_plan
from lora_trainer.run_documents import PictureFolders, run_documents, to_yaml
from tests.support.tiny_run import make_training


@pytest.fixture
def training() -> LoraTraining:
    secret = [{"name": "ADDRESS", "value": "https://host/x?X-Amz-Signature=0123456789abcdef"}]
    return make_training(Path("/base"), Path("/data"), Path("/out"), pod={"env": secret}, network={"rank": 8})


def test_the_file_trains_the_same_run(training: LoraTraining) -> None:
    again = load_training(to_yaml(training))

    assert spec_digest(again.spec) == spec_digest(training.spec)


def test_the_file_names_no_secret(training: LoraTraining) -> None:
    assert load_training(to_yaml(training)).spec.pod.env[0].value == "https://host/x?X-Amz-Signature=***"


def test_the_file_holds_what_was_set_and_no_more(training: LoraTraining) -> None:
    assert "checkpoints" not in to_yaml(training)


def test_the_plan_tells_the_tags_of_the_training_pictures_only(training: LoraTraining) -> None:
    plan = derive_plan([PlannedPicture(index=0, bucket=(64, 64), repeats=2)], training.spec)
    folders = PictureFolders({"2_zwx": {"n_repeats": 2, "img_count": 1}}, {"2_zwx": {"zwx": 1}, "1_shape": {"a": 3}})

    documents = run_documents(training, plan, folders, dataset_digest="d")

    content = json.loads(documents[1].text)
    assert content["tags"] == {"2_zwx": {"zwx": 1}}
    assert content["plan"]["totalSteps"] == plan.total_steps
