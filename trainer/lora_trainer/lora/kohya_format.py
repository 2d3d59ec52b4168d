"""Kohya's and LyCORIS' file format: `<key>.<suffix>` for each tensor of a module and `<key>.alpha`.

AUTOMATIC1111, Forge, ComfyUI, diffusers and sd-scripts open it. Used by `lora.formats`.
"""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from lora_api.model_spec import Family
from lora_trainer.lora.adapter import DORA_SCALE, DOWN, SUFFIXES, UP, AdapterModule, InvalidAdapterFile, keyed
from lora_trainer.lora.keys import UnknownKey, module_named

_ALPHA = "alpha"
_SETS: tuple[tuple[set[str], set[str]], ...] = (
    ({DOWN, UP}, {"lora_mid.weight", DORA_SCALE}),
    ({"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"}, {"hada_t1", "hada_t2"}),
    ({"lokr_w1", "lokr_w2"}, set()),
    ({"lokr_w1_a", "lokr_w1_b", "lokr_w2"}, set()),
    ({"lokr_w1", "lokr_w2_a", "lokr_w2_b"}, {"lokr_t2"}),
    ({"lokr_w1_a", "lokr_w1_b", "lokr_w2_a", "lokr_w2_b"}, {"lokr_t2"}),
)
"""Tensors that make one module: those that it must have, those that it may have."""


def kohya_tensors(modules: Iterable[AdapterModule], family: Family) -> dict[str, Tensor]:
    """The file's tensors."""
    tensors: dict[str, Tensor] = {}
    for key, module in keyed(modules, family).items():
        tensors |= {f"{key}.{suffix}": tensor for suffix, tensor in module.tensors.items()}
        tensors[f"{key}.{_ALPHA}"] = torch.tensor(module.alpha, dtype=module.dtype)
    return tensors


def kohya_modules(tensors: Mapping[str, Tensor], file_name: str) -> list[AdapterModule]:
    """The modules of a file; a module without alpha has the scale 1.

    Raises:
        InvalidAdapterFile: tensors that belong to no module that we know, modules that are not whole.
    """
    groups: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        key, _, suffix = name.partition(".")
        groups.setdefault(key, {})[suffix] = tensor
    known = {key: members for key, members in groups.items() if members.keys() & SUFFIXES}
    if not known:
        raise InvalidAdapterFile(f"{file_name} holds no lora_down, hada or lokr weights, so it is no LoRA")
    unknown = sorted(f"{key}.{name}" for key, members in groups.items() for name in members
                     if key not in known or name not in SUFFIXES | {_ALPHA})  # fmt: skip
    if unknown:
        raise InvalidAdapterFile(f"{file_name} holds {len(unknown)} tensors of no LoRA module, such as {unknown[0]}")
    return [_module(key, members, file_name) for key, members in sorted(known.items())]


def _module(key: str, members: Mapping[str, Tensor], file_name: str) -> AdapterModule:
    weights = {suffix: tensor for suffix, tensor in members.items() if suffix != _ALPHA}
    _check_whole(key, weights, file_name)
    try:
        module = AdapterModule(module_named(key), weights, alpha=1.0)
    except UnknownKey as error:
        raise InvalidAdapterFile(f"{file_name}: {error}") from error
    if _ALPHA in members and members[_ALPHA].numel() != 1:
        raise InvalidAdapterFile(
            f"{file_name}: {key}.{_ALPHA} holds {members[_ALPHA].numel()} numbers, but must hold one"
        )
    alpha = float(members[_ALPHA]) if _ALPHA in members else float(module.rank or 1)
    return AdapterModule(module.name, weights, alpha)


def _check_whole(key: str, weights: Mapping[str, Tensor], file_name: str) -> None:
    if not any(needed <= weights.keys() <= needed | optional for needed, optional in _SETS):
        needed = max((wanted for wanted, _ in _SETS), key=lambda wanted: len(wanted & weights.keys()))
        missing = sorted(needed - weights.keys())
        raise InvalidAdapterFile(
            f"{file_name} lacks {key}.{missing[0]}" if missing else f"{file_name}: {key} mixes kinds of adapters"
        )
    if DOWN in weights:
        down, up = weights[DOWN], weights[UP]
        if down.dim() < 2 or up.dim() < 2 or up.shape[1] != down.shape[0] or not len(down):
            shapes = f"{[*down.shape]} and {[*up.shape]}"
            raise InvalidAdapterFile(f"{file_name}: {key} has ranks that do not fit: {shapes}")
