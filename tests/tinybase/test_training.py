"""The training stages: schedules, losses and averages against their formulas; checkpoints that survive."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from lora_tinybase import autoencoder_training, drawings, model, text_training, tokenizer, unet_training
from lora_tinybase.latents import LatentSet
from lora_tinybase.progress import Checkpoint, set_cosine_rate


@pytest.fixture
def optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)


# Warm-up takes 5 of 100 steps, so the first runs at a fifth of the peak.
@pytest.mark.parametrize(("step", "rate"), [(0, 0.2), (50, 0.5), (75, 0.5 * (1 - math.sqrt(0.5)))])
def test_cosine_rate_warms_up_and_falls(optimizer: torch.optim.Optimizer, step: int, rate: float) -> None:
    set_cosine_rate(optimizer, step, steps=100, peak=1.0)

    assert optimizer.param_groups[0]["lr"] == pytest.approx(rate)


def test_checkpoint_gives_back_step_and_parts(tmp_path: Path) -> None:
    saved, loaded = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    Checkpoint(tmp_path / "part.pt").save(7, {"model": saved})

    step = Checkpoint(tmp_path / "part.pt").restore({"model": loaded})

    assert step == 7
    assert torch.equal(saved.weight, loaded.weight)


def test_without_a_file_training_starts_at_zero(tmp_path: Path) -> None:
    assert Checkpoint(tmp_path / "part.pt").restore({}) == 0


def test_alphas_match_the_published_scheduler() -> None:
    assert torch.allclose(model.alphas_cumprod(), model.build_scheduler().alphas_cumprod, atol=1e-6)


@pytest.mark.parametrize(("alpha", "weight"), [(0.5, 1.0), (0.9, 5 / 9), (1 / 11, 1.0)])
def test_min_snr_weight_caps_the_signal_to_noise_ratio_at_five(alpha: float, weight: float) -> None:
    assert unet_training.min_snr_weight(torch.tensor([alpha])).item() == pytest.approx(weight)


def test_rate_is_flat_then_falls_to_its_last_share() -> None:
    plan = unet_training.Plan(steps=10_000, small_steps=0, peak_rate=1.0, flat_share=0.5, last_rate=0.1)

    assert plan.rate(0) == pytest.approx(1 / unet_training.WARMUP)
    assert plan.rate(5000) == pytest.approx(1.0)
    assert plan.rate(7500) == pytest.approx(0.55)
    assert plan.rate(10_000) == pytest.approx(0.1)


def test_moving_average_follows_its_formula() -> None:
    part = torch.nn.Linear(1, 1, bias=False)
    average = unet_training.MovingAverage(part, decay=0.5)
    start = part.weight.item()

    with torch.no_grad():
        part.weight.fill_(3.0)
    average.update(part, step=1000)

    assert average.weights["weight"].item() == pytest.approx(0.5 * start + 0.5 * 3.0)


def test_batches_hold_the_noise_that_was_mixed_in() -> None:
    data = LatentSet(torch.randn(5, 4, 8, 8), torch.randn(5, 4, 16, 16), torch.randn(5, 2, 2, 77, 8))
    plan = unet_training.Plan(steps=2, small_steps=1, batch=2, small_batch=3)

    (small, *_), (noisy, t, states, noise, _) = unet_training.batches(data, plan, first=0, rank=0)

    alpha = model.alphas_cumprod()[t][:, None, None, None]
    clean = (noisy - (1 - alpha).sqrt() * noise) / alpha.sqrt()
    nearest = (clean[:, None] - data.large).flatten(2).abs().amax(2).amin(1)
    assert small.shape == (3, 4, 8, 8)
    assert states.shape == (2, 77, 8)
    assert nearest.max() < 1e-2


def test_resumed_batches_are_the_ones_that_were_missed() -> None:
    data = LatentSet(torch.randn(5, 4, 8, 8), torch.randn(5, 4, 16, 16), torch.randn(5, 2, 2, 77, 8))
    plan = unet_training.Plan(steps=4, small_steps=0, batch=2)

    whole = [batch[0] for batch in unet_training.batches(data, plan, first=0, rank=0)]
    rest = [batch[0] for batch in unet_training.batches(data, plan, first=2, rank=0)]

    assert all(torch.equal(a, b) for a, b in zip(whole[2:], rest, strict=True))


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    return autoencoder_training.to_tensor([drawings.render(scene) for scene in drawings.scenes(4, seed=9)])


def test_folding_the_scale_keeps_pictures_and_makes_latents_unit(pictures: torch.Tensor) -> None:
    torch.manual_seed(0)
    vae = model.build_autoencoder().requires_grad_(False)
    before = vae.decode(vae.encode(pictures).latent_dist.mean).sample

    autoencoder_training.fold_scale(vae, pictures)

    latents = vae.encode(pictures).latent_dist.mean
    scaled = latents * model.LATENT_SCALE
    assert torch.allclose(vae.decode(latents).sample, before, atol=1e-3)
    assert torch.allclose(scaled.mean((0, 2, 3)), torch.zeros(4), atol=1e-3)
    assert torch.allclose(scaled.std((0, 2, 3)), torch.ones(4), atol=1e-3)


def test_caption_classes_say_nothing_about_what_is_not_named() -> None:
    scene = drawings.Scene("square", "green", "gray", False, 0, 0, 0.3, 0, (0, 0, 0))

    classes = text_training.classes_of(scene, "a square on a gray background", (True, False, True))

    assert classes == [2, 0, 2, 0]


def test_sampled_captions_mark_exactly_their_tokens() -> None:
    words = tokenizer.build()

    captions = text_training.sample_captions(words, np.random.default_rng(1), count=4, positions=40)

    for ids, present in zip(captions.ids, captions.present, strict=True):
        assert set(present.nonzero().flatten().tolist()) == set(ids.tolist())
