"""Reading diffusers folders: variants, damage, digests."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lora_trainer.errors import BaseModelUnavailable
from lora_trainer.families.catalogue import load, open_model
from lora_trainer.families.stable_diffusion import StableDiffusion


def load_folder(folder: Path) -> StableDiffusion:
    return load(folder, torch.device("cpu"), precision=torch.float32)


@pytest.fixture
def copy(tiny_pipeline: Path, tmp_path: Path) -> Path:
    """A model folder to be changed."""
    shutil.copytree(tiny_pipeline, tmp_path / "copy")
    return tmp_path / "copy"


def test_an_fp16_variant_is_loaded(copy: Path, tiny_pipeline: Path) -> None:
    for path in list(copy.rglob("*.safetensors")):
        path.rename(path.with_name(path.name.replace(".safetensors", ".fp16.safetensors")))

    loaded = load_folder(copy)

    assert loaded.unet.conv_in.weight.equal(load_folder(tiny_pipeline).unet.conv_in.weight)


def test_pickled_weights_are_refused(copy: Path) -> None:
    path = copy / "unet" / "diffusion_pytorch_model.safetensors"
    path.rename(path.with_suffix(".bin"))

    with pytest.raises(BaseModelUnavailable, match=r"no unet/diffusion_pytorch_model\.safetensors; pickled weights"):
        load_folder(copy)


def test_damaged_weights_are_refused(copy: Path) -> None:
    path = copy / "unet" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])

    with pytest.raises(BaseModelUnavailable, match="unet cannot be loaded"):
        load_folder(copy)


def test_missing_weights_are_refused_instead_of_drawn_at_random(copy: Path) -> None:
    path = copy / "text_encoder" / "model.safetensors"
    weights = {name: tensor for name, tensor in load_file(path).items() if "layers.1.mlp" not in name}
    save_file(weights, path, metadata={"format": "pt"})

    with pytest.raises(BaseModelUnavailable, match=r"text_encoder lacks 4 weights, such as encoder\.layers\.1"):
        load_folder(copy)


def test_a_missing_tokenizer_is_refused(copy: Path) -> None:
    shutil.rmtree(copy / "tokenizer")

    with pytest.raises(BaseModelUnavailable, match="holds no tokenizer/; copy the whole model"):
        load_folder(copy)


def test_a_tokenizer_of_another_vocabulary_is_refused(copy: Path) -> None:
    path = copy / "tokenizer" / "tokenizer.json"
    tokens = json.loads(path.read_text())
    tokens["model"]["vocab"].pop("re")
    tokens["model"]["vocab"].pop("red</w>")
    tokens["model"]["merges"] = []
    path.write_text(json.dumps(tokens))

    with pytest.raises(BaseModelUnavailable, match=r"tokenizer has \d+ tokens, but the text encoder knows 192"):
        load_folder(copy)


def test_the_digest_follows_the_content_not_the_place(copy: Path, tiny_pipeline: Path) -> None:
    same = open_model(copy).digest
    (copy / "README.md").write_text("not loaded")

    assert open_model(copy).digest == same == open_model(tiny_pipeline).digest


@pytest.mark.parametrize(
    "name",
    [
        "vae/diffusion_pytorch_model.safetensors",
        "text_encoder_2/model.safetensors",
        "tokenizer_2/tokenizer.json",
        "scheduler/scheduler_config.json",
        "unet/config.json",
    ],
)
def test_every_file_that_is_loaded_is_in_the_digest(name: str, tiny_sdxl: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_sdxl, tmp_path / "copy")
    file = tmp_path / "copy" / name
    file.write_bytes(file.read_bytes() + b" ")

    assert open_model(tmp_path / "copy").digest != open_model(tiny_sdxl).digest


def test_the_digest_of_the_vae_depends_on_the_vae_only(copy: Path, tiny_pipeline: Path) -> None:
    before = open_model(tiny_pipeline).vae_digest
    unet, vae = (copy / part / "diffusion_pytorch_model.safetensors" for part in ("unet", "vae"))

    unet.write_bytes(unet.read_bytes()[:-1] + b"\x01")
    after_unet = open_model(copy).vae_digest
    vae.write_bytes(vae.read_bytes()[:-1] + b"\x01")

    assert after_unet == before
    assert open_model(copy).vae_digest != before


def test_a_missing_configuration_is_named_by_the_digest(copy: Path) -> None:
    (copy / "vae" / "config.json").unlink()

    with pytest.raises(BaseModelUnavailable, match=r"spec\.baseModel\.uri holds no vae/config\.json"):
        _ = open_model(copy).digest
