"""What the model is trained to say: noise, target and loss as `spec.training.loss` asks. Used by `loop`.

Random numbers are functions of (seed, step, batch of the step) and are drawn on the CPU. Nothing here waits for
the device, and no shape depends on a drawn number.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from lora_api.model_spec import Prediction
from lora_api.training_spec import Loss
from lora_trainer.diffusion.loss import distance, huber_thresholds, timestep_weights
from lora_trainer.diffusion.noise import (
    NoiseSchedule,
    add_noise,
    add_offset,
    add_pyramid,
    normal,
    offset_strength,
    rescale_zero_terminal,
    strength,
    velocity,
)
from lora_trainer.errors import InvalidConfiguration
from lora_trainer.generators import generator
from lora_trainer.rng import Purpose
from lora_trainer.transfer import to_device

_MULTIRES_DISCOUNT = 0.3


@dataclass(frozen=True)
class Draw:
    """What is random in one forward pass, on the latents' device."""

    noise: Tensor
    """(B, C, h, w) fp32: the noise that the target is made of."""
    perturbed: Tensor | None
    """(B, C, h, w) fp32: the noise that is added to the latents, where it is another one."""
    timesteps: Tensor
    """(B,) int64."""

    def rows(self, rows: slice) -> "Draw":
        """That of some of the examples."""
        perturbed = None if self.perturbed is None else self.perturbed[rows]
        return Draw(self.noise[rows], perturbed, self.timesteps[rows])


class Objective:
    """The forward process and the loss of a run; holds tables over the timesteps, and nothing that changes."""

    def __init__(self, schedule: NoiseSchedule, prediction: Prediction, loss: Loss) -> None:
        """Takes the schedule and the prediction of the base model. Raises InvalidConfiguration as `check` does."""
        check(prediction, loss)
        self.schedule = rescale_zero_terminal(schedule) if loss.zero_terminal_snr else schedule
        """The forward process in use, which pictures have to be drawn with too."""
        self._prediction, self._loss = prediction, loss
        self._range = _timestep_range(schedule, loss)
        self._weights = timestep_weights(schedule, prediction, loss)
        self._thresholds = huber_thresholds(self.schedule, loss)

    @property
    def timesteps(self) -> tuple[int, int]:
        """First timestep that is trained, and the one after the last."""
        return self._range

    def draw(self, latents: Tensor, *, seed: int, step: int, micro: int) -> Draw:
        """Noise and timesteps for `latents` (B, C, h, w), batch `micro` of the step.

        Of the latents only the shape matters, and with `adaptiveNoiseScale` the means.
        """
        place = (seed, step, micro)
        noise = self._noise(latents, place)
        perturbed = self._perturbed(noise, place)
        low, high = self._range
        timesteps = torch.randint(low, high, latents.shape[:1], generator=_random(Purpose.TIMESTEP, place))
        return Draw(noise, perturbed, to_device(timesteps, latents.device))

    def noisy(self, latents: Tensor, draw: Draw) -> Tensor:
        """Latents (B, C, h, w) with noise, as the model gets them."""
        noise = draw.noise if draw.perturbed is None else draw.perturbed
        return add_noise(latents, noise, _at(self.schedule.alphas_cumprod, draw.timesteps))

    def target(self, latents: Tensor, draw: Draw) -> Tensor:
        """The noise, or for v-prediction v (B, C, h, w); made of the unperturbed noise."""
        if self._prediction == "epsilon":
            return draw.noise
        return velocity(latents, draw.noise, _at(self.schedule.alphas_cumprod, draw.timesteps))

    def loss(
        self, prediction: Tensor, target: Tensor, draw: Draw, *, weights: Tensor, masks: Tensor | None = None
    ) -> Tensor:
        """The loss of a batch, a scalar in fp32.

        The distance of each element times its mask, mean over (C, h, w) per sample, times its weight and that of
        its timestep, mean over the batch. Neither the masks' area nor the weights are divided out again.

        Args:
            prediction: (B, C, h, w) what the model said.
            target: (B, C, h, w) as `target` gives it.
            draw: the random numbers of this batch.
            weights: (B,) factor of each sample.
            masks: (B, 1, h, w) in 0..1: how much each place counts.
        """
        thresholds = _at(self._thresholds, draw.timesteps)
        distances = distance(prediction, target, self._loss, thresholds=thresholds)
        if masks is not None:
            distances = distances * masks
        per_sample = distances.mean(dim=(1, 2, 3))  # (B,)
        return (per_sample * weights * _at(self._weights, draw.timesteps)).mean()

    def _noise(self, latents: Tensor, place: tuple[int, int, int]) -> Tensor:
        loss = self._loss
        noise = normal(latents.shape, latents, generator=_random(Purpose.NOISE, place))
        if loss.noise_offset is not None:
            random = _random(Purpose.NOISE_OFFSET, place)
            by = strength(loss.noise_offset, drawn=loss.noise_offset_random_strength, generator=random)
            if loss.adaptive_noise_scale is not None:
                by = offset_strength(latents, by, adaptive_scale=loss.adaptive_noise_scale)
            noise = add_offset(noise, by, generator=random)
        if loss.multires_noise_iterations is not None:
            discount = _MULTIRES_DISCOUNT if loss.multires_noise_discount is None else loss.multires_noise_discount
            random = _random(Purpose.MULTIRES_NOISE, place)
            noise = add_pyramid(noise, levels=loss.multires_noise_iterations, discount=discount, generator=random)
        return noise

    def _perturbed(self, noise: Tensor, place: tuple[int, int, int]) -> Tensor | None:
        """Ning et al. 2023, Input Perturbation Reduces Exposure Bias, https://arxiv.org/abs/2301.11706."""
        gamma = self._loss.ip_noise_gamma
        if gamma is None:
            return None
        random = _random(Purpose.PERTURBATION, place)
        by = strength(gamma, drawn=self._loss.ip_noise_gamma_random_strength, generator=random)
        return noise + by * normal(noise.shape, noise, generator=random)


