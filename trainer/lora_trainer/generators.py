"""Random tensors as a function of (seed, what for); used by the noise, the adapters' start and the probes.

Numbers are drawn on the CPU and moved, so that every device, every number of workers and every resumed run sees the
same ones.
"""

import torch

from lora_trainer.rng import derive_seed


def generator(seed: int, *parts: int | str) -> torch.Generator:
    """A fresh CPU generator for `rng.derive_seed(seed, *parts)`."""
    return torch.Generator(device="cpu").manual_seed(derive_seed(seed, *parts))
