"""Which family a base model belongs to and what it predicts, read from its configuration files or its tensors' names.

Used by `catalogue` before anything is loaded. Decided by topology, not by width, so that a model with the layout of
a family in any size counts as one.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_api.model_spec import BaseModelSpec, Family, Prediction
from lora_trainer.errors import BaseModelUnavailable, InvalidConfiguration
from lora_trainer.families.diffusers_folder import SCHEDULER, prediction_of, read_json
from lora_trainer.families.single_file import CLIP, CLIP_XL, OPEN_CLIP, OPEN_CLIP_XL, UNET, Header, read_header

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
_LATENT_CHANNELS = 4
_OTHER_FILES = (
    ("conditioner.embedders.0.model.", "the refiner of Stable Diffusion XL"),
    (f"{UNET}joint_blocks.", "Stable Diffusion 3"),
    (f"{UNET}double_blocks.", "FLUX"),
    ("double_blocks.", "FLUX"),
    ("control_model.", "a ControlNet"),
    ("lora_", "a LoRA, not the model it belongs to"),
    ("down_blocks.", "a single part of a diffusers folder; name the folder"),
)
"""Beginnings of tensor names that tell other models."""


@dataclass(frozen=True)
class Identity:
    """What a base model is."""

    family: Family
    prediction: Prediction


def identify(path: Path, spec: BaseModelSpec | None = None) -> Identity:
    """Family and prediction of the model at `path`, a diffusers folder or a `.safetensors` file.

    Raises:
        BaseModelUnavailable: it is no model of a family that can be trained.
        InvalidConfiguration: it is not what `spec` says, or does not say itself what `spec` must say then.
    """
    found = _identify_folder(path) if path.is_dir() else _identify_file(path, spec)
    if spec is not None:
        _check_asked(spec, found)
    return found


def _identify_folder(folder: Path) -> Identity:
    family = _family_of_folder(folder)
    scheduler = read_json(folder, SCHEDULER, field=_FIELD)
    return Identity(family, prediction_of(scheduler.get("prediction_type", "epsilon"), field=_FIELD))


def _identify_file(path: Path, spec: BaseModelSpec | None) -> Identity:
    header = read_header(path, field=_FIELD)
    family = _family_of_file(header)
    prediction = _recorded_prediction(header) or (spec.prediction if spec is not None else None)
    if prediction is None and family == "sd2":
        raise InvalidConfiguration(
            f"spec.baseModel.prediction must be given: {path.name} is Stable Diffusion 2.x and does not record what it "
            "predicts; v_prediction for models of 768 px, epsilon for those of 512 px"
        )
    return Identity(family, prediction or "epsilon")


def _family_of_folder(folder: Path) -> Family:
    """The family of the diffusers folder at `folder`. Raises BaseModelUnavailable, with what it is instead."""
    pipeline = str(read_json(folder, "model_index.json", field=_FIELD).get("_class_name", "a model without class"))
    if not (folder / "unet" / "config.json").is_file():
        raise _not_trainable(f"{pipeline} (no UNet)")
    unet = read_json(folder, "unet/config.json", field=_FIELD)
    if (folder / "text_encoder_2").is_dir() and not (folder / "text_encoder" / "config.json").is_file():
        raise _not_trainable(f"{pipeline}, the refiner of Stable Diffusion XL (only the second text encoder)")
    one_encoder: Family = "sd2" if unet.get("use_linear_projection") else "sd15"
    family: Family = "sdxl" if (folder / "text_encoder_2").is_dir() else one_encoder
    differences = _differences(unet, _SAME_IN_ALL | _UNETS[family])
    if differences:
        raise _not_trainable(f"{pipeline} whose UNet has {', '.join(differences)}")
    return family


def _family_of_file(header: Header) -> Family:
    for prefix, what in _OTHER_FILES:
        if header.has(prefix):
            raise _not_trainable(what)
    first = header.shapes.get(f"{UNET}input_blocks.0.0.weight")
    if first is None:
        raise _not_trainable("a file without a UNet under the names of Stable Diffusion's checkpoints")
    if first[1] != _LATENT_CHANNELS:
        raise _not_trainable(f"a model whose UNet has in_channels {first[1]}, such as one for inpainting")
    if header.has(OPEN_CLIP_XL) and header.has(CLIP_XL):
        return "sdxl"
    if header.has(OPEN_CLIP):
        return "sd2"
    if header.has(CLIP):
        return "sd15"
    raise _not_trainable("a UNet without the text encoder that belongs to it")


def _recorded_prediction(header: Header) -> Prediction | None:
    """What the file says that it predicts: in its metadata, or by the marker tensors of newer v-models."""
    if any(name.startswith("edm_") for name in header.shapes):
        raise _not_trainable("a model with EDM preconditioning")
    if "v_pred" in header.shapes:
        return "v_prediction"
    match header.metadata.get("modelspec.prediction_type"), header.metadata.get("modelspec.architecture", ""):
        case (("v" | "v_prediction"), _):
            return "v_prediction"
        case "epsilon", _:
            return "epsilon"
        case None, "stable-diffusion-v2-768-v":
            return "v_prediction"
        case None, "stable-diffusion-v2-512":
            return "epsilon"
    return None


def _check_asked(spec: BaseModelSpec, found: Identity) -> None:
    """Raises InvalidConfiguration if the model is not what `spec` says it is."""
    if spec.family not in (None, found.family):
        raise InvalidConfiguration(
            f"spec.baseModel.family is {spec.family}, but the model is {NAMES[found.family]} ({found.family}); "
            "correct or remove the field, or use another model"
        )
    if spec.prediction not in (None, found.prediction):
        raise InvalidConfiguration(
            f"spec.baseModel.prediction is {spec.prediction}, but the model predicts {found.prediction}; "
            "remove the field"
        )
    if found.family == "sdxl" and spec.clip_skip != 1:
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
