"""Detection by a real model, whose answer is known."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from lora_trainer.curation.detector import Sought, check_labels, find_person, load_detector
from lora_trainer.curation.regions import Person
from lora_trainer.errors import BaseModelUnavailable, InvalidConfiguration
from tests.support.tiny_detector import write_tiny_detector

CPU = torch.device("cpu")
PICTURE = Image.new("RGB", (200, 100))


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_detector(tmp_path_factory.mktemp("f"), ["cat", "Face"], label="Face", box=(0.5, 0.3, 0.1, 0.2))


@pytest.fixture(scope="module")
def persons(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_detector(tmp_path_factory.mktemp("p"), ["person"], label="person", box=(0.5, 0.5, 0.4, 0.9))


def test_boxes_are_the_models_shares_in_px(faces: Path) -> None:
    detector = load_detector(faces, CPU, field="--detector")

    assert detector.labels == ("cat", "face")
    # Middle 50 % of 200 px and 30 % of 100 px, 10 % and 20 % large.
    assert detector.boxes(PICTURE, threshold=0.5) == [("face", (90, 20, 110, 40))]


def test_two_models_find_the_face_and_the_person(faces: Path, persons: Path) -> None:
    detectors = [load_detector(path, CPU, field="--detector") for path in (faces, persons)]

    assert find_person(PICTURE, detectors, Sought()) == Person((90, 20, 110, 40), (60, 5, 140, 95))
    assert find_person(PICTURE, detectors, Sought(face="cat")) == Person(None, (60, 5, 140, 95))


def test_a_model_that_finds_nothing_of_use_is_refused(faces: Path) -> None:
    detector = load_detector(faces, CPU, field="--detector")

    with pytest.raises(InvalidConfiguration, match="finds neither 'head' nor 'person', but cat, face"):
        check_labels([detector], Sought(face="head"))


def test_a_folder_without_weights_is_named(tmp_path: Path) -> None:
    with pytest.raises(BaseModelUnavailable, match=r"--detector: there is no model\.safetensors"):
        load_detector(tmp_path, CPU, field="--detector")


def test_another_kind_of_model_is_refused(faces: Path, tmp_path: Path) -> None:
    for name in ("model.safetensors", "preprocessor_config.json"):
        (tmp_path / name).write_bytes((faces / name).read_bytes())
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))

    with pytest.raises(BaseModelUnavailable, match="--detector cannot be loaded"):
        load_detector(tmp_path, CPU, field="--detector")
