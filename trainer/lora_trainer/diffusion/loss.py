"""The training objective. Pure; used by the loop."""

from torch import Tensor


def epsilon_loss(prediction: Tensor, noise: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean squared error on the noise, a scalar in fp32.

    The simple objective of Ho et al. 2020 (equation 14), https://arxiv.org/abs/2006.11239: mean over (C, h, w)
    per sample, times its weight, mean over the batch (not divided by the weights, as in sd-scripts).

    Args:
        prediction: (B, C, h, w) what the model says the noise is.
        noise: (B, C, h, w) what it was.
        weights: (B,) factor of each sample.
    """
    per_sample = (prediction.float() - noise.float()).square().mean(dim=(1, 2, 3))  # (B,)
    return (per_sample * weights).mean()
