"""Where the parts of a model live when memory is saved, and where latents are kept."""

import logging
import os
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lora_trainer.assembly import Residence, load_model, make_residence, open_inputs
from lora_trainer.families import catalogue
from lora_trainer.prepare import prepare
from tests.support.tiny_run import make_session, make_training


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


def encode(base: Path, pictures: Path, work_dir: Path, *, cache: Path | None) -> None:
    """What a training does up to its first batch, with latents on disk."""
    changes = {"dataset": {"latentCache": "Disk"}, "optimizer": {"textEncoderLearningRate": 0}}
    session = make_session(work_dir).session
    session = replace(session, settings=replace(session.settings, cache_dir=cache))
    prepared = prepare(make_training(base, pictures, work_dir / "out", **changes), session)
    model = load_model(prepared, torch.device("cpu"), session)
    residence = make_residence(model, prepared.training.spec, torch.device("cpu"))
    with open_inputs(prepared, residence, nullcontext, session):
        pass


def test_a_later_training_with_the_same_cache_encodes_no_picture(
    tiny_pipeline: Path, tiny_pictures: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    encode(tiny_pipeline, tiny_pictures, tmp_path / "first", cache=tmp_path / "cache")

    with caplog.at_level(logging.INFO):
        encode(tiny_pipeline, tiny_pictures, tmp_path / "second", cache=tmp_path / "cache")

    counts = [line for line in caplog.messages if "lay in the cache" in line]
    assert counts[-1] == "0 latents were encoded, 5 lay in the cache"


def test_without_a_cache_latents_stay_in_the_work_directory(
    tiny_pipeline: Path, tiny_pictures: Path, tmp_path: Path
) -> None:
    encode(tiny_pipeline, tiny_pictures, tmp_path / "work", cache=None)

    assert len(list((tmp_path / "work" / "latents").rglob("*.safetensors"))) == 5


def test_latents_of_no_training_are_removed_but_never_those_of_this_one(
    tiny_pipeline: Path, tiny_pictures: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    encode(tiny_pipeline, tiny_pictures, tmp_path / "first", cache=tmp_path / "cache")
    own = set((tmp_path / "cache" / "latents").rglob("*.safetensors"))
    abandoned = tmp_path / "cache" / "latents" / "disk" / "00" / f"{'0' * 64}.safetensors"
    abandoned.parent.mkdir(exist_ok=True)
    abandoned.write_bytes(b"of a dataset that is gone")
    for path in (*own, abandoned):
        os.utime(path, (0, 0))

    with caplog.at_level(logging.INFO):
        encode(tiny_pipeline, tiny_pictures, tmp_path / "second", cache=tmp_path / "cache")

    assert set((tmp_path / "cache" / "latents").rglob("*.safetensors")) == own
    assert "0 latents were encoded, 5 lay in the cache" in caplog.messages
    assert "1 latents that no training used for 30 days were removed" in caplog.messages
