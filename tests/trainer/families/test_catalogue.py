"""What is known of a model that is not loaded: the hashes by which adapters tell it, and how large it draws."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from lora_api.model_spec import Family
from lora_trainer.families.opening import hashes_of_model, hashes_of_vae, open_model, side_px_of
from lora_trainer.families.replacement_vae import WithVae
from lora_trainer.families.single_file import SingleFile


@pytest.fixture
def checkpoint(tmp_path: Path) -> SingleFile:
    path = tmp_path / "model.safetensors"
    path.write_bytes(bytes(0x100000) + b"A" * 0x10000 + b"B")
    return SingleFile(path, "sd15", "epsilon")


def test_a_checkpoint_is_told_by_the_old_hash_of_web_uis_and_its_sha256(checkpoint: SingleFile) -> None:
    old = hashlib.sha256(b"A" * 0x10000).hexdigest()[:8]

    assert hashes_of_model(checkpoint) == (old, hashlib.sha256(checkpoint.path.read_bytes()).hexdigest())


def test_a_file_of_less_than_a_mebibyte_has_the_old_hash_of_nothing(tmp_path: Path) -> None:
    path = tmp_path / "small.safetensors"
    path.write_bytes(b"small")

    assert hashes_of_model(SingleFile(path, "sd15", "epsilon"))[0] == "e3b0c442"


def test_another_vae_does_not_change_the_hashes_of_the_model(checkpoint: SingleFile, tmp_path: Path) -> None:
    vae = tmp_path / "vae.safetensors"
    vae.write_bytes(b"vae")
    files = WithVae(checkpoint, vae)

    assert hashes_of_model(files) == hashes_of_model(checkpoint)
    assert hashes_of_vae(files) == ("e3b0c442", hashlib.sha256(b"vae").hexdigest())


def test_a_folder_is_told_by_the_digest_of_its_files(tiny_pipeline: Path) -> None:
    files = open_model(tiny_pipeline)

    assert hashes_of_model(files) == (files.digest[:8], files.digest)
    assert hashes_of_vae(files) == (None, None)


def test_a_model_draws_as_large_as_its_configuration_says(tiny_pipeline: Path) -> None:
    assert side_px_of(open_model(tiny_pipeline)) == 64


@pytest.mark.parametrize("cells", [None, [64, 64], 0])
def test_a_model_that_does_not_say_how_large_it_draws_draws_as_its_family(
    cells: object, tiny_pipeline: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_pipeline, tmp_path / "copy")
    path = tmp_path / "copy/unet/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"sample_size": cells}))

    assert side_px_of(open_model(tmp_path / "copy")) == 512


@pytest.mark.parametrize(("family", "side"), [("sd15", 512), ("sd2", 768), ("sdxl", 1024)])
def test_a_single_file_draws_as_large_as_its_family(family: Family, side: int, tmp_path: Path) -> None:
    files = SingleFile(tmp_path / "model.safetensors", family, "epsilon")

    assert side_px_of(WithVae(files, tmp_path)) == side
