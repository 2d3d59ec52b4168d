"""An adapter of any kind in a live base model for a while, at any strength; used by `lora grid`.

As AUTOMATIC1111 does it: the change is added to the weights themselves, so that every kind of network can be drawn,
and what the weights were is kept beside them.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from lora_trainer.conditioning import Part
from lora_trainer.lora.adapter import AdapterFile
from lora_trainer.lora.merge import weights_in
from lora_trainer.lora.strength import Strength


@contextmanager
def merged(parts: Mapping[Part, nn.Module], adapter: AdapterFile, strength: Strength) -> Iterator[None]:
    """Adds the adapter at `strength` to the weights of live parts; afterwards they are what they were, bit by bit.

    Raises:
        InvalidAdapterFile: a module that the parts lack, or of another shape; then nothing was changed.
    """
    targets = weights_in(parts, adapter)
    before: dict[str, Tensor] = {}
    try:
        with torch.no_grad():
            for key, module in adapter.modules.items():
                factor = strength.scale_of(module.name, adapter.family)
                if factor != 0.0:
                    target = targets[key]
                    before[key] = target.clone()
                    target.copy_(target.float() + factor * module.change(target))
        yield
    finally:
        with torch.no_grad():
            for key, weight in before.items():
                targets[key].copy_(weight)
