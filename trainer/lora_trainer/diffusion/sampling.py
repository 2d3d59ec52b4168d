"""Pictures from noise with classifier-free guidance, by any sampler; used by `drawing` on the live model.

Ho and Salimans 2022, https://arxiv.org/abs/2207.12598. Latents are x = x_0 + sigma * noise while they are drawn.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lora_api.evaluation_spec import Sampler
from lora_api.model_spec import Prediction
from lora_trainer.conditioning import TextStates
from lora_trainer.diffusion.noise import NoiseSchedule
from lora_trainer.diffusion.samplers import METHODS

Predict = Callable[[Tensor, Tensor, TextStates, Tensor], Tensor]
"""(latents (B, C, h, w), timesteps (B,), text of B, sizes (B, 6)) -> noise or v (B, C, h, w)."""


@dataclass(frozen=True)
class Request:
    """B pictures of one size, sampler and number of steps."""

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
    """As the WebUI counts them; see `levels`."""
    sampler: Sampler = "euler_a"


def sample(
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
    method = METHODS[request.sampler]
    levels = method.levels(schedule, request.steps)
    generators = [torch.Generator().manual_seed(seed) for seed in request.seeds]

    def noise() -> Tensor:
        return torch.stack([torch.randn(request.shape, generator=one) for one in generators]).to(request.sizes.device)

    solver = method.solver(levels.sigmas, noise)
    latents = noise() * levels.start
    for place, timestep in enumerate(levels.timesteps):
        on_step()
        sigma = levels.sigmas[place]
        said = _guided(predict, request, latents / math.hypot(sigma, 1), timestep)
        latents = solver.step(place, latents, _denoised(latents, said, sigma, prediction))
    return latents / math.hypot(levels.sigmas[-1], 1)


def _guided(predict: Predict, request: Request, scaled: Tensor, timestep: float) -> Tensor:
    """What the model says of noisy latents of variance 1, away from the negative prompts by the guidance."""
    texts, sizes = (request.negative_text, request.text), request.sizes
    times = torch.full((len(scaled),), timestep, device=scaled.device)
    if request.text.states.shape == request.negative_text.states.shape:
        twice = predict(scaled.repeat(2, 1, 1, 1), times.repeat(2), TextStates.cat(texts), sizes.repeat(2, 1))
        without, with_text = twice.chunk(2)
    else:
        without, with_text = (predict(scaled, times, text, sizes) for text in texts)
    return without + request.guidance.view(-1, 1, 1, 1) * (with_text - without)


def _denoised(latents: Tensor, said: Tensor, sigma: float, prediction: Prediction) -> Tensor:
    """The picture x_0 in latents x by the noise, or the v, that the model said; Salimans and Ho 2022, appendix D."""
    if prediction == "epsilon":
        return latents - sigma * said
    return latents / (sigma**2 + 1) - said * (sigma / math.hypot(sigma, 1))
