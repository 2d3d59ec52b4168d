"""Distances and weights of timesteps against sd-scripts' numbers and float64 formulas."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from lora_api.model_spec import Prediction
from lora_api.training_spec import Loss
from lora_trainer.diffusion.loss import distance, huber_thresholds, timestep_weights
from lora_trainer.diffusion.noise import NoiseSchedule, make_schedule, rescale_zero_terminal
from tests.support import reference_loop

SCHEDULE = make_schedule(0.00085, 0.012)
SHOWN = [0, 100, 500, 900, 999]
SHARES = np.array(reference_loop.signal_shares())
SNR = SHARES / (1 - SHARES)


def loss_of(**fields: Any) -> Loss:
    return Loss.model_validate(fields)


@pytest.mark.parametrize(
    ("kind", "formula"),
    [
        ("l2", lambda d, c: d**2),
        ("l1", lambda d, c: np.abs(d)),
        ("huber", lambda d, c: 2 * c * (np.sqrt(d**2 + c**2) - c)),
        ("smooth_l1", lambda d, c: 2 * (np.sqrt(d**2 + c**2) - c)),
    ],
)
def test_a_distance_is_its_formula(kind: str, formula: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> None:
    random = np.random.default_rng(0)
    prediction, target = random.normal(size=(2, 3, 4, 5, 6)).astype(np.float32)
    c = np.array([0.05, 0.3, 1.7], dtype=np.float32)
    expected = formula(prediction.astype(float) - target, c.astype(float)[:, None, None, None])

    tensors = torch.from_numpy(prediction), torch.from_numpy(target)
    found = distance(*tensors, loss_of(type=kind), thresholds=torch.from_numpy(c))

    np.testing.assert_allclose(found.numpy(), expected, rtol=2e-6, atol=1e-7)


def test_a_small_difference_is_not_lost_in_a_huber_loss() -> None:
    """sqrt(d^2 + c^2) - c is 0 in fp32 here; the loss is d^2."""
    prediction, target = torch.full((1, 1, 1, 1), 1e-5), torch.zeros(1, 1, 1, 1)

    found = distance(prediction, target, loss_of(type="huber"), thresholds=torch.ones(1))

    assert found.item() == pytest.approx(1e-10, rel=1e-5)


@pytest.mark.parametrize("kind", ["l2", "l1", "huber", "smooth_l1"])
def test_the_distance_of_a_half_precision_prediction_is_fp32(kind: str) -> None:
    half = torch.ones(1, 1, 2, 2, dtype=torch.bfloat16)

    assert distance(half, half, loss_of(type=kind), thresholds=torch.ones(1)).dtype == torch.float32


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("snr", [0.949709, 0.598297, 0.231284, 0.110302, 0.103691]),
        ("exponential", [1.0, 0.794328, 0.316228, 0.125893, 0.100231]),
        ("constant", [0.1] * 5),
    ],
)
def test_huber_thresholds_are_those_of_sd_scripts(schedule: str, expected: list[float]) -> None:
    loss = loss_of(type="huber", huberSchedule=schedule)

    assert huber_thresholds(SCHEDULE, loss)[SHOWN].tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("fields", "formula"),
    [
        ({"huberC": 0.4}, lambda t: 0.6 / (1 + np.sqrt(1 / SNR[t])) ** 2 + 0.4),
        ({"huberC": 0.4, "huberSchedule": "exponential", "huberScale": 2.0}, lambda t: 2 * 0.4 ** (t / 1000)),
        ({"huberC": 0.4, "huberSchedule": "constant", "huberScale": 2.0}, lambda t: 0.8 + 0 * t),
    ],
)
def test_huber_thresholds_are_their_formula(
    fields: dict[str, Any], formula: Callable[[np.ndarray], np.ndarray]
) -> None:
    found = huber_thresholds(SCHEDULE, loss_of(type="huber", **fields))

    np.testing.assert_allclose(found.numpy(), formula(np.arange(1000)), rtol=1e-5)


def test_huber_thresholds_are_defaults_when_nothing_is_said() -> None:
    spelled_out = loss_of(type="smooth_l1", huberC=0.1, huberSchedule="snr")

    assert huber_thresholds(SCHEDULE, loss_of(type="smooth_l1")).equal(huber_thresholds(SCHEDULE, spelled_out))


def test_the_huber_threshold_of_pure_noise_is_the_smallest() -> None:
    thresholds = huber_thresholds(rescale_zero_terminal(SCHEDULE), loss_of(type="huber"))

    assert thresholds[-1].item() == pytest.approx(0.1)
    assert thresholds.isfinite().all()


@pytest.mark.parametrize(
    ("prediction", "fields", "expected"),
    [
        ("epsilon", {}, [1.0] * 5),
        ("epsilon", {"minSnrGamma": 5.0}, [0.004254, 0.591446, 1.0, 1.0, 1.0]),
        ("v_prediction", {"minSnrGamma": 5.0}, [0.00425, 0.528884, 0.276332, 0.014151, 0.00466]),
        ("epsilon", {"debiasedEstimation": True}, [0.031623, 0.343932, 1.61828, 8.3466, 14.6146]),
    ],
)
def test_weights_are_those_of_sd_scripts(prediction: Prediction, fields: dict[str, Any], expected: list[float]) -> None:
    found = timestep_weights(SCHEDULE, prediction, loss_of(**fields))[SHOWN].tolist()

    assert found == pytest.approx(expected, rel=5e-6, abs=1e-6)


BOUNDED = np.minimum(SNR, 1000)


@pytest.mark.parametrize(
    ("prediction", "fields", "formula"),
    [
        ("epsilon", {"minSnrGamma": 2.0}, np.minimum(SNR, 2) / SNR),
        ("v_prediction", {"minSnrGamma": 2.0}, np.minimum(SNR, 2) / (SNR + 1)),
        ("epsilon", {"debiasedEstimation": True}, 1 / np.sqrt(BOUNDED)),
        ("v_prediction", {"debiasedEstimation": True}, 1 / (BOUNDED + 1)),
        ("v_prediction", {"scaleVPredictionLikeNoise": True}, BOUNDED / (BOUNDED + 1)),
        ("epsilon", {"vPredictionLikeLoss": 0.5}, 1 + 0.5 * (BOUNDED + 1) / BOUNDED),
        (
            "v_prediction",
            {"minSnrGamma": 5.0, "scaleVPredictionLikeNoise": True},
            np.minimum(SNR, 5) / (SNR + 1) * BOUNDED / (BOUNDED + 1),
        ),
        (
            "epsilon",
            {"minSnrGamma": 5.0, "vPredictionLikeLoss": 0.5},
            np.minimum(SNR, 5) / SNR * (1 + 0.5 * (BOUNDED + 1) / BOUNDED),
        ),
    ],
)
def test_weights_that_are_set_are_multiplied(
    prediction: Prediction, fields: dict[str, Any], formula: np.ndarray
) -> None:
    found = timestep_weights(SCHEDULE, prediction, loss_of(**fields))

    np.testing.assert_allclose(found.numpy(), formula, rtol=2e-4)


@pytest.mark.parametrize(("prediction", "expected"), [("epsilon", 1.0), ("v_prediction", 0.0)])
def test_min_snr_weighs_pure_noise_by_its_limit(prediction: Prediction, expected: float) -> None:
    weights = timestep_weights(NoiseSchedule(torch.tensor([0.5, 0.0])), prediction, loss_of(minSnrGamma=5.0))

    assert weights[1].item() == expected
