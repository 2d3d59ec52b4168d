"""Which family a base model belongs to and what it predicts, read from its configuration files or its tensors' names.

Used by `catalogue` before anything is loaded. Decided by topology, not by width, so that a model with the layout of
a family in any size counts as one.
"""

from pathlib import Path
from typing import Any

from lora_api.model_spec import BaseModelSpec, Family, Prediction
from lora_trainer.errors import BaseModelUnavailable, InvalidConfiguration
from lora_trainer.families.diffusers_folder import read_json

NAMES: dict[Family, str] = {
    "sd15": "Stable Diffusion 1.x",
    "sd2": "Stable Diffusion 2.x",
    "sdxl": "Stable Diffusion XL",
}

_FIELD = "spec.baseModel.uri"
_SAME_IN_ALL: dict[str, Any] = {
    "_class_name": "UNet2DConditionModel",
    "layers_per_block": 2,
    "in_channels": 4,
    "out_channels": 4,
    "class_embed_type": None,
    "encoder_hid_dim_type": None,
}
_FOUR_LEVELS = [*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"]
_THREE_LEVELS = ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"]
_UNETS: dict[Family, dict[str, Any]] = {
    "sd15": {"down_block_types": _FOUR_LEVELS, "addition_embed_type": None, "use_linear_projection": None},
    "sd2": {"down_block_types": _FOUR_LEVELS, "addition_embed_type": None, "use_linear_projection": True},
    "sdxl": {"down_block_types": _THREE_LEVELS, "addition_embed_type": "text_time", "use_linear_projection": True},
}


def family_of_folder(folder: Path) -> Family:
    """The family of the diffusers folder at `folder`. Raises BaseModelUnavailable, with what it is instead."""
    pipeline = str(read_json(folder, "model_index.json", field=_FIELD).get("_class_name", "a model without class"))
    if not (folder / "unet" / "config.json").is_file():
        raise _not_trainable(f"{pipeline} (no UNet)")
    unet = read_json(folder, "unet/config.json", field=_FIELD)
    if (folder / "text_encoder_2").is_dir() and not (folder / "text_encoder" / "config.json").is_file():
        raise _not_trainable(f"{pipeline}, the refiner of Stable Diffusion XL (only the second text encoder)")
    family: Family
    if (folder / "text_encoder_2").is_dir():
        family = "sdxl"
    else:
        family = "sd2" if unet.get("use_linear_projection") else "sd15"
    differences = _differences(unet, _SAME_IN_ALL | _UNETS[family])
    if differences:
        raise _not_trainable(f"{pipeline} whose UNet has {', '.join(differences)}")
    return family


def check_asked(spec: BaseModelSpec, *, family: Family, prediction: Prediction) -> None:
    """Raises InvalidConfiguration if the model is not what `spec` says it is."""
    if spec.family not in (None, family):
        raise InvalidConfiguration(
            f"spec.baseModel.family is {spec.family}, but the model is {NAMES[family]} ({family}); "
            "correct or remove the field, or use another model"
        )
    if spec.prediction not in (None, prediction):
        raise InvalidConfiguration(
            f"spec.baseModel.prediction is {spec.prediction}, but the model predicts {prediction}; remove the field"
        )
    if family == "sdxl" and spec.clip_skip != 1:
        raise InvalidConfiguration(
            f"spec.baseModel.clipSkip is {spec.clip_skip}, but the model is Stable Diffusion XL, which always reads "
            "the last layer but one; remove the field"
        )


def _differences(unet: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    return [
        f"{key} {unet.get(key)}"
        for key, value in expected.items()
        if unet.get(key) != value and not (value is None and not unet.get(key))
    ]


def _not_trainable(what: str) -> BaseModelUnavailable:
    return BaseModelUnavailable(f"{_FIELD} holds {what}, but only {', '.join(NAMES.values())} can be trained")
