"""Proof that an adapter file does what the trained model does; used by `run` before a file is published.

The file's tensors are applied to the base model by the arithmetic of `lora.adapter`, not by PEFT, so that a wrong
scale, a lost module or a wrong name cannot go unnoticed.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lora_trainer.lora.adapter import DORA_SCALE, AdapterFile, AdapterModule
from lora_trainer.lora.inject import Adapters
from lora_trainer.lora.keys import kohya_key
from lora_trainer.lora.layer import AdaptedLayer

Probe = Callable[[], tuple[Tensor, ...]]
"""Outputs in fp32 of text encoder and UNet for fixed inputs, from the model as it is now."""

_EPSILON = {torch.float32: 2.0**-24, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
_SMALLEST = {torch.float32: 2.0**-149, torch.float16: 2.0**-24, torch.bfloat16: 2.0**-133}


_AMPLIFICATION = 32
"""How much larger than in the weights a rounding error may get in the outputs, as a share of the effect."""


class AdapterMismatch(RuntimeError):
    """The file does not reproduce the trained model: an error of ours, never published."""


def verify_adapter(file: AdapterFile, adapters: Adapters, probe: Probe, *, tolerance: float) -> None:
    """Compares `file` with the live `adapters`: module by module, then the model's outputs.

    Args:
        file: what was read back.
        adapters: what was trained.
        probe: runs text encoders and UNet on fixed inputs.
        tolerance: largest error of an output, as a share of it and of what the adapter changes in it, from the
            precision of the model's arithmetic.

    Raises:
        AdapterMismatch: naming the first module or the output that differs by more than rounding.
    """
    expected = {layer.module_name: layer for layer in adapters.layers}
    written = {module.name: module for module in file.modules.values()}
    if set(expected) != set(written):
        different = sorted(set(expected) ^ set(written))
        example = kohya_key(*different[0], adapters.family)
        raise AdapterMismatch(f"the adapter file and the model differ in {len(different)} modules: {example}")
    for name, layer in expected.items():
        _compare_weights(kohya_key(*name, adapters.family), written[name], layer)
    live = probe()
    with applied(file, adapters):
        from_file = probe()
    with adapters.disabled():
        base = probe()
    for index, (ours, theirs, without) in enumerate(zip(live, from_file, base, strict=True)):
        error, bound = (ours - theirs).norm(), _bound(file, ours, ours - without, tolerance=tolerance)
        if not error <= bound:
            raise AdapterMismatch(f"output {index} of the written adapter is off by {error:.3g}, allowed {bound:.3g}")


def _bound(file: AdapterFile, output: Tensor, effect: Tensor, *, tolerance: float) -> Tensor:
    """Largest error of an output: of the arithmetic, and of the file's rounding as a share of what it changes."""
    rounding = max(_EPSILON[tensor.dtype] for module in file.modules.values() for tensor in module.tensors.values())
    bound: Tensor = tolerance * (output.norm() + effect.norm()) + _AMPLIFICATION * rounding * effect.norm()
    if file.type == "dora":
        # The row lengths are those of whole weights, so their rounding is a share of the whole output.
        lengths = (module.tensors[DORA_SCALE].dtype for module in file.modules.values())
        bound += _AMPLIFICATION * max(_EPSILON[dtype] for dtype in lengths) * output.norm()
    return bound


@contextmanager
def applied(file: AdapterFile, adapters: Adapters) -> Iterator[None]:
    """The base model with the file's tensors instead of the live adapters."""
    handles = []
    written = {module.name: module for module in file.modules.values()}
    with adapters.disabled():
        try:
            for layer in adapters.layers:
                hook = _adder(written[layer.module_name], layer.base)
                handles.append(layer.layer.register_forward_hook(hook))
            yield
        finally:
            for handle in handles:
                handle.remove()


def _adder(module: AdapterModule, base: Any) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
    @torch.no_grad()
    def add(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        x = inputs[0].float()
        tensors = {name: tensor.to(x.device) for name, tensor in module.tensors.items()}
        with torch.autocast(x.device.type, enabled=False):
            change = replace(module, tensors=tensors).change(base.weight)
            if isinstance(base, nn.Conv2d):
                changed = functional.conv2d(x, change, stride=base.stride, padding=base.padding)
            else:
                changed = functional.linear(x, change)
        return (output + changed).type_as(output)

    return add


def _compare_weights(key: str, module: AdapterModule, layer: AdaptedLayer) -> None:
    """Every number in the file must be the trained one, rounded to the file's format."""
    live = layer.tensors()
    if set(module.tensors) != set(live):
        names = sorted(set(module.tensors) ^ set(live))
        raise AdapterMismatch(f"{key} has other tensors in the file than in the model: {names[0]}")
    if not abs(module.scale - layer.scale) <= 2 * _EPSILON[module.dtype] * abs(layer.scale):
        raise AdapterMismatch(f"{key} has the scale {module.scale:.6g} in the file, but {layer.scale:.6g} in the model")
    for name, stored in module.tensors.items():
        expected = live[name].detach().float().cpu()
        if not _same_shape(name, stored, expected):
            raise AdapterMismatch(f"{key}.{name} has shape {[*stored.shape]} in the file")
        error = (stored.float().view_as(expected) - expected).abs()
        bound = 1.001 * expected.abs() * _EPSILON[stored.dtype] + _SMALLEST[stored.dtype]
        if not bool((error <= bound).all()):
            raise AdapterMismatch(f"{key}.{name} differs from the trained weights by up to {error.max():.3g}")


def _same_shape(name: str, stored: Tensor, live: Tensor) -> bool:
    """The file has `dora_scale` as a column, (out, 1) or (out, 1, 1, 1), which PEFT has as a row."""
    if name == DORA_SCALE:
        return stored.shape[0] == stored.numel() == live.numel()
    return stored.shape == live.shape
