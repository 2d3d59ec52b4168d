"""One adapted tiny model whose adapters do something."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lora_api.model_spec import Network
from lora_trainer.families import sd15
from lora_trainer.families.sd15 import StableDiffusion15
from lora_trainer.lora.inject import Adapters, add_adapters


@dataclass(frozen=True)
class Adapted:
    """A model with adapters of rank 4 and alpha 2."""

    model: StableDiffusion15
    adapters: Adapters

    @torch.no_grad()
    def probe(self) -> tuple[Tensor, ...]:
        """Outputs for a fixed input."""
        states = self.model.encode_texts(self.model.tokenize(["a red cat"]))
        return states, self.model.predict(torch.ones(1, 4, 8, 8), torch.tensor([500]), states)


@pytest.fixture(scope="module")
def adapted(tiny_pipeline: Path) -> Adapted:
    """Loaded once a module; tests leave it as it is."""
    model = sd15.load(tiny_pipeline, torch.device("cpu"), precision=torch.float32)
    adapters = add_adapters(model.unet, model.text_encoder, Network(rank=4, alpha=2.0), seed=0)
    random = torch.Generator().manual_seed(7)
    for layer in adapters.layers:
        layer.up.data.normal_(0.0, 0.05, generator=random)
    return Adapted(model, adapters)
