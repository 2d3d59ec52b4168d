"""Euler's steps from noise to picture, plain and ancestral; used by `samplers`.

Latents are x = x_0 + sigma * noise. Karras et al. 2022, https://arxiv.org/abs/2206.00364, algorithm 1 without churn.
In these coordinates DDIM without noise is the same step: Song et al. 2021, https://arxiv.org/abs/2010.02502,
equation 14.
"""

from collections.abc import Callable, Sequence

from torch import Tensor


class Euler:
    """A straight line along the slope at each level."""

    def __init__(self, sigmas: Sequence[float], noise: Callable[[], Tensor]) -> None:
        self._sigmas = sigmas

    def step(self, place: int, latents: Tensor, denoised: Tensor) -> Tensor:
        """Latents (B, C, h, w) of the next level; `denoised` is what the model makes of them at level `place`."""
        return _line(latents, denoised, sigma=self._sigmas[place], target=self._sigmas[place + 1])


class EulerAncestral:
    """Goes further down than the next level, and back up to it with fresh noise: k-diffusion's "Euler a"."""

    def __init__(self, sigmas: Sequence[float], noise: Callable[[], Tensor]) -> None:
        self._sigmas, self._noise = sigmas, noise

    def step(self, place: int, latents: Tensor, denoised: Tensor) -> Tensor:
        """Latents (B, C, h, w) of the next level; `denoised` is what the model makes of them at level `place`."""
        sigma, target = self._sigmas[place], self._sigmas[place + 1]
        up, down = _ancestral_split(sigma, target)
        return _line(latents, denoised, sigma=sigma, target=down) + self._noise() * up


def _line(latents: Tensor, denoised: Tensor, *, sigma: float, target: float) -> Tensor:
    return latents + (latents - denoised) / sigma * (target - sigma)


def _ancestral_split(sigma: float, target: float) -> tuple[float, float]:
    """(fresh noise, deterministic part) whose squares add up to target squared."""
    up = (target**2 * (sigma**2 - target**2) / sigma**2) ** 0.5
    return up, (target**2 - up**2) ** 0.5
