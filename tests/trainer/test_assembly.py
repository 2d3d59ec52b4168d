"""Where the parts of a model live when memory is saved."""

from pathlib import Path

import pytest
import torch

from lora_trainer.assembly import Residence, make_residence
from lora_trainer.families import catalogue
from tests.support.tiny_run import make_training


class Moves:
    """A model that notes where its parts are sent."""

    def __init__(self) -> None:
        self.made: list[tuple[str, str]] = []

    def place(self, *parts: str, device: torch.device) -> None:
        self.made += [(part, device.type) for part in parts]


def test_a_visiting_part_comes_and_goes_once_however_often_it_is_asked_for() -> None:
    model = Moves()
    residence = Residence(model, torch.device("meta"), {"vae", "text_encoder"})  # type: ignore[arg-type]

    with residence.having("text_encoder", "unet"):
        for _ in range(3):
            with residence.having("text_encoder"):
                pass
        with residence.having("vae"):
            assert model.made == [("text_encoder", "meta"), ("vae", "meta")]

    assert model.made[2:] == [("vae", "cpu"), ("text_encoder", "cpu")]


@pytest.mark.parametrize(
    ("changes", "visiting"),
    [
        ({}, set()),
        ({"training": {"lowMemory": True}}, {"vae"}),
        ({"training": {"lowMemory": True}, "network": {"textEncoder": False}}, {"vae", "text_encoder"}),
        ({"training": {"lowMemory": True}, "optimizer": {"textEncoderLearningRate": 0}}, {"vae", "text_encoder"}),
        ({"training": {"lowMemory": True}, "dataset": {"latentCache": "None"}}, set()),
    ],
)
def test_only_what_is_not_used_by_every_step_visits(
    tiny_pipeline: Path, tmp_path: Path, changes: dict[str, dict[str, object]], visiting: set[str]
) -> None:
    spec = make_training(tiny_pipeline, tmp_path / "data", tmp_path / "out", **changes).spec
    model = catalogue.load(tiny_pipeline, torch.device("cpu"), precision=torch.float32)
    residence = make_residence(model, spec, torch.device("meta"))
    moves = Moves()
    residence.model = moves  # type: ignore[assignment]

    residence.settle()

    assert {part for part, _ in moves.made} == visiting
