"""DPM-Solver++ of second order, multistep: the WebUI's "DPM++ 2M"; used by `samplers`.

Lu et al. 2022, https://arxiv.org/abs/2211.01095, algorithm 2, in the coordinates x = x_0 + sigma * noise and
lambda = -log(sigma). The first step and a step to no noise are of first order, as in k-diffusion; diffusers also makes
the last of fewer than 15 steps so, which to no noise is the same.
"""

import math
from collections.abc import Callable, Sequence

from torch import Tensor


class DpmSolverPlusPlus2M:
    """Steps that take the model's answer at the level before into account."""

    def __init__(self, sigmas: Sequence[float], noise: Callable[[], Tensor]) -> None:
        self._sigmas = sigmas
        self._before: Tensor | None = None

    def step(self, place: int, latents: Tensor, denoised: Tensor) -> Tensor:
        """Latents (B, C, h, w) of the next level; `denoised` is what the model makes of them at level `place`."""
        before, self._before = self._before, denoised
        sigma, target = self._sigmas[place], self._sigmas[place + 1]
        if target == 0:
            return denoised
        h = math.log(sigma / target)
        if before is not None:
            ratio = math.log(self._sigmas[place - 1] / sigma) / h
            denoised = denoised + (denoised - before) / (2 * ratio)
        return target / sigma * latents - math.expm1(-h) * denoised
