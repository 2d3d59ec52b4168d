"""The objective against NumPy."""

import numpy as np
import pytest
import torch

from lora_trainer.diffusion.loss import epsilon_loss


def test_the_loss_is_the_mean_over_samples_of_weighted_mean_squares() -> None:
    random = np.random.default_rng(0)
    prediction, noise = random.normal(size=(2, 3, 4, 5, 6))
    weights = np.array([1.0, 0.5, 2.0])
    expected = np.mean([w * np.mean((p - n) ** 2) for p, n, w in zip(prediction, noise, weights, strict=True)])

    loss = epsilon_loss(*(torch.from_numpy(a).float() for a in (prediction, noise, weights)))

    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_the_loss_of_a_half_precision_prediction_is_fp32() -> None:
    prediction = torch.ones(1, 1, 2, 2, dtype=torch.bfloat16)

    assert epsilon_loss(prediction, torch.zeros(1, 1, 2, 2), torch.ones(1)).dtype == torch.float32
