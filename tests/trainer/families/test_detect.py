"""Family and prediction are read from the files; everything else is refused by name."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lora_api.model_spec import BaseModelSpec, Family, Prediction
from lora_trainer.errors import BaseModelUnavailable, InvalidConfiguration
from lora_trainer.families.detect import Identity, identify
from tests.support.ldm_checkpoint import Checkpoint

UNET = "model.diffusion_model."


def spec(**fields: Any) -> BaseModelSpec:
    return BaseModelSpec(uri="file:///model", **fields)


@pytest.fixture
def model(tiny_pipeline: Path, tmp_path: Path) -> Path:
    """The configuration files of a model, to be changed."""
    for path in tiny_pipeline.rglob("*.json"):
        target = tmp_path / path.relative_to(tiny_pipeline)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    return tmp_path


@pytest.fixture
def change(model: Path) -> Callable[..., None]:
    """Changes keys of a configuration file."""

    def change(file: str, **values: Any) -> None:
        path = model / file
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return change


@pytest.fixture
def file_with(checkpoints: Callable[[Family], Checkpoint], tmp_path: Path) -> Callable[..., Path]:
    """Writes a family's single file with further tensors and metadata."""

    def write(family: Family, tensors: dict[str, torch.Tensor] | None = None, **metadata: str) -> Path:
        weights = load_file(checkpoints(family).file) | (tensors or {})
        save_file(weights, tmp_path / "model.safetensors", metadata=metadata)
        return tmp_path / "model.safetensors"

    return write


def test_the_topology_of_sd1_counts_in_any_width(model: Path) -> None:
    assert identify(model) == Identity("sd15", "epsilon")


def test_sd2_is_known_by_its_linear_projections(tiny_sd2: Path) -> None:
    assert identify(tiny_sd2) == Identity("sd2", "v_prediction")


def test_sdxl_is_known_by_its_second_text_encoder(tiny_sdxl: Path) -> None:
    assert identify(tiny_sdxl) == Identity("sdxl", "epsilon")


def test_the_prediction_is_the_schedulers(model: Path, change: Callable[..., None]) -> None:
    change("scheduler/scheduler_config.json", prediction_type="v_prediction")

    assert identify(model).prediction == "v_prediction"


def test_a_model_that_predicts_something_else_is_refused(model: Path, change: Callable[..., None]) -> None:
    change("scheduler/scheduler_config.json", prediction_type="sample")

    with pytest.raises(BaseModelUnavailable, match="predicts sample; use one that predicts epsilon or v_prediction"):
        identify(model)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"family": "sdxl"}, r"baseModel\.family is sdxl, but the model is Stable Diffusion 1\.x \(sd15\)"),
        ({"prediction": "v_prediction"}, r"prediction is v_prediction, but the model predicts epsilon; remove"),
    ],
)
def test_a_model_that_is_not_what_the_spec_says_is_refused(model: Path, fields: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidConfiguration, match=message):
        identify(model, spec(**fields))


def test_clip_skip_on_a_model_that_turns_out_as_sdxl_is_refused(tiny_sdxl: Path) -> None:
    with pytest.raises(InvalidConfiguration, match=r"clipSkip is 2, but the model is Stable Diffusion XL"):
        identify(tiny_sdxl, spec(clip_skip=2))


def test_what_the_spec_says_may_be_what_the_model_is(tiny_sd2: Path) -> None:
    assert identify(tiny_sd2, spec(family="sd2", prediction="v_prediction")) == Identity("sd2", "v_prediction")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"in_channels": 9}, "whose UNet has in_channels 9, but only Stable Diffusion 1"),
        ({"in_channels": 7, "class_embed_type": "timestep"}, "has in_channels 7, class_embed_type timestep"),
        ({"down_block_types": ["CrossAttnDownBlock2D"] * 2}, "has down_block_types"),
        ({"addition_embed_type": "image"}, "has addition_embed_type image"),
    ],
)
def test_another_unet_is_refused_by_what_differs(
    model: Path, change: Callable[..., None], changes: dict[str, Any], message: str
) -> None:
    change("unet/config.json", **changes)

    with pytest.raises(BaseModelUnavailable, match=message):
        identify(model)


def test_the_refiner_is_refused_by_name(model: Path) -> None:
    (model / "text_encoder").rename(model / "text_encoder_2")

    with pytest.raises(BaseModelUnavailable, match="the refiner of Stable Diffusion XL"):
        identify(model)


