"""Only Stable Diffusion 1.x gets through; everything else is named."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lora_api.model_spec import BaseModelSpec
from lora_trainer.errors import BaseModelUnavailable, InvalidConfiguration
from lora_trainer.families.detect import Identity, identify, refuse_single_file

SPEC = BaseModelSpec(uri="file:///model")


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


def test_the_topology_of_sd1_counts_in_any_width(model: Path) -> None:
    assert identify(model, SPEC) == Identity(family="sd15", prediction="epsilon")


def test_sdxl_is_refused_by_name(model: Path, change: Callable[..., None]) -> None:
    change("model_index.json", _class_name="StableDiffusionXLPipeline")

    with pytest.raises(BaseModelUnavailable, match=r"holds Stable Diffusion XL .*only Stable Diffusion 1\.x"):
        identify(model, SPEC)


def test_sd2_is_refused_by_name(model: Path, change: Callable[..., None]) -> None:
    change("unet/config.json", use_linear_projection=True)

    with pytest.raises(BaseModelUnavailable, match=r"holds Stable Diffusion 2\.x"):
        identify(model, SPEC)


def test_an_inpainting_model_is_refused_by_what_differs(model: Path, change: Callable[..., None]) -> None:
    change("unet/config.json", in_channels=9)

    with pytest.raises(BaseModelUnavailable, match="whose UNet has in_channels 9"):
        identify(model, SPEC)


def test_a_model_without_unet_is_refused(model: Path, change: Callable[..., None]) -> None:
    change("model_index.json", _class_name="FluxPipeline")
    (model / "unet" / "config.json").unlink()

    with pytest.raises(BaseModelUnavailable, match=r"holds FluxPipeline \(no UNet\)"):
        identify(model, SPEC)


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BaseModelUnavailable, match=r"holds no model_index\.json, so it is no diffusers folder"):
        identify(tmp_path, SPEC)


def test_a_damaged_configuration_is_refused(model: Path) -> None:
    (model / "unet" / "config.json").write_text("{")

    with pytest.raises(BaseModelUnavailable, match=r"unet/config\.json is no valid JSON"):
        identify(model, SPEC)


def test_v_prediction_is_not_supported_yet(model: Path, change: Callable[..., None]) -> None:
    change("scheduler/scheduler_config.json", prediction_type="v_prediction")

    with pytest.raises(InvalidConfiguration, match="predicts v_prediction, which is not supported yet"):
        identify(model, SPEC)


@pytest.mark.parametrize("name", ["model.safetensors", "v1-5.ckpt"])
def test_a_single_file_is_refused_before_it_is_fetched(name: str) -> None:
    with pytest.raises(BaseModelUnavailable, match=f"single file {name}; .* not supported yet"):
        refuse_single_file(f"s3://models/{name}")


def test_a_hub_repository_is_no_single_file() -> None:
    refuse_single_file("hf://stable-diffusion-v1-5/stable-diffusion-v1-5")
