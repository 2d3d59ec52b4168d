"""Keeps the weight changes short: `network.weightNormLimit`, kohya's scale_weight_norms; used by the loop."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lora_trainer.lora.layer import AdaptedLayer


@dataclass(frozen=True)
class Norms:
    """Lengths of the weight changes after they were limited; 0-d tensors on the adapters' device."""

    scaled: Tensor
    """How many modules were too long."""
    mean: Tensor
    max: Tensor


@torch.no_grad()
def limit_norms(layers: Sequence[AdaptedLayer], limit: float) -> Norms:
    """Scales every module of `lora` or `locon` down whose change s B A is longer (Frobenius) than `limit`.

    As sd-scripts does: n = max(||s B A||, limit / 2), q = min(n, limit) / n, A and B times sqrt(q). Nothing waits for
    the device.
    """
    norms, ratios = [], []
    for layer in layers:
        tensors = layer.tensors()
        down, up = tensors["lora_down.weight"], tensors["lora_up.weight"]
        norm = _change_norm(down, up) * layer.scale
        guarded = norm.clamp(min=limit / 2)
        ratio = guarded.clamp(max=limit) / guarded
        down.mul_(ratio.sqrt())
        up.mul_(ratio.sqrt())
        norms.append(norm * ratio)
        ratios.append(ratio)
    lengths = torch.stack(norms)
    return Norms(scaled=(torch.stack(ratios) < 1).sum(), mean=lengths.mean(), max=lengths.max())


def _change_norm(down: Tensor, up: Tensor) -> Tensor:
    """||B A|| as sqrt(sum(B'B * AA')): two r x r matrices instead of one as large as the weight."""
    down, up = down.float().flatten(1), up.float().flatten(1)  # (r, in), (out, r)
    return ((up.T @ up) * (down @ down.T)).sum().clamp(min=0).sqrt()
