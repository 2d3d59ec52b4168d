"""The forward process: how much noise a timestep means, kinds of noise, noisy latents. Pure.

Used by the objective and the sampling. Ho et al. 2020, Denoising Diffusion Probabilistic Models,
https://arxiv.org/abs/2006.11239. B is the batch, C the channels of a latent, h and w its sides, T the timesteps.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from lora_trainer.errors import BaseModelUnavailable
from lora_trainer.transfer import to_device


@dataclass(frozen=True)
class NoiseSchedule:
    """The cumulative signal share of every timestep."""

    alphas_cumprod: Tensor
    """(T,) fp32 on the CPU: the share of variance that is still signal at each timestep; the last may be 0."""

    @property
    def timesteps(self) -> int:
        """Number of timesteps T."""
        return len(self.alphas_cumprod)

    @property
    def snr(self) -> Tensor:
        """(T,) signal-to-noise ratio of each timestep, abar / (1 - abar)."""
        return self.alphas_cumprod / (1 - self.alphas_cumprod)

    @property
    def sigmas(self) -> Tensor:
        """(T,) noise-to-signal ratio of each timestep, sqrt((1 - abar) / abar); infinite where abar is 0."""
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


def rescale_zero_terminal(schedule: NoiseSchedule) -> NoiseSchedule:
    """The schedule shifted and scaled in sqrt(abar), so that it ends in pure noise and begins as before.

    Lin et al. 2023, algorithm 1, https://arxiv.org/abs/2305.08891.
    """
    roots = schedule.alphas_cumprod.double().sqrt()
    first, last = roots[0], roots[-1]
    return NoiseSchedule(((roots - last) * first / (first - last)).square().float())


def add_noise(latents: Tensor, noise: Tensor, signal: Tensor) -> Tensor:
    """x_t = sqrt(abar) x_0 + sqrt(1 - abar) eps (equation 4) for `signal` = abar (B,), latents (B, C, h, w)."""
    share = signal.view(-1, 1, 1, 1)
    return share.sqrt() * latents + (1 - share).sqrt() * noise


def velocity(latents: Tensor, noise: Tensor, signal: Tensor) -> Tensor:
    """v = sqrt(abar) eps - sqrt(1 - abar) x_0 for `signal` = abar (B,), latents (B, C, h, w).

    Salimans and Ho 2022, appendix D, https://arxiv.org/abs/2202.00512.
    """
    share = signal.view(-1, 1, 1, 1)
    return share.sqrt() * noise - (1 - share).sqrt() * latents


def normal(shape: Sequence[int], like: Tensor, *, generator: torch.Generator) -> Tensor:
    """Standard normal numbers, drawn in fp32 on the CPU, on the device of `like`."""
    return to_device(torch.randn(tuple(shape), generator=generator), like.device)


def strength(largest: float, *, drawn: bool, generator: torch.Generator) -> float | Tensor:
    """`largest`, or if `drawn` a scalar uniform in [0, largest), on the CPU."""
    return torch.rand((), generator=generator) * largest if drawn else largest


def offset_strength(latents: Tensor, base: float | Tensor, *, adaptive_scale: float) -> Tensor:
    """(B, C, 1, 1) strength of the noise offset: `base` plus `adaptive_scale` times the size of the latent's mean.

    Below 0 it is 0: a negative strength would be the positive one with another draw.
    """
    means = latents.mean(dim=(2, 3), keepdim=True).abs()
    return (base + adaptive_scale * means).clamp(min=0)


def add_offset(noise: Tensor, by: float | Tensor, *, generator: torch.Generator) -> Tensor:
    """Noise (B, C, h, w) plus a normal constant of strength `by` in each channel of each sample.

    Guttenberg 2023, https://www.crosslabs.org/blog/diffusion-with-offset-noise.
    """
    return noise + by * normal((*noise.shape[:2], 1, 1), noise, generator=generator)


def add_pyramid(noise: Tensor, *, levels: int, discount: float, generator: torch.Generator) -> Tensor:
    """Noise (B, C, h, w) plus ever coarser noise, level i times discount^i, brought back to a variance of 1.

    Level i is 2 to 4 times smaller per level (drawn), at least one cell, and enlarged bilinearly; the first level
    with a side of one cell is the last. Whitaker 2023,
    https://wandb.ai/johnowhitaker/multires_noise/reports/Multi-Resolution-Noise-for-Diffusion-Model-Training--VmlldzozNjYyOTU2
    """
    sides = noise.shape[2:]
    ratios = (2 + 2 * torch.rand(levels, generator=generator)).tolist()
    for level, ratio in enumerate(ratios):
        small = [max(1, int(side / ratio**level)) for side in sides]
        coarse = normal((*noise.shape[:2], *small), noise, generator=generator)
        noise = noise + functional.interpolate(coarse, size=sides, mode="bilinear") * discount**level
        if 1 in small:
            break
    return noise / noise.std()
