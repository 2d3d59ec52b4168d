"""Distances between prediction and target, and what a timestep's distance counts. Pure; used by the objective."""

import math

import torch
from torch import Tensor

from lora_api.model_spec import Prediction
from lora_api.training_spec import Loss
from lora_trainer.diffusion.noise import NoiseSchedule

_HUBER_C = 0.1
_LARGEST_SNR = 1000.0
"""The first timesteps have next to no noise; weights do not follow their SNR any further."""


def distance(prediction: Tensor, target: Tensor, loss: Loss, *, thresholds: Tensor) -> Tensor:
    """(B, C, h, w) fp32 distance of each element, of the kind `loss.type`.

    With d = prediction - target: `l2` d^2, `l1` |d|, and with s = sqrt(d^2 + c^2) - c the pseudo-Huber losses
    `huber` 2 c s and `smooth_l1` 2 s (Charbonnier et al. 1997, https://doi.org/10.1109/83.551699).

    Args:
        prediction: (B, C, h, w) what the model says.
        target: (B, C, h, w) what it should say.
        loss: the kind of distance.
        thresholds: (B,) c of each sample; read by the Huber losses only.
    """
    difference = prediction.float() - target.float()
    if loss.type == "l2":
        return difference.square()
    if loss.type == "l1":
        return difference.abs()
    c = thresholds.view(-1, 1, 1, 1)
    squares = difference.square()
    # Equal to sqrt(d^2 + c^2) - c, without the loss of digits where d is much smaller than c.
    soft = squares / ((squares + c.square()).sqrt() + c)
    return 2 * soft * c if loss.type == "huber" else 2 * soft


def huber_thresholds(schedule: NoiseSchedule, loss: Loss) -> Tensor:
    """(T,) fp32: where the Huber losses turn from squared to linear at each timestep.

    `constant`: c; `exponential`: c^(t / T); `snr`: (1 - c) / (1 + sigma)^2 + c, with sigma of `schedule`. The first
    two times `huberScale`. Khrapov et al. 2024, https://arxiv.org/abs/2403.16728.
    """
    c = _HUBER_C if loss.huber_c is None else loss.huber_c
    scale = 1.0 if loss.huber_scale is None else loss.huber_scale
    match loss.huber_schedule:
        case "constant":
            thresholds = torch.full((schedule.timesteps,), c * scale, dtype=torch.float64)
        case "exponential":
            times = torch.arange(schedule.timesteps, dtype=torch.float64)
            thresholds = (times * math.log(c) / schedule.timesteps).exp() * scale
        case _:
            thresholds = (1 - c) / (1 + schedule.sigmas.double()).square() + c
    return thresholds.float()


def timestep_weights(schedule: NoiseSchedule, prediction: Prediction, loss: Loss) -> Tensor:
    """(T,) fp32: factor on the loss of each timestep, the product of all weightings that are set.

    With S the SNR of `schedule`, S' = min(S, 1000), and g = minSnrGamma:

    - min-SNR: min(S, g) / S for noise, where S = 0 its limit 1; min(S, g) / (S + 1) for v
      (Hang et al. 2023, https://arxiv.org/abs/2303.09556);
    - scaleVPredictionLikeNoise: S' / (S' + 1);
    - vPredictionLikeLoss w: 1 + w (S' + 1) / S';
    - debiased estimation: 1 / sqrt(S') for noise (Yu et al. 2023, https://arxiv.org/abs/2310.08442),
      1 / (S' + 1) for v.

    Args:
        schedule: the model's own, also where the training uses it rescaled to zero terminal SNR.
        prediction: what the model predicts.
        loss: which weightings.
    """
    snr = schedule.snr.double()
    bounded = snr.clamp(max=_LARGEST_SNR)
    weights = torch.ones_like(snr)
    if loss.min_snr_gamma is not None:
        gamma = torch.full_like(snr, loss.min_snr_gamma)
        weights *= (gamma / snr).clamp(max=1) if prediction == "epsilon" else snr.minimum(gamma) / (snr + 1)
    if loss.scale_v_prediction_like_noise:
        weights *= bounded / (bounded + 1)
    if loss.v_prediction_like_loss is not None:
        weights *= 1 + loss.v_prediction_like_loss * (bounded + 1) / bounded
    if loss.debiased_estimation:
        weights *= bounded.rsqrt() if prediction == "epsilon" else 1 / (bounded + 1)
    return weights.float()
