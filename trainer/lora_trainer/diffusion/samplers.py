"""The samplers by their WebUI names: at which noise levels each asks the model, and how it steps.

Used by `sampling`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from lora_api.evaluation_spec import Sampler
from lora_trainer.diffusion.dpm_solver import DpmSolverPlusPlus2M
from lora_trainer.diffusion.euler import Euler, EulerAncestral
from lora_trainer.diffusion.levels import Levels, karras, leading, uniform, uniform_to_first
from lora_trainer.diffusion.noise import NoiseSchedule
from lora_trainer.diffusion.unipc import UniPC


class Solver(Protocol):
    """Steps of one drawing, made in their order."""

    def step(self, place: int, latents: Tensor, denoised: Tensor) -> Tensor:
        """Latents (B, C, h, w) of the next level; `denoised` is what the model makes of them at level `place`."""
        ...


@dataclass(frozen=True)
class Method:
    """How a sampler works."""

    levels: Callable[[NoiseSchedule, int], Levels]
    """(schedule, steps) -> where it asks the model."""
    solver: Callable[[Sequence[float], Callable[[], Tensor]], Solver]
    """(sigmas of its levels, fresh noise (B, C, h, w)) -> its steps."""


METHODS: Mapping[Sampler, Method] = {
    "euler_a": Method(uniform, EulerAncestral),
    "euler": Method(uniform, Euler),
    "ddim": Method(leading, Euler),
    "dpmpp_2m": Method(uniform, DpmSolverPlusPlus2M),
    "dpmpp_2m_karras": Method(karras, DpmSolverPlusPlus2M),
    "unipc": Method(uniform_to_first, UniPC),
}
