"""Another VAE in place of the model's own."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file

from lora_api.model_spec import Family
from lora_trainer.errors import BaseModelUnavailable
from lora_trainer.families.catalogue import CLASSES, open_model
from lora_trainer.families.replacement_vae import WithVae
from tests.support.ldm_checkpoint import Checkpoint, vae_weights
from tests.support.tiny_pipeline import write_tiny_pipeline

CPU = torch.device("cpu")
WEIGHT = "encoder.conv_in.weight"


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline with another VAE."""
    return write_tiny_pipeline(tmp_path_factory.mktemp("other") / "sd15", seed=5)


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = load_file(folder / "vae" / "diffusion_pytorch_model.safetensors")
    return weights


def loaded_vae(base: Path, vae: Path, configs: Path) -> dict[str, torch.Tensor]:
    """Weights of the VAE of a model loaded with a replacement."""
    files = WithVae(open_model(base), vae, configs)
    model = CLASSES["sd15"].load(files, CPU, precision=torch.float32)
    weights: dict[str, torch.Tensor] = model.vae.state_dict()
    return weights


def write_as(form: str, other: Path, file: Path) -> Path:
    """The other VAE in one of the forms that it comes in."""
    match form:
        case "a folder of a whole model":
            return other
        case "its own folder":
            return other / "vae"
        case "a file with diffusers' names":
            save_file(weights_of(other), file)
        case "a file with LDM's names":
            save_file(vae_weights(other), file)
        case "a whole checkpoint":
            save_file({f"first_stage_model.{name}": tensor for name, tensor in vae_weights(other).items()}, file)
    return file


@pytest.mark.parametrize(
    "form",
    [
        "a folder of a whole model",
        "its own folder",
        "a file with diffusers' names",
        "a file with LDM's names",
        "a whole checkpoint",
    ],
)
def test_every_form_of_a_vae_is_read(form: str, tiny_pipeline: Path, other: Path, tmp_path: Path) -> None:
    vae = write_as(form, other, tmp_path / "vae.safetensors")

    weights = loaded_vae(tiny_pipeline, vae, other.parent)

    expected = weights_of(other)
    assert weights.keys() == expected.keys()
    assert all(tensor.equal(expected[name]) for name, tensor in weights.items())


def test_the_rest_of_the_model_stays(tiny_pipeline: Path, other: Path) -> None:
    files = open_model(tiny_pipeline, vae=other)

    model = CLASSES["sd15"].load(files, CPU, precision=torch.float32)

    own = load_file(tiny_pipeline / "unet" / "diffusion_pytorch_model.safetensors")
    assert model.unet.conv_in.weight.equal(own["conv_in.weight"])
    assert (files.family, files.prediction) == ("sd15", "epsilon")


def test_a_single_file_can_have_another_vae(checkpoints: Callable[[Family], Checkpoint], other: Path) -> None:
    files = open_model(checkpoints("sd15").file, vae=other)

    assert (
        files.load("vae", AutoencoderKL, precision=torch.float32).state_dict()[WEIGHT].equal(weights_of(other)[WEIGHT])
    )


def test_both_digests_follow_the_replacement(tiny_pipeline: Path, other: Path) -> None:
    own, replaced = open_model(tiny_pipeline), open_model(tiny_pipeline, vae=other)

    assert replaced.digest != own.digest
    assert replaced.vae_digest != own.vae_digest
    assert replaced.vae_digest == open_model(tiny_pipeline, vae=other / "vae").vae_digest


def test_a_folder_without_a_vae_is_refused(tiny_pipeline: Path, tmp_path: Path) -> None:
    with pytest.raises(BaseModelUnavailable, match=r"spec\.baseModel\.vaeUri holds no diffusion_pytorch_model"):
        _ = open_model(tiny_pipeline, vae=tmp_path).vae_digest


def test_a_file_that_is_no_vae_is_refused(tiny_pipeline: Path, tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")

    with pytest.raises(BaseModelUnavailable, match=r"spec\.baseModel\.vaeUri: vae lacks \d+ weights"):
        open_model(tiny_pipeline, vae=tmp_path / "x.safetensors").load("vae", AutoencoderKL, precision=torch.float32)