def check(prediction: Prediction, loss: Loss) -> None:
    """Refuses what the model's prediction gives no meaning.

    Raises:
        InvalidConfiguration: names the field and the cure.
    """
    for_v_only = {
        "zeroTerminalSnr": loss.zero_terminal_snr,
        "scaleVPredictionLikeNoise": loss.scale_v_prediction_like_noise,
    }
    wrong = [name for name, is_set in for_v_only.items() if is_set and prediction == "epsilon"]
    if wrong:
        raise InvalidConfiguration(
            f"spec.training.loss.{wrong[0]} is true, but the base model predicts noise (epsilon) and not v; "
            "remove it, or name a v-prediction model in spec.baseModel.uri"
        )
    if loss.v_prediction_like_loss is not None and prediction == "v_prediction":
        raise InvalidConfiguration(
            f"spec.training.loss.vPredictionLikeLoss is {loss.v_prediction_like_loss:g}, but the base model predicts "
            "v already; remove it, or name an epsilon model in spec.baseModel.uri"
        )


def _timestep_range(schedule: NoiseSchedule, loss: Loss) -> tuple[int, int]:
    high = min(loss.max_timestep, schedule.timesteps)
    if loss.min_timestep >= high:
        raise InvalidConfiguration(
            f"spec.training.loss.minTimestep is {loss.min_timestep}, but the base model has only "
            f"{schedule.timesteps} timesteps; lower it"
        )
    return loss.min_timestep, high


def _random(purpose: Purpose, place: tuple[int, int, int]) -> torch.Generator:
    seed, step, micro = place
    return generator(seed, purpose, step, micro)


def _at(table: Tensor, timesteps: Tensor) -> Tensor:
    """(B,) entries of a (T,) table on the CPU, on the timesteps' device; waits for nothing."""
    return to_device(table, timesteps.device)[timesteps]
