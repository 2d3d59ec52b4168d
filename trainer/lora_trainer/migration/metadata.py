"""The metadata that sd-scripts and this trainer write into an adapter (`ss_*`, `modelspec.*`), read back as settings.

The inverse of `lora_trainer.lora.metadata`. Values are what Python's `str()` gave: "None", "True", "(768, 768)".
"""

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from lora_trainer.migration.arguments import ARGUMENTS
from lora_trainer.migration.draft import Leftover, show
from lora_trainer.migration.network import BLOCKS_PRESET
from lora_trainer.migration.source import Source
from lora_trainer.migration.unusable import UnusableSettings
from lora_trainer.migration.values import Kind, read_value

_RENAMED = {
    "sd_model_name": "pretrained_model_name_or_path",
    "vae_name": "vae",
    "batch_size_per_device": "train_batch_size",
    "num_epochs": "max_train_epochs",
    "debiased_estimation": "debiased_estimation_loss",
    "scale_v_pred_loss": "scale_v_pred_loss_like_noise_pred",
}
_FACTS = frozenset(
    """
    session_id training_started_at training_finished_at epoch steps num_train_images num_reg_images
    num_validation_images num_batches_per_epoch total_batch_size base_model_version sd_scripts_commit_hash dataset_dirs
    reg_dataset_dirs tag_frequency bucket_info sd_model_hash new_sd_model_hash vae_hash new_vae_hash
    """.split()  # noqa: SIM905  (readable as words)
)
"""What happened, not what was set."""
_READ_HERE = frozenset({"optimizer", "network_args", "datasets"})
_CARD = {
    "author": "metadata_author", "description": "metadata_description", "license": "metadata_license",
    "tags": "metadata_tags", "usage_hint": "metadata_usage_hint", "trigger_phrase": "metadata_trigger_phrase",
}  # fmt: skip
_CLASSES = {"SGD": "SGDNesterov", "SGD8bit": "SGDNesterov8bit"}
_OPTIMIZER = re.compile(r"(?:[\w]+\.)*(?P<name>\w+)(?:\((?P<arguments>.*)\))?", re.DOTALL)
_ARGUMENT = re.compile(r"(\w+)=((?:\([^)]*\)|\[[^\]]*\]|[^,(\[])+)")
_PARTS = {"network.unet": ("lora_unet_", "unet."), "network.textEncoder": ("lora_te", "text_encoder")}
_PRECISIONS = {"F16": "fp16", "BF16": "bf16", "F32": "fp32"}
_UNKNOWN_RANK = "Dynamic"
_FULL = {"preset=full": f"preset={BLOCKS_PRESET}"}


def read_metadata(metadata: Mapping[str, Any], *, tensors: Mapping[str, str] | None = None, name: str = "") -> Source:
    """The settings that metadata tells, and what the names and number formats of `tensors` add.

    Raises:
        UnusableSettings: there is no training metadata, or a value makes no sense.
    """
    values = {key.removeprefix("ss_"): value for key, value in metadata.items() if key.startswith("ss_")}
    if not values:
        raise UnusableSettings("the file holds no training metadata (keys that begin with ss_)")
    raw = {_RENAMED.get(key, key): value for key, value in values.items() if _RENAMED.get(key, key) in ARGUMENTS}
    version = str(values.get("base_model_version") or "")
    if version.endswith("_v") or metadata.get("modelspec.prediction_type") == "v":
        raw["v_parameterization"] = True
    left = _take_unknown_ranks(raw)
    raw |= _optimizer(values.get("optimizer")) | _network_args(values.get("network_args")) | _modelspec(metadata)
    if values.get("num_epochs"):
        raw.pop("max_train_steps", None)
    return Source(
        "adapter metadata",
        raw,
        complete=False,
        is_sdxl="sdxl" in version,
        dataset_config=_datasets(values.get("datasets")),
        fields={**_limit(values), **_ours(values, raw), **(_facts_of(tensors) if tensors else {})},
        leftovers=(*left, *_unknown(values)),
        name=name,
    )


def _take_unknown_ranks(raw: dict[str, Any]) -> list[Leftover]:
    """Ranks that were changed after the training, each module its own."""
    names = [name for name in ("network_dim", "network_alpha") if raw.get(name) == _UNKNOWN_RANK]
    reason = "the file was resized, so its modules have ranks of their own; `lora inspect` shows them"
    return [Leftover(name, str(raw.pop(name)), reason) for name in names]


