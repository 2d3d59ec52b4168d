"""Diffusers' format for adapters: PEFT's tensor names behind `unet.`, `text_encoder.` and `text_encoder_2.`.

Ranks and alphas, which the tensors do not tell, stand in the metadata as arguments of PEFT's `LoraConfig`, where
`load_lora_weights` looks for them. Used by `lora.formats` and `lora.peft_format`.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

from lora_trainer.conditioning import PARTS, Part
from lora_trainer.lora.adapter import DORA_SCALE, DOWN, UP, AdapterModule, InvalidAdapterFile
from lora_trainer.lora.keys import ModuleName, canonical_path, text_model_path

CONFIG_KEY = "lora_adapter_metadata"
"""Metadata entry under which diffusers keeps the arguments of `LoraConfig`."""

_TO_PEFT = {DOWN: "lora_A.weight", UP: "lora_B.weight", DORA_SCALE: "lora_magnitude_vector"}
_PLAIN_TYPES = ("lora", "locon", "dora")
_SUFFIX = re.compile(
    r"(?P<path>.+?)(?:\.lora_(?P<side>[AB])(?:\.default)?\.weight"
    r"|[._]lora(?:_linear_layer)?\.(?P<old>down|up)\.weight"
    r"|\.(?P<magnitude>lora_magnitude_vector)(?:\.default)?(?:\.weight)?"
    r"|\.(?P<alpha>alpha))$"
)
"""PEFT's names, diffusers' of before PEFT, and an alpha that some tools add."""


def diffusers_tensors(modules: Iterable[AdapterModule]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The file's tensors, and the metadata without which diffusers would not know their strength.

    Raises:
        InvalidAdapterFile: LoHa and LoKr modules, which diffusers does not load.
    """
    members = list(modules)
    tensors: dict[str, Tensor] = {}
    arguments: dict[str, Any] = {}
    for part in PARTS:
        own = [module for module in members if module.name.part == part]
        for module in own:
            tensors |= {f"{part}.{name}": tensor for name, tensor in _named(module).items()}
        if own:
            arguments |= {f"{part}.{name}": value for name, value in lora_config(own).items()}
    return tensors, {CONFIG_KEY: json.dumps(arguments, sort_keys=True)}


def _named(module: AdapterModule) -> dict[str, Tensor]:
    """A module's tensors as `load_lora_weights` finds them: transformers wants a `.weight` that PEFT leaves out."""
    if module.name.part == "unet":
        return {f"{module.name.path}.{name}": tensor for name, tensor in peft_tensors(module).items()}
    path = text_model_path(module.name.path)
    return {f"{path}.{name.removesuffix('.weight')}.weight": tensor for name, tensor in peft_tensors(module).items()}


def peft_tensors(module: AdapterModule) -> dict[str, Tensor]:
    """A module's tensors as PEFT names and shapes them. Raises InvalidAdapterFile if PEFT's LoRA has none such."""
    if module.type not in _PLAIN_TYPES or not module.tensors.keys() <= _TO_PEFT.keys():
        raise InvalidAdapterFile(
            f"{module.name.part}.{module.name.path} is a {module.type} module that only kohya's format can hold; "
            "make a LoRA of it by `lora resize` or `lora merge` with --rank first"
        )
    tensors = {_TO_PEFT[name]: tensor for name, tensor in module.tensors.items()}
    if module.type == "dora":
        tensors[_TO_PEFT[DORA_SCALE]] = _peft_magnitude(module)
    return tensors


def _peft_magnitude(module: AdapterModule) -> Tensor:
    magnitude, outputs = module.tensors[DORA_SCALE], module.up.shape[0]
    if magnitude.numel() != outputs or magnitude.shape[0] != outputs:
        raise InvalidAdapterFile(
            f"{module.name.part}.{module.name.path} has DoRA magnitudes of its inputs, but PEFT knows those of outputs "
            "only; make a LoRA of it by `lora merge` with --rank and --base first"
        )
    return magnitude.reshape(-1) if module.down.dim() == 2 else magnitude.reshape(1, -1, 1, 1)


