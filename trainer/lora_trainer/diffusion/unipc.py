"""UniPC of third order, multistep: each step corrects the one before with the model's new answer; used by `samplers`.

Zhao et al. 2023, https://arxiv.org/abs/2302.04867, algorithms 1 and 2 for a model that predicts the picture, with
B(h) = h ("bh1", the WebUI's default as is the third order; diffusers' defaults are "bh2" and the second), in the
coordinates x = x_0 + sigma * noise and lambda = -log(sigma). The first and last steps are of lower order, and the last
one is not corrected.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
from torch import Tensor

_ORDER = 3


class UniPC:
    """Predicts from the model's last three answers, and corrects with the next one."""

    def __init__(self, sigmas: Sequence[float], noise: Callable[[], Tensor]) -> None:
        """`sigmas` must be above 0."""
        self._lambdas = [-math.log(sigma) for sigma in sigmas]
        self._answers: list[Tensor] = []
        self._begun_at: Tensor | None = None
        self._order = 0

    def step(self, place: int, latents: Tensor, denoised: Tensor) -> Tensor:
        """Latents (B, C, h, w) of the next level; `denoised` is what the model makes of them at level `place`."""
        if self._begun_at is not None:
            latents = self._advance(place - 1, self._begun_at, corrected_by=denoised)
        self._answers = [*self._answers, denoised][-_ORDER:]
        self._begun_at = latents
        self._order = min(_ORDER, place + 1, len(self._lambdas) - 1 - place)
        return self._advance(place, latents)

    def _advance(self, place: int, latents: Tensor, *, corrected_by: Tensor | None = None) -> Tensor:
        """From level `place`, whose answer is the newest, to the next; with that level's answer, if it is known."""
        here, h = self._lambdas[place], self._lambdas[place + 1] - self._lambdas[place]
        newest, older = self._answers[-1], self._answers[-2::-1][: self._order - 1]
        ratios = [(self._lambdas[place - back] - here) / h for back in range(1, len(older) + 1)]
        if corrected_by is not None:
            ratios, older = [*ratios, 1.0], [*older, corrected_by]
        advanced = math.exp(-h) * latents - math.expm1(-h) * newest
        for weight, ratio, answer in zip(_weights(ratios, h), ratios, older, strict=True):
            advanced = advanced + (h * weight / ratio) * (answer - newest)
        return advanced


def _weights(ratios: Sequence[float], h: float) -> list[float]:
    """a with sum_m a_m r_m^(n-1) = n! phi_(n+1)(-h) for n = 1..len(r); a single one is 1/2, as the paper proposes.

    phi_1(z) = (e^z - 1) / z and phi_(n+1)(z) = (phi_n(z) - 1 / n!) / z.
    """
    if len(ratios) < 2:
        return [0.5] * len(ratios)
    phi, wanted = math.expm1(-h) / -h, []
    for n in range(1, len(ratios) + 1):
        phi = (phi - 1 / math.factorial(n)) / -h
        wanted.append(math.factorial(n) * phi)
    powers = np.vander(ratios, increasing=True).T
    return [float(weight) for weight in np.linalg.solve(powers, wanted)]