def _ours(values: Mapping[str, Any], raw: dict[str, Any]) -> dict[str, Any]:
    """What means more in files of this trainer, which have no commit of sd-scripts; taken out of `raw`."""
    if "sd_scripts_commit_hash" in values:
        return {}
    fields: dict[str, Any] = {}
    raw["network_args"] = [_FULL.get(option, option) for option in raw.get("network_args", ())]
    if values.get("cache_latents") == "False":
        fields["dataset.latentCache"] = "None"
    rates = _numbers("text_encoder_lr", raw.get("text_encoder_lr"))
    if len(rates) > 1:
        raw["text_encoder_lr"], fields["optimizer.textEncoder2LearningRate"] = rates[0], rates[1]
    faces = _numbers("face_crop_aug_range", raw.pop("face_crop_aug_range", None))
    if faces:
        fields["dataset.augmentation.faceCropRange"] = {"minimum": faces[0], "maximum": faces[-1]}
    return fields


def _numbers(name: str, value: Any) -> tuple[float, ...]:
    try:
        return read_value(Kind.NUMBERS, value) or ()
    except ValueError as error:
        raise UnusableSettings(f"ss_{name} is '{value}', but must be {Kind.NUMBERS.value}") from error


def _unknown(values: Mapping[str, Any]) -> list[Leftover]:
    known = _FACTS | _READ_HERE | set(_RENAMED) | set(ARGUMENTS)
    reason = "metadata that is not known here"
    return [Leftover(f"ss_{key}", str(value), reason) for key, value in values.items() if key not in known]


def _optimizer(text: Any) -> dict[str, Any]:
    """`bitsandbytes.optim.adamw.AdamW8bit(weight_decay=0.1,betas=(0.9, 0.99))`: its class and arguments."""
    match = _OPTIMIZER.fullmatch(str(text)) if text else None
    if match is None:
        return {}
    pairs = _ARGUMENT.findall(match["arguments"] or "")
    return {
        "optimizer_type": _CLASSES.get(match["name"], match["name"]),
        "optimizer_args": [f"{name}={value.strip()}" for name, value in pairs],
    }


def _network_args(text: Any) -> dict[str, Any]:
    options = _json("ss_network_args", text) or {}
    if not isinstance(options, dict):
        raise UnusableSettings(f"ss_network_args is {show(text)}, but must be a JSON object")
    return {"network_args": [f"{name}={value}" for name, value in options.items() if value is not None]}


def _datasets(text: Any) -> dict[str, Any] | None:
    datasets = _json("ss_datasets", text)
    return {"datasets": datasets} if datasets else None


def _json(key: str, text: Any) -> Any:
    if not isinstance(text, str) or text == "None":
        return text if not isinstance(text, str) else None
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UnusableSettings(f"{key} is no JSON: {error}") from error


def _limit(values: Mapping[str, Any]) -> dict[str, int]:
    """Steps only when they ended the training before its epochs did."""
    names = ("max_train_steps", "num_epochs", "num_batches_per_epoch", "gradient_accumulation_steps")
    steps, epochs, batches, accumulation = (_whole(values, name) for name in names)
    if steps and epochs and batches and steps < epochs * math.ceil(batches / (accumulation or 1)):
        return {"training.maxSteps": steps}
    return {}


def _whole(values: Mapping[str, Any], name: str) -> int | None:
    try:
        number: int | None = read_value(Kind.INTEGER, values.get(name))
    except ValueError as error:
        raise UnusableSettings(f"ss_{name} is '{values[name]}', but must be a whole number") from error
    return number


def _modelspec(metadata: Mapping[str, Any]) -> dict[str, Any]:
    raw = {name: metadata.get(f"modelspec.{key}") for key, name in _CARD.items()}
    title = metadata.get("modelspec.title")
    raw["metadata_title"] = title if title != metadata.get("ss_output_name") else None
    limits = str(metadata.get("modelspec.timestep_range") or "").split(",")
    if len(limits) == 2:
        raw["min_timestep"], raw["max_timestep"] = limits
    return raw


def _facts_of(tensors: Mapping[str, str]) -> dict[str, Any]:
    """Parts without an adapter, and the number format of the file."""
    fields: dict[str, Any] = {field: False for field, prefixes in _PARTS.items() if not _any_starts(tensors, prefixes)}
    formats = {dtype for name, dtype in tensors.items() if not name.endswith(".alpha")}
    if len(formats) == 1 and formats <= set(_PRECISIONS):
        fields["output.precision"] = _PRECISIONS[formats.pop()]
    return fields


def _any_starts(names: Iterable[str], prefixes: tuple[str, ...]) -> bool:
    return any(name.startswith(prefixes) for name in names)