def lora_config(modules: Sequence[AdapterModule]) -> dict[str, Any]:
    """Arguments of PEFT's `LoraConfig` for the modules of one part."""
    ranks = {module.name.path: module.rank for module in modules}
    alphas = {module.name.path: module.alpha for module in modules}
    rank, alpha = (Counter(values.values()).most_common(1)[0][0] for values in (ranks, alphas))
    return {
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": {path: value for path, value in ranks.items() if value != rank},
        "alpha_pattern": {path: value for path, value in alphas.items() if value != alpha},
        "target_modules": sorted(ranks),
        "use_dora": any(module.type == "dora" for module in modules),
    }


def diffusers_modules(tensors: Mapping[str, Tensor], metadata: Mapping[str, str], file: str) -> list[AdapterModule]:
    """The modules of a diffusers file. Raises InvalidAdapterFile."""
    try:
        config: dict[str, Any] = dict(json.loads(metadata.get(CONFIG_KEY, "{}")))
    except (ValueError, TypeError) as error:
        raise InvalidAdapterFile(f"{file}: {CONFIG_KEY} in its metadata is no JSON object: {error}") from error
    modules: list[AdapterModule] = []
    for part in PARTS:
        prefix = f"{part}."
        own = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        arguments = {name.removeprefix(prefix): value for name, value in config.items() if name.startswith(prefix)}
        modules += peft_modules(part, own, arguments, file)
    unknown = sorted(name for name in tensors if not name.startswith(tuple(f"{part}." for part in PARTS)))
    if unknown:
        raise InvalidAdapterFile(f"{file} holds {len(unknown)} tensors of no LoRA module, such as {unknown[0]}")
    return modules


def peft_modules(
    part: Part, tensors: Mapping[str, Tensor], config: Mapping[str, Any], file: str
) -> list[AdapterModule]:
    """The modules of one part; `config` holds `LoraConfig`'s arguments, if known. Raises InvalidAdapterFile."""
    groups: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        match = _SUFFIX.match(name)
        if match is None:
            raise InvalidAdapterFile(f"{file} holds {part}.{name}, which belongs to no LoRA module")
        side = match["old"] or {"A": "down", "B": "up"}.get(match["side"] or "", match["magnitude"] or match["alpha"])
        groups.setdefault(_canonical(part, match["path"]), {})[side] = tensor
    return [_peft_module(ModuleName(part, path), own, config, file) for path, own in sorted(groups.items())]


def _peft_module(name: ModuleName, own: Mapping[str, Tensor], config: Mapping[str, Any], file: str) -> AdapterModule:
    if not {"down", "up"} <= own.keys():
        raise InvalidAdapterFile(f"{file} lacks half of the LoRA module {name.part}.{name.path}")
    tensors = {DOWN: own["down"], UP: own["up"]}
    rank = int(own["down"].shape[0])
    if "lora_magnitude_vector" in own:
        outputs = own["up"].shape[0]
        tensors[DORA_SCALE] = own["lora_magnitude_vector"].reshape(outputs, *[1] * (own["down"].dim() - 1))
    alpha = float(own["alpha"]) if "alpha" in own else _alpha(name.path, rank, config)
    return AdapterModule(name, tensors, alpha)


def _alpha(path: str, rank: int, config: Mapping[str, Any]) -> float:
    """Alpha by PEFT's rules; without a config the scale is 1."""
    if "lora_alpha" not in config:
        return float(rank)
    patterns: Mapping[str, float] = config.get("alpha_pattern") or {}
    try:
        fitting = (value for pattern, value in patterns.items() if re.match(rf"(.*\.)?({pattern})$", path))
        alpha = float(next(fitting, config["lora_alpha"]))
    except (TypeError, ValueError, AttributeError, re.error) as error:
        raise InvalidAdapterFile(f"the config's lora_alpha or alpha_pattern cannot be used: {error}") from error
    return alpha * rank**0.5 if config.get("use_rslora") else alpha


def _canonical(part: Part, path: str) -> str:
    """Attention processors of before PEFT: `attn1.processor.to_q` is `attn1.to_q`, their `to_out` is `to_out.0`."""
    if ".processor." in path:
        path = re.sub(r"\.to_out$", ".to_out.0", path.replace(".processor", ""))
    return path if part == "unet" else canonical_path(path)
