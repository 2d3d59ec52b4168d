"""Noise levels at which a sampler asks the model, as AUTOMATIC1111's WebUI spaces them. Pure; used by `samplers`.

A level is a timestep, which may lie between two of the schedule's, and its sigma, the ratio of noise to signal. Between
two timesteps the logarithm of sigma is interpolated, as k-diffusion does; diffusers interpolates sigma itself, which
differs by less than 1e-4 of it but between the first two timesteps.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lora_trainer.diffusion.noise import NoiseSchedule

_SMALLEST_SIGNAL = 2.0**-24
"""Stands for a signal share of 0, whose sigma would be infinite; diffusers takes the same number."""
_RHO = 7.0
"""How much denser levels lie at low noise; table 1 of Karras et al. 2022."""


@dataclass(frozen=True)
class Levels:
    """Where a sampler goes from noise to picture."""

    timesteps: tuple[float, ...]
    """Descending; the model is asked at each."""
    sigmas: tuple[float, ...]
    """Those of `timesteps`, and the one that the last step ends at: one more."""
    start: float
    """Standard deviation of the noise that a picture begins with."""


def uniform(schedule: NoiseSchedule, steps: int) -> Levels:
    """Timesteps evenly spaced from the last to the first, then no noise: the WebUI's "Uniform" schedule."""
    timesteps = np.linspace(schedule.timesteps - 1, 0, steps)
    return _begun_from_noise(timesteps, [*_sigmas(schedule, timesteps), 0.0])


def karras(schedule: NoiseSchedule, steps: int) -> Levels:
    """Sigmas evenly spaced in their 7th root, then no noise: equation 5 of https://arxiv.org/abs/2206.00364.

    The model is asked at the timesteps between two of the schedule's that these sigmas mean, as k-diffusion does;
    diffusers rounds them.
    """
    table = _log_sigmas(schedule)
    roots = np.linspace(np.exp(table[-1] / _RHO), np.exp(table[0] / _RHO), steps)
    sigmas: NDArray[np.float64] = roots**_RHO
    timesteps = np.interp(np.log(sigmas), table, np.arange(len(table)))
    return _begun_from_noise(timesteps, [*sigmas, 0.0])


def leading(schedule: NoiseSchedule, steps: int) -> Levels:
    """Every k-th timestep from 1 on, k = T // `steps`, as the WebUI takes for DDIM; the last step ends at timestep 1.

    That makes ceil(T / k) - 1 steps, near what `steps` says: 19 for 20, 28 for 28. diffusers makes exactly `steps`, the
    last one to the schedule's first timestep.
    """
    points = _leading_points(schedule, steps)
    timesteps = np.array(points[:0:-1] or [schedule.timesteps - 1.0])  # A single step has but one point.
    sigmas = _sigmas(schedule, np.array([*timesteps, points[0]]))
    return _begun_at_timestep(timesteps, sigmas)


def uniform_to_first(schedule: NoiseSchedule, steps: int) -> Levels:
    """Timesteps evenly spaced from the last to the first, at which the last step ends, as the WebUI takes for UniPC.

    It makes one step more than `leading`. diffusers makes exactly `steps`, rounds the timesteps, and by default goes on
    to no noise.
    """
    timesteps = np.linspace(schedule.timesteps - 1, 0, len(_leading_points(schedule, steps)) + 1)
    return _begun_at_timestep(timesteps[:-1], _sigmas(schedule, timesteps))


def _begun_from_noise(timesteps: Sequence[float] | NDArray[np.float64], sigmas: Sequence[float]) -> Levels:
    """Levels that begin with noise alone, the picture's own share left out, as k-diffusion does."""
    return Levels(_floats(timesteps), _floats(sigmas), float(sigmas[0]))


def _begun_at_timestep(timesteps: NDArray[np.float64], sigmas: NDArray[np.float64]) -> Levels:
    """Levels that begin with noise of the variance that noisy pictures have there."""
    return Levels(_floats(timesteps), _floats(sigmas), float((sigmas[0] ** 2 + 1) ** 0.5))


def _leading_points(schedule: NoiseSchedule, steps: int) -> list[float]:
    last = schedule.timesteps - 1
    return [float(min(point + 1, last)) for point in range(0, schedule.timesteps, max(1, schedule.timesteps // steps))]


def _log_sigmas(schedule: NoiseSchedule) -> NDArray[np.float64]:
    """(T,), ascending and finite."""
    finite = NoiseSchedule(schedule.alphas_cumprod.clamp(min=_SMALLEST_SIGNAL))
    logs: NDArray[np.float64] = finite.sigmas.double().log().numpy()
    return logs


def _sigmas(schedule: NoiseSchedule, timesteps: NDArray[np.float64]) -> NDArray[np.float64]:
    table = _log_sigmas(schedule)
    sigmas: NDArray[np.float64] = np.exp(np.interp(timesteps, np.arange(len(table)), table))
    return sigmas


def _floats(values: Sequence[float] | NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
