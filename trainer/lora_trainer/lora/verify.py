"""Proof that an adapter file does what the trained model does; used by `run` before a file is published.

The file's tensors are applied to the base model by this module's own arithmetic, not by PEFT, so that a wrong
scale, a lost module or a wrong name cannot go unnoticed.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from lora_trainer.lora.formats import AdapterFile, AdapterModule, kohya_key
from lora_trainer.lora.inject import AdaptedLayer, Adapters

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
        probe: runs text encoder and UNet on fixed inputs.
        tolerance: largest relative error of an output, from the precision of the model's arithmetic.

    Raises:
        AdapterMismatch: naming the first module or the output that differs by more than rounding.
    """
    expected = {kohya_key(layer.part, layer.path): layer for layer in adapters.layers}
    if set(expected) != set(file.modules):
        different = sorted(set(expected) ^ set(file.modules))
        raise AdapterMismatch(f"the adapter file and the model differ in {len(different)} modules: {different[0]}")
    for key, layer in expected.items():
        _compare_weights(file.modules[key], layer)
    live = probe()
    with applied(file, adapters.layers):
        from_file = probe()
    with _disabled(adapters.layers):
        base = probe()
    storage_error = max(_EPSILON[module.up.dtype] for module in file.modules.values())
    for index, (ours, theirs, without) in enumerate(zip(live, from_file, base, strict=True)):
        error, effect = (ours - theirs).norm(), (ours - without).norm()
        bound = tolerance * ours.norm() + _AMPLIFICATION * storage_error * effect
        if not error <= bound:
            raise AdapterMismatch(f"output {index} of the written adapter is off by {error:.3g}, allowed {bound:.3g}")


@contextmanager
def _disabled(layers: Sequence[AdaptedLayer]) -> Iterator[None]:
    """The base model without its adapters."""
    try:
        for layer in layers:
            layer.enable(False)
        yield
    finally:
        for layer in layers:
            layer.enable(True)


@contextmanager
def applied(file: AdapterFile, layers: Sequence[AdaptedLayer]) -> Iterator[None]:
    """The base model with the file's tensors instead of the live adapters."""
    handles = []
    with _disabled(layers):
        try:
            for layer in layers:
                module = file.modules[kohya_key(layer.part, layer.path)]
                handles.append(layer.layer.register_forward_hook(_adder(module)))
            yield
        finally:
            for handle in handles:
                handle.remove()


def _adder(module: AdapterModule) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
    def add(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        x = inputs[0].float()
        down, up = (weight.to(x.device, torch.float32) for weight in (module.down, module.up))
        with torch.autocast(x.device.type, enabled=False):
            if down.dim() == 4:
                change = functional.conv2d(functional.conv2d(x, down), up)
            else:
                change = functional.linear(functional.linear(x, down), up)
        changed: Tensor = output + change * (module.alpha / module.rank)
        return changed.type_as(output)

    return add


def _compare_weights(module: AdapterModule, layer: AdaptedLayer) -> None:
    """Every number in the file must be the trained one, rounded to the file's format."""
    scale = module.alpha / module.rank
    if not abs(scale - layer.scale) <= 2 * _EPSILON[module.up.dtype] * abs(layer.scale):
        raise AdapterMismatch(f"{module.key} has the scale {scale:.6g} in the file, but {layer.scale:.6g} in the model")
    for side, stored, live in (("lora_down", module.down, layer.down), ("lora_up", module.up, layer.up)):
        if stored.shape != live.shape:
            raise AdapterMismatch(f"{module.key}.{side} has shape {[*stored.shape]} in the file")
        expected = live.detach().cpu()
        error = (stored.float() - expected).abs()
        bound = 1.001 * expected.abs() * _EPSILON[stored.dtype] + _SMALLEST[stored.dtype]
        if not bool((error <= bound).all()):
            raise AdapterMismatch(f"{module.key}.{side} differs from the trained weights by up to {error.max():.3g}")
