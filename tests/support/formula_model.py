"""A model that is a formula, and a drawing with it by one of diffusers' schedulers."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from lora_trainer.conditioning import TextStates
from lora_trainer.diffusion.levels import Levels
from lora_trainer.diffusion.noise import make_schedule
from lora_trainer.diffusion.sampling import Request

SCHEDULE = make_schedule(0.00085, 0.012)
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
REQUEST = Request(
    text=TextStates(torch.full((1, 3, 2), 0.7), torch.full((1, 2), 0.1)),
    negative_text=TextStates(torch.full((1, 3, 2), 0.2), torch.full((1, 2), -0.1)),
    sizes=torch.full((1, 6), 0.3),
    guidance=torch.tensor([3.0]),
    seeds=(9,),
    shape=(4, 4, 6),
    steps=7,
)


def predict(latents: Tensor, timesteps: Tensor, text: TextStates, sizes: Tensor) -> Tensor:
    """Depends on everything that a UNet depends on; on the nearest whole timestep."""
    assert text.pooled is not None
    told = text.states.mean(dim=(1, 2)) + text.pooled.mean(dim=1) + sizes.mean(dim=1) + timesteps.round() / 1000
    return torch.tanh(latents * 0.8 + told.view(-1, 1, 1, 1))


def draw_by(scheduler: Any, request: Request, *, start: float | None = None, steps: int | None = None) -> Tensor:
    """Latents by a scheduler whose timesteps are set; of its first `steps` only, if they are given.

    `start` is the standard deviation of the noise at the beginning; by default what the scheduler says.
    """
    generator = torch.Generator().manual_seed(request.seeds[0])
    noise = torch.randn((1, *request.shape), generator=generator)
    latents = noise * (scheduler.init_noise_sigma if start is None else start)
    for timestep in scheduler.timesteps[:steps]:
        scaled = scheduler.scale_model_input(latents, timestep)
        without = predict(scaled, timestep[None], request.negative_text, request.sizes)
        with_text = predict(scaled, timestep[None], request.text, request.sizes)
        guided = without + request.guidance[0] * (with_text - without)
        options = {"generator": generator} if "Ancestral" in type(scheduler).__name__ else {}
        latents = scheduler.step(guided, timestep, latents, **options).prev_sample
    return latents


def with_levels(scheduler: Any, levels: Levels) -> Any:
    """The scheduler at other noise levels than it would choose itself."""
    scheduler.set_timesteps(len(levels.timesteps))
    scheduler.timesteps = torch.tensor(levels.timesteps).round().long()
    scheduler.sigmas = torch.tensor(levels.sigmas)
    return scheduler


def stepped(values: Sequence[float]) -> list[float]:
    """Differences of neighbours."""
    return [second - first for first, second in pairwise(values)]
