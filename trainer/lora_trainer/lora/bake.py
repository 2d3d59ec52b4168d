"""An adapter with a weight and block weights worked into its tensors, which then needs no extension; `lora bake`."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from lora_trainer.lora.adapter import DORA_SCALE, DOWN, UP, AdapterFile, AdapterModule, InvalidAdapterFile, check_finite
from lora_trainer.lora.merge import BaseWeight, check_fits
from lora_trainer.lora.strength import Strength

METADATA_KEY = "lora_baked"
"""Metadata entry with what was baked: a JSON list, the last baking at its end."""

_SCALED = (UP, "hada_w2_a", "lokr_w2", "lokr_w2_a")
"""Tensors that a change is proportional to; each module has one of them."""
_LOSS_LIMIT = 0.01
"""Largest share of a tensor that its number format may lose."""
_FP32 = "make an fp32 copy first: `lora convert --to kohya --precision fp32`"
_SMALLEST_SHARE = 1e-3
"""A DoRA's row whose base weight is left with a smaller share has no direction of its own any more."""


def bake(
    adapter: AdapterFile,
    strength: Strength,
    *,
    name: str,
    out: Path,
    base: BaseWeight | None = None,
) -> AdapterFile:
    """The adapter that does at strength 1 what `adapter` does at `strength`. Modules with the weight 0 are left out.

    Args:
        adapter: of any type, which it stays, as does its number format.
        strength: what is worked in.
        name: what metadata and messages call the source.
        out: the file to be written, for the metadata.
        base: weights of the base model, on which a DoRA at another weight than 0 and 1 depends.

    Raises:
        InvalidAdapterFile: nothing is left, a DoRA without `base`, or numbers that the format cannot hold.
    """
    check_finite(adapter, name)
    factors = {key: strength.scale_of(module.name, adapter.family) for key, module in adapter.modules.items()}
    modules = {
        key: _cast(_baked(module, factors[key], base), module.dtype, key)
        for key, module in adapter.modules.items()
        if factors[key] != 0.0
    }
    if not modules:
        raise InvalidAdapterFile(f"at this strength nothing of {name} is left; give a block that it has a weight")
    baked = AdapterFile(modules, _metadata(adapter, strength, name=name, out=out), adapter.family)
    check_finite(baked, out.name, cure=f"use a smaller weight, or {_FP32}")
    return baked


def _baked(module: AdapterModule, factor: float, base: BaseWeight | None) -> AdapterModule:
    """The module with `factor` times its change, in fp32 where it was computed."""
    if factor == 1.0:
        return module
    if module.type == "dora":
        return _baked_dora(module, factor, base)
    scaled = next(name for name in _SCALED if name in module.tensors)
    return _with(module, {scaled: module.tensors[scaled].float() * factor})


def _baked_dora(module: AdapterModule, factor: float, base: BaseWeight | None) -> AdapterModule:
    """The DoRA whose weight lies at `factor` between the base's and the adapter's.

    With V = W + dW and W' = m V / ||V||, W + f (W' - W) = (1 - f) W + g V, where g = f m / ||V||, is
    c (W + (g / c) dW) with c = 1 - f + g: again a DoRA, for each output, or each input, of its own.
    """
    if base is None:
        raise InvalidAdapterFile(
            f"{module.name.part}.{module.name.path} is a dora, whose change at the weight {factor:g} depends on the "
            "base model; give --base"
        )
    weight = base(module.name).float()
    check_fits(module, weight)
    delta, magnitude = module.delta.reshape(weight.shape), module.tensors[DORA_SCALE].float()
    axis = 0 if magnitude.shape[0] == weight.shape[0] else 1
    gain = factor * magnitude.flatten() / _lengths(weight + delta, axis)
    share = 1 - factor + gain
    if bool((share.abs() < _SMALLEST_SHARE).any()):
        raise InvalidAdapterFile(f"{module.name.part}.{module.name.path}: no dora is this one at the weight {factor:g}")
    ratio = gain / share
    length = share * _lengths(weight + delta * _along(ratio, axis, weight.dim()), axis)
    name = UP if axis == 0 else DOWN
    scaled = module.tensors[name].float() * _along(ratio, axis, module.tensors[name].dim())
    return _with(module, {name: scaled, DORA_SCALE: length.reshape(magnitude.shape)})


def _lengths(weight: Tensor, axis: int) -> Tensor:
    lengths: Tensor = weight.transpose(0, axis).flatten(1).norm(dim=1)
    return lengths


def _along(values: Tensor, axis: int, dims: int) -> Tensor:
    return values.reshape([-1 if dim == axis else 1 for dim in range(dims)])


def _with(module: AdapterModule, tensors: Mapping[str, Tensor]) -> AdapterModule:
    return replace(module, tensors={**module.tensors, **tensors})


def _cast(module: AdapterModule, dtype: torch.dtype, key: str) -> AdapterModule:
    """The module in a number format. What overflows is found later, what vanishes is found here."""
    tensors = {name: tensor.to(dtype) for name, tensor in module.tensors.items()}
    for name, tensor in tensors.items():
        exact = module.tensors[name].float()
        lost = (tensor.float() - exact).norm()
        if lost.isfinite() and lost > _LOSS_LIMIT * exact.norm():
            raise InvalidAdapterFile(
                f"{key}.{name} gets too small for the file's number format, which would lose "
                f"{float(lost / exact.norm()):.0%} of it; {_FP32}"
            )
    return replace(module, tensors=tensors)


def _metadata(adapter: AdapterFile, strength: Strength, *, name: str, out: Path) -> dict[str, str]:
    blocks, shown = strength.blocks, f"{strength.weight:g}"
    entry: dict[str, object] = {"from": name, "weight": strength.weight}
    if blocks is not None:
        entry |= {"name": blocks.name, "blocks": blocks.by_place(adapter.family)}
        shown += f", {blocks.name}"
    return {
        **adapter.metadata,
        "ss_output_name": out.stem,
        "modelspec.title": out.stem,
        "modelspec.merged_from": f"{name} ({shown})",
        METADATA_KEY: json.dumps([*_earlier(adapter.metadata), entry]),
    }


def _earlier(source: Mapping[str, str]) -> list[object]:
    """What was baked before; other programs may have put anything there."""
    try:
        entries = json.loads(source.get(METADATA_KEY, "[]"))
    except ValueError:
        return []
    return entries if isinstance(entries, list) else []
