"""Finds out by trying whether a model predicts noise or velocity; used by `run` before it trains for the wrong one.

Single files seldom record it, and folders were converted with the wrong configuration often enough.
"""

import torch
from torch import Tensor

from lora_api.model_spec import Prediction
from lora_trainer.conditioning import TextStates
from lora_trainer.families.base import BaseModel
from lora_trainer.generators import generator
from lora_trainer.rng import Purpose

_TIMES = (0.4, 0.5, 0.6, 0.7)
"""Shares of the schedule that are tried: noise and velocity differ there, and a trained model predicts either well."""
_EXPLAINED = 0.5
"""Largest share of a target's variance that may be left over for the model to count as predicting it."""
_CLEARER = 2.0
"""How many times larger what is left over of the other target has to be."""


@torch.no_grad()
def probe_prediction(
    model: BaseModel, latents: Tensor, text: TextStates, sizes: Tensor, *, alpha_bars: Tensor
) -> Prediction | None:
    """What the model predicts for noisy versions of `latents`, by the smaller share of unexplained variance.

    Noise eps and velocity v = sqrt(abar) eps - sqrt(1 - abar) x0 (Salimans and Ho 2022,
    https://arxiv.org/abs/2202.00512) are compared with the prediction at four timesteps.

    Args:
        model: the base, without adapters.
        latents: (B, C, h, w) of a few pictures.
        text: states of their captions.
        sizes: (B, 6) size conditions.
        alpha_bars: (T,) cumulative signal share of every timestep.

    Returns:
        None: neither is explained clearly better, as by a model with random weights.
    """
    batch, device = len(latents), latents.device
    left = {"epsilon": 0.0, "v_prediction": 0.0}
    for share in _TIMES:
        timestep = int(share * len(alpha_bars))
        random = generator(0, Purpose.SAMPLE, "prediction", timestep)
        noise = torch.randn(latents.shape, generator=random).to(device)
        signal, spread = alpha_bars[timestep].sqrt().item(), (1 - alpha_bars[timestep]).sqrt().item()
        noisy = signal * latents + spread * noise
        predicted = model.predict(noisy, torch.full((batch,), timestep, device=device), text, sizes)
        left["epsilon"] += _unexplained(predicted, noise) / len(_TIMES)
        left["v_prediction"] += _unexplained(predicted, signal * noise - spread * latents) / len(_TIMES)
    return _clearly(left["epsilon"], left["v_prediction"])


def _unexplained(predicted: Tensor, target: Tensor) -> float:
    return ((predicted - target).square().mean() / target.square().mean()).item()


def _clearly(epsilon: float, velocity: float) -> Prediction | None:
    if epsilon < _EXPLAINED and epsilon * _CLEARER < velocity:
        return "epsilon"
    if velocity < _EXPLAINED and velocity * _CLEARER < epsilon:
        return "v_prediction"
    return None
