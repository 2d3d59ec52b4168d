"""Training written down once more from the papers, in plain PyTorch: what the per-step losses have to be.

Shares no line with the trainer. Noise, timesteps and data are given; schedule, noisy latents, target, distance,
weights, mean over accumulated batches and update are this module's own.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

Predict = Callable[[Tensor, Tensor, Any], Tensor]
"""(x_t (B, C, h, w), t (B,), the batch's context) -> (B, C, h, w)."""


@dataclass(frozen=True)
class Batch:
    """B samples that go through the model together, with their random numbers."""

    latents: Tensor
    """(B, C, h, w) x_0."""
    noise: Tensor
    """(B, C, h, w) eps of the target."""
    timesteps: Tensor
    """(B,) int64."""
    weights: Tensor
    """(B,)"""
    mask: Tensor | None = None
    """(B, 1, h, w)"""
    perturbation: Tensor | None = None
    """(B, C, h, w) added to the noise of x_t only."""
    context: Any = None
    """What else the model is told."""


@dataclass(frozen=True)
class Recipe:
    """Which formulas are used."""

    v_prediction: bool = False
    zero_terminal: bool = False
    distance: str = "l2"
    huber_c: Callable[[int, float], float] = lambda t, abar: 0.1
    """(timestep, its signal share) -> c."""
    weight: Callable[[float], float] = lambda snr: 1.0
    """SNR of a timestep -> factor on its loss."""


class Update(Protocol):
    """An optimizer: changes parameters by their gradients."""

    def __call__(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> None: ...


def signal_shares(recipe: Recipe = Recipe()) -> list[float]:
    """abar of Stable Diffusion's 1000 timesteps, as products; at zero terminal SNR shifted and scaled (Lin 2023)."""
    low, high = math.sqrt(0.00085), math.sqrt(0.012)
    shares, share = [], 1.0
    for t in range(1000):
        share *= 1 - (low + (high - low) * t / 999) ** 2
        shares.append(share)
    if not recipe.zero_terminal:
        return shares
    roots = [math.sqrt(one) for one in shares]
    return [((root - roots[-1]) * roots[0] / (roots[0] - roots[-1])) ** 2 for root in roots]


def loss(predict: Predict, batch: Batch, recipe: Recipe) -> Tensor:
    """The loss of a batch, sample by sample."""
    plain, used = signal_shares(), signal_shares(recipe)
    times = batch.timesteps.tolist()
    root_signal = torch.tensor([math.sqrt(used[t]) for t in times])[:, None, None, None]
    root_noise = torch.tensor([math.sqrt(1 - used[t]) for t in times])[:, None, None, None]
    added = batch.noise if batch.perturbation is None else batch.noise + batch.perturbation
    predictions = predict(root_signal * batch.latents + root_noise * added, batch.timesteps, batch.context)
    velocities = root_signal * batch.noise - root_noise * batch.latents
    targets = velocities if recipe.v_prediction else batch.noise
    losses = []
    for place, t in enumerate(times):
        elements = _distance(predictions[place] - targets[place], recipe, recipe.huber_c(t, used[t]))
        if batch.mask is not None:
            elements = elements * batch.mask[place]
        factor = float(batch.weights[place]) * recipe.weight(plain[t] / (1 - plain[t]))
        losses.append(elements.sum() / elements.numel() * factor)
    return sum(losses[1:], losses[0]) / len(losses)


def train(
    predict: Predict, parameters: Iterable[Tensor], steps: Iterable[Sequence[Batch]], recipe: Recipe, *, update: Update
) -> list[float]:
    """The loss of each step, a step being batches whose mean loss makes one update of `parameters`."""
    live, losses = list(parameters), []
    for batches in steps:
        total = torch.stack([loss(predict, batch, recipe) for batch in batches]).mean()
        update(live, torch.autograd.grad(total, live, allow_unused=True))
        losses.append(float(total.detach()))
    return losses


class AdamW:
    """Adam with decoupled weight decay, Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101, algorithm 2."""

    def __init__(self, rate: Callable[[int], float], *, weight_decay: float = 0.01) -> None:
        """Takes the learning rate of each step (from 0)."""
        self._rate, self._decay, self._made = rate, weight_decay, 0
        self._moments: dict[int, tuple[Tensor, Tensor]] = {}

    @torch.no_grad()
    def __call__(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> None:
        rate = self._rate(self._made)
        self._made += 1
        for place, (parameter, gradient) in enumerate(zip(parameters, gradients, strict=True)):
            if gradient is None:
                continue
            zeros = torch.zeros_like(parameter)
            first, second = self._moments.get(place, (zeros, zeros))
            first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
            self._moments[place] = (first, second)
            mean, square = first / (1 - 0.9**self._made), second / (1 - 0.999**self._made)
            parameter.mul_(1 - rate * self._decay).sub_(rate * mean / (square.sqrt() + 1e-8))


def _distance(difference: Tensor, recipe: Recipe, c: float) -> Tensor:
    match recipe.distance:
        case "l2":
            return difference**2
        case "l1":
            return difference.abs()
        case "huber":
            return 2 * c * ((difference**2 + c**2) ** 0.5 - c)
        case "smooth_l1":
            return 2 * ((difference**2 + c**2) ** 0.5 - c)
    raise ValueError(f"unknown distance {recipe.distance}")
