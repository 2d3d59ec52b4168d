"""Brings tensors to the device without waiting for it; used for everything that a step takes along."""

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device | str) -> Tensor:
    """`tensor` on `device`; the caller goes on while a GPU still works on what it was told before.

    A GPU copies from memory that the system may move only in turn with its work, so the tensor is pinned first.
    """
    if torch.device(device).type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
