"""Pictures from noise by Euler ancestral steps with classifier-free guidance, as AUTOMATIC1111's "Euler a".

Used by `drawing` on the live model. Karras et al. 2022, https://arxiv.org/abs/2206.00364, algorithm 1 without
churn, with the ancestral split of sigma of k-diffusion; Ho and Salimans 2022, https://arxiv.org/abs/2207.12598.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lora_api.model_spec import Prediction
from lora_trainer.conditioning import TextStates
from lora_trainer.diffusion.noise import NoiseSchedule

Predict = Callable[[Tensor, Tensor, TextStates, Tensor], Tensor]
"""(latents (B, C, h, w), timesteps (B,), text of B, sizes (B, 6)) -> noise or v (B, C, h, w)."""

_SMALLEST_SIGNAL = 2.0**-24
"""Stands for a signal share of 0, whose sigma would be infinite; diffusers takes the same number."""


@dataclass(frozen=True)
class Request:
    """B pictures of one size and number of steps."""

    text: TextStates
    """Of the prompts, B long."""
    negative_text: TextStates
    """Of the negative prompts, B long."""
    sizes: Tensor
    """(B, 6) as `conditioning.size_conditions` gives them."""
    guidance: Tensor
    """(B,) classifier-free guidance scales."""
    seeds: tuple[int, ...]
    shape: tuple[int, int, int]
    """(C, h, w) of one picture's latents."""
    steps: int
    """Evaluations of the model."""


def sample_euler_ancestral(
    predict: Predict,
    schedule: NoiseSchedule,
    request: Request,
    *,
    prediction: Prediction = "epsilon",
    on_step: Callable[[], None] = lambda: None,
) -> Tensor:
    """Latents (B, C, h, w) of the pictures; `on_step` is called before each step and may raise to stop.

    `prediction` is what `predict` gives. All noise of a picture comes from one CPU generator with its seed, so a
    picture does not depend on the device or on what is drawn beside it.
    """
    timesteps, sigmas = _levels(schedule, request.steps)
    generators = [torch.Generator().manual_seed(seed) for seed in request.seeds]
    both = TextStates.cat([request.negative_text, request.text])
    sizes = torch.cat([request.sizes, request.sizes])
    scale = request.guidance.view(-1, 1, 1, 1)

    def noise() -> Tensor:
        return torch.stack([torch.randn(request.shape, generator=one) for one in generators]).to(sizes.device)

    latents = noise() * sigmas[0]
    for timestep, sigma, target in zip(timesteps, sigmas[:-1], sigmas[1:], strict=True):
        on_step()
        scaled = latents / (sigma**2 + 1) ** 0.5
        times = torch.full((len(both),), timestep, device=sizes.device)
        without, with_text = predict(torch.cat([scaled, scaled]), times, both, sizes).chunk(2)
        guided = without + scale * (with_text - without)
        epsilon = guided if prediction == "epsilon" else (guided + sigma * scaled) / (sigma**2 + 1) ** 0.5
        up, down = _ancestral_split(sigma, target)
        latents = latents + epsilon * (down - sigma)
        latents = latents + noise() * up
    return latents


def _levels(schedule: NoiseSchedule, steps: int) -> tuple[list[float], list[float]]:
    """`steps` timesteps from the last to the first, evenly spaced, and their sigmas, followed by 0."""
    finite = NoiseSchedule(schedule.alphas_cumprod.clamp(min=_SMALLEST_SIGNAL))
    timesteps = np.linspace(schedule.timesteps - 1, 0, steps, dtype=np.float32)
    sigmas = np.interp(timesteps, np.arange(schedule.timesteps), finite.sigmas.double().numpy())
    return [float(t) for t in timesteps], [*(float(np.float32(sigma)) for sigma in sigmas), 0.0]


def _ancestral_split(sigma: float, target: float) -> tuple[float, float]:
    """(fresh noise, deterministic part) whose squares add up to target squared."""
    up = (target**2 * (sigma**2 - target**2) / sigma**2) ** 0.5
    return up, (target**2 - up**2) ** 0.5