def test_a_model_without_unet_is_refused(model: Path, change: Callable[..., None]) -> None:
    change("model_index.json", _class_name="FluxPipeline")
    (model / "unet" / "config.json").unlink()

    with pytest.raises(BaseModelUnavailable, match=r"holds FluxPipeline \(no UNet\)"):
        identify(model)


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BaseModelUnavailable, match=r"holds no model_index\.json, so it is no diffusers folder"):
        identify(tmp_path)


def test_a_damaged_configuration_is_refused(model: Path) -> None:
    (model / "unet" / "config.json").write_text("{")

    with pytest.raises(BaseModelUnavailable, match=r"unet/config\.json is no valid JSON"):
        identify(model)


@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_single_files_are_known_by_the_names_of_their_tensors(
    family: Family, checkpoints: Callable[[Family], Checkpoint]
) -> None:
    assert identify(checkpoints(family).file) == Identity(family, "epsilon")


def test_a_single_file_of_sd2_has_to_be_told_what_it_predicts(checkpoints: Callable[[Family], Checkpoint]) -> None:
    with pytest.raises(InvalidConfiguration, match=r"spec\.baseModel\.prediction must be given: .* v_prediction for"):
        identify(checkpoints("sd2").file, spec())


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_the_spec_says_what_a_single_file_predicts(
    prediction: Prediction, checkpoints: Callable[[Family], Checkpoint]
) -> None:
    assert identify(checkpoints("sd2").file, spec(prediction=prediction)) == Identity("sd2", prediction)


@pytest.mark.parametrize(
    ("metadata", "prediction"),
    [
        ({"modelspec.prediction_type": "v"}, "v_prediction"),
        ({"modelspec.prediction_type": "epsilon"}, "epsilon"),
        ({"modelspec.architecture": "stable-diffusion-v2-768-v"}, "v_prediction"),
        ({"modelspec.architecture": "stable-diffusion-v2-512"}, "epsilon"),
    ],
)
def test_metadata_of_a_single_file_says_what_it_predicts(
    metadata: dict[str, str], prediction: Prediction, file_with: Callable[..., Path]
) -> None:
    assert identify(file_with("sd2", **metadata)).prediction == prediction


def test_the_marker_of_newer_v_models_counts(file_with: Callable[..., Path]) -> None:
    assert identify(file_with("sdxl", {"v_pred": torch.zeros(0)})) == Identity("sdxl", "v_prediction")


def test_a_single_file_that_says_otherwise_than_the_spec_is_refused(file_with: Callable[..., Path]) -> None:
    file = file_with("sdxl", {"v_pred": torch.zeros(0)})

    with pytest.raises(InvalidConfiguration, match="prediction is epsilon, but the model predicts v_prediction"):
        identify(file, spec(prediction="epsilon"))


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (
            {f"{UNET}input_blocks.0.0.weight": torch.zeros(8, 9, 3, 3)},
            "in_channels 9, such as one for inpainting",
        ),
        ({"conditioner.embedders.0.model.ln_final.bias": torch.zeros(1)}, "the refiner of Stable Diffusion XL"),
        ({f"{UNET}joint_blocks.0.x": torch.zeros(1)}, "holds Stable Diffusion 3"),
        ({"edm_mean": torch.zeros(1)}, "EDM preconditioning"),
    ],
)
def test_other_single_files_are_refused_by_name(
    tensors: dict[str, torch.Tensor], message: str, file_with: Callable[..., Path]
) -> None:
    with pytest.raises(BaseModelUnavailable, match=message):
        identify(file_with("sd15", tensors))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lora_unet_x.lora_up.weight", "a LoRA, not the model it belongs to"),
        ("double_blocks.0.x", "FLUX"),
        ("down_blocks.0.x", "a single part of a diffusers folder; name the folder"),
        ("something.else", "a file without a UNet"),
    ],
)
def test_files_without_a_unet_are_refused_by_name(name: str, message: str, tmp_path: Path) -> None:
    save_file({name: torch.zeros(1)}, tmp_path / "model.safetensors")

    with pytest.raises(BaseModelUnavailable, match=message):
        identify(tmp_path / "model.safetensors")


def test_a_single_file_without_text_encoder_is_refused(
    checkpoints: Callable[[Family], Checkpoint], tmp_path: Path
) -> None:
    weights = {name: tensor for name, tensor in load_file(checkpoints("sd15").file).items() if name.startswith(UNET)}
    save_file(weights, tmp_path / "unet.safetensors")

    with pytest.raises(BaseModelUnavailable, match="a UNet without the text encoder that belongs to it"):
        identify(tmp_path / "unet.safetensors")
