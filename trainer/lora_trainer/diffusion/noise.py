"""The forward process: how much noise a timestep means, and noisy latents. Pure; used by the loop and the sampling.

Ho et al. 2020, Denoising Diffusion Probabilistic Models, https://arxiv.org/abs/2006.11239.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from lora_trainer.errors import BaseModelUnavailable
from lora_trainer.rng import Purpose, generator


@dataclass(frozen=True)
class NoiseSchedule:
    """The cumulative signal share of every timestep."""

    alphas_cumprod: Tensor
    """(T,) fp32 on the CPU: the share of variance that is still signal at each timestep."""

    @property
    def timesteps(self) -> int:
        """Number of timesteps T."""
        return len(self.alphas_cumprod)

    @property
    def sigmas(self) -> Tensor:
        """(T,) noise-to-signal ratio of each timestep, sqrt((1 - abar) / abar)."""
        return ((1 - self.alphas_cumprod) / self.alphas_cumprod).sqrt()


def make_schedule(start: float, end: float, *, steps: int = 1000, name: str = "scaled_linear") -> NoiseSchedule:
    """The schedule with variances from `start` to `end`; `scaled_linear` is linear in their square roots.

    Raises:
        BaseModelUnavailable: the model was trained with a schedule of another name.
    """
    match name:
        case "scaled_linear":
            betas = torch.linspace(start**0.5, end**0.5, steps, dtype=torch.float64) ** 2
        case "linear":
            betas = torch.linspace(start, end, steps, dtype=torch.float64)
        case _:
            raise BaseModelUnavailable(
                f"spec.baseModel.uri: beta_schedule {name} is unknown; scaled_linear and linear are supported"
            )
    return NoiseSchedule(torch.cumprod(1 - betas, dim=0).float())


@dataclass(frozen=True)
class Draw:
    """What is random in one forward pass."""

    noise: Tensor
    """(B, C, h, w) standard normal."""
    timesteps: Tensor
    """(B,) int64, uniform over all timesteps."""


def draw(shape: torch.Size, schedule: NoiseSchedule, *, seed: int, step: int, micro: int) -> Draw:
    """Noise of `shape` (B, C, h, w) and timesteps, a function of the seed, the step and the batch within it."""
    noise = torch.randn(shape, generator=generator(seed, Purpose.NOISE, step, micro))
    random = generator(seed, Purpose.TIMESTEP, step, micro)
    return Draw(noise, torch.randint(schedule.timesteps, shape[:1], generator=random))


def add_noise(latents: Tensor, noise: Tensor, signal: Tensor) -> Tensor:
    """x_t = sqrt(abar) x_0 + sqrt(1 - abar) eps (equation 4) for `signal` = abar (B,), latents (B, C, h, w)."""
    share = signal.view(-1, 1, 1, 1)
    return share.sqrt() * latents + (1 - share).sqrt() * noise
