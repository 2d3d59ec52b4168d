"""Which family a model folder belongs to, read from its configuration files; used by `run` before it loads anything.

Decided by topology, not by width, so that a model with the layout of SD 1.x in any size counts as one.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_api.model_spec import BaseModelSpec
from lora_trainer.errors import BaseModelUnavailable, InvalidConfiguration

_SD1_DOWN_BLOCKS = ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"]


@dataclass(frozen=True)
class Identity:
    """What a model folder says it is."""

    family: str
    prediction: str


def refuse_single_file(uri: str) -> None:
    """Raises BaseModelUnavailable for a URI of a single checkpoint file, before it is fetched."""
    name = uri.rpartition("/")[2]
    if name.endswith((".safetensors", ".ckpt", ".pt", ".bin")):
        raise BaseModelUnavailable(
            f"spec.baseModel.uri names the single file {name}; single-file checkpoints are not supported yet. "
            "Convert it to a diffusers folder (diffusers' convert_original_stable_diffusion_to_diffusers.py)"
        )


def identify(folder: Path, spec: BaseModelSpec) -> Identity:
    """The family and prediction of the diffusers folder at `folder`.

    Raises:
        BaseModelUnavailable: not a diffusers folder, another family, or not what `spec` says.
        InvalidConfiguration: the model predicts something that is not supported yet.
    """
    found = _what_it_is(folder)
    if found != "Stable Diffusion 1.x":
        raise BaseModelUnavailable(f"spec.baseModel.uri holds {found}, but only Stable Diffusion 1.x can be trained")
    prediction = str(_read(folder / "scheduler" / "scheduler_config.json").get("prediction_type", "epsilon"))
    if prediction != "epsilon":
        raise InvalidConfiguration(
            f"spec.baseModel.uri holds a model that predicts {prediction}, which is not supported yet; "
            "use one that predicts epsilon"
        )
    if spec.prediction not in (None, prediction):
        raise InvalidConfiguration(
            f"spec.baseModel.prediction is {spec.prediction}, but the model predicts {prediction}; remove the field"
        )
    return Identity(family="sd15", prediction=prediction)


def _what_it_is(folder: Path) -> str:
    pipeline = str(_read(folder / "model_index.json").get("_class_name", "a model of an unnamed class"))
    if (folder / "text_encoder_2").is_dir() or "XL" in pipeline:
        return f"Stable Diffusion XL ({pipeline}, two text encoders)"
    if not (folder / "unet" / "config.json").is_file():
        return f"{pipeline} (no UNet)"
    unet = _read(folder / "unet" / "config.json")
    if unet.get("use_linear_projection"):
        return f"Stable Diffusion 2.x ({pipeline}, linear projections in the UNet)"
    differences = _differences_from_sd1(unet)
    return f"{pipeline} whose UNet has {', '.join(differences)}" if differences else "Stable Diffusion 1.x"


def _differences_from_sd1(unet: dict[str, Any]) -> list[str]:
    expected: dict[str, Any] = {
        "_class_name": "UNet2DConditionModel",
        "down_block_types": _SD1_DOWN_BLOCKS,
        "layers_per_block": 2,
        "in_channels": 4,
        "out_channels": 4,
        "addition_embed_type": None,
        "class_embed_type": None,
        "encoder_hid_dim_type": None,
    }
    optional = {"addition_embed_type", "class_embed_type", "encoder_hid_dim_type"}
    return [
        f"{key} {unet.get(key)}"
        for key, value in expected.items()
        if unet.get(key) != value and not (key in optional and key not in unet)
    ]


def _read(path: Path) -> dict[str, Any]:
    place = f"{path.parent.name}/{path.name}" if path.name != "model_index.json" else path.name
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BaseModelUnavailable(
            f"spec.baseModel.uri holds no {place}, so it is no diffusers folder of a Stable Diffusion model"
        ) from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise BaseModelUnavailable(f"spec.baseModel.uri: {place} is no valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise BaseModelUnavailable(f"spec.baseModel.uri: {place} holds no JSON object")
    return content
