"""What a model predicts is found out with the trained tiny base of the demo."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lora_trainer.conditioning import TextStates, size_conditions
from lora_trainer.families import catalogue
from lora_trainer.families.probe import probe_prediction
from lora_trainer.families.stable_diffusion import StableDiffusion

TRAINED = Path(__file__).parents[3] / "tinybase" / "model"
CPU = torch.device("cpu")
ALPHA_BARS = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2, 0).float()
SIZES = size_conditions((128, 128), (0, 0), (128, 128))[None]


@pytest.fixture(scope="module")
def trained() -> StableDiffusion:
    """A small model that predicts noise, trained."""
    return catalogue.load(TRAINED, CPU, precision=torch.float32)


@dataclass(frozen=True)
class AsVelocity:
    """The same model, whose answer is turned into velocity: v follows from the noise and the noisy latent."""

    model: StableDiffusion

    def predict(self, latents: Tensor, timesteps: Tensor, text: TextStates, sizes: Tensor) -> Tensor:
        noise = self.model.predict(latents, timesteps, text, sizes)
        alpha_bar = ALPHA_BARS[timesteps][:, None, None, None]
        clean = (latents - (1 - alpha_bar).sqrt() * noise) / alpha_bar.sqrt()
        return alpha_bar.sqrt() * noise - (1 - alpha_bar).sqrt() * clean


def probe(model: StableDiffusion, wrapped: AsVelocity | None = None) -> str | None:
    """What the probe makes of a grey picture."""
    with torch.no_grad():
        text = model.encode_texts(model.tokenize(["a red circle"]))
    latents = model.encode_images(torch.full((1, 3, 128, 128), 0.2))
    return probe_prediction(wrapped or model, latents, text, SIZES, alpha_bars=ALPHA_BARS)  # type: ignore[arg-type]


def test_a_model_that_predicts_noise_is_known(trained: StableDiffusion) -> None:
    assert probe(trained) == "epsilon"


def test_a_model_that_predicts_velocity_is_known(trained: StableDiffusion) -> None:
    assert probe(trained, AsVelocity(trained)) == "v_prediction"


def test_random_weights_predict_nothing_clearly(tiny_pipeline: Path) -> None:
    assert probe(catalogue.load(tiny_pipeline, CPU, precision=torch.float32)) is None
