"""The forward process and the kinds of noise, against sd-scripts' numbers and their own definitions."""

import numpy as np
import pytest
import torch

from lora_trainer.diffusion.noise import (
    NoiseSchedule,
    add_noise,
    add_offset,
    add_pyramid,
    make_schedule,
    normal,
    offset_strength,
    rescale_zero_terminal,
    strength,
    velocity,
)
from lora_trainer.errors import BaseModelUnavailable
from tests.support import reference_loop

SCHEDULE = make_schedule(0.00085, 0.012)
SHOWN = [0, 100, 500, 900, 999]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_signal_share_is_that_of_stable_diffusion() -> None:
    shares = SCHEDULE.alphas_cumprod[SHOWN].tolist()

    assert shares == pytest.approx([0.99915, 0.894223, 0.276332, 0.014151, 0.00466], abs=1e-6)


def test_the_ratio_of_signal_to_noise_is_that_of_stable_diffusion() -> None:
    assert SCHEDULE.snr[SHOWN].tolist() == pytest.approx([1175.44, 8.45386, 0.38185, 0.014354, 0.004682], rel=1e-4)


def test_zero_terminal_snr_ends_in_pure_noise_as_in_sd_scripts() -> None:
    rescaled = rescale_zero_terminal(SCHEDULE).alphas_cumprod

    assert rescaled[SHOWN].tolist() == pytest.approx([0.99915, 0.886761, 0.241019, 0.00296, 0.0], abs=1e-6)
    assert rescaled[-1].item() == 0.0


@pytest.mark.parametrize("zero_terminal", [False, True])
def test_every_signal_share_is_a_product_of_what_is_left(zero_terminal: bool) -> None:
    expected = reference_loop.signal_shares(reference_loop.Recipe(zero_terminal=zero_terminal))

    schedule = rescale_zero_terminal(SCHEDULE) if zero_terminal else SCHEDULE

    assert schedule.alphas_cumprod.tolist() == pytest.approx(expected, rel=1e-4, abs=1e-9)


def test_sigma_is_the_root_of_noise_over_signal() -> None:
    assert SCHEDULE.sigmas[500].item() == pytest.approx((1 / 0.38185) ** 0.5, rel=1e-4)


def test_without_signal_sigma_is_infinite_and_the_snr_zero() -> None:
    schedule = NoiseSchedule(torch.tensor([0.5, 0.0]))

    assert schedule.sigmas.tolist() == [1.0, float("inf")]
    assert schedule.snr.tolist() == [1.0, 0.0]


def test_the_linear_schedule_multiplies_what_is_left() -> None:
    schedule = make_schedule(0.1, 0.3, steps=3, name="linear")

    assert schedule.alphas_cumprod.tolist() == pytest.approx([0.9, 0.9 * 0.8, 0.9 * 0.8 * 0.7])


def test_an_unknown_schedule_is_refused_by_name() -> None:
    with pytest.raises(BaseModelUnavailable, match="beta_schedule squaredcos_cap_v2 is unknown"):
        make_schedule(0.1, 0.2, name="squaredcos_cap_v2")


def test_noisy_latents_keep_the_variance() -> None:
    latents, noise = torch.randn((2, 2, 4, 64, 64), generator=seeded())

    noisy = add_noise(latents, noise, torch.tensor([0.9, 0.1]))

    assert noisy.var(dim=(1, 2, 3)).tolist() == pytest.approx([1.0, 1.0], abs=0.05)
    assert noisy[0, 0, 0, 0].item() == pytest.approx(
        0.9**0.5 * latents[0, 0, 0, 0].item() + 0.1**0.5 * noise[0, 0, 0, 0].item()
    )


def test_noisy_latents_and_velocity_are_a_rotation_of_latents_and_noise() -> None:
    latents, noise = torch.randn((2, 3, 4, 5, 6), generator=seeded())
    angles = torch.tensor([0.0, 0.7, np.pi / 2])
    cosine, sine = (f(angles).view(-1, 1, 1, 1) for f in (torch.cos, torch.sin))

    noisy, v = (f(latents, noise, angles.cos() ** 2) for f in (add_noise, velocity))

    torch.testing.assert_close(cosine * noisy - sine * v, latents)
    torch.testing.assert_close(sine * noisy + cosine * v, noise)


def test_the_offset_is_one_number_a_channel_of_the_given_strength() -> None:
    noise = torch.zeros(500, 4, 3, 5)

    offset = add_offset(noise, 0.1, generator=seeded())

    assert offset.equal(offset[:, :, :1, :1].expand_as(offset))
    assert offset[:, :, 0, 0].std().item() == pytest.approx(0.1, rel=0.05)


def test_an_adaptive_strength_follows_the_size_of_the_channels_mean() -> None:
    latents = torch.tensor([[[[0.5, 1.5]], [[-3.0, -1.0]], [[0.0, 0.0]]]])  # channel means 1, -2, 0

    by = offset_strength(latents, 0.1, adaptive_scale=0.05)

    assert by.flatten().tolist() == pytest.approx([0.15, 0.2, 0.1])


def test_an_adaptive_strength_is_never_negative() -> None:
    assert offset_strength(torch.ones(1, 1, 2, 2), 0.1, adaptive_scale=-0.5).item() == 0.0


def test_a_drawn_strength_is_uniform_up_to_the_largest() -> None:
    random = seeded()

    values = torch.stack([torch.as_tensor(strength(0.2, drawn=True, generator=random)) for _ in range(2000)])

    assert values.min() < 0.002 and 0.198 < values.max() < 0.2
    assert values.mean().item() == pytest.approx(0.1, abs=0.005)


def test_a_fixed_strength_uses_no_random_number() -> None:
    random = seeded()

    assert strength(0.2, drawn=False, generator=random) == 0.2
    assert torch.rand((), generator=random).equal(torch.rand((), generator=seeded()))


def bilinear(coarse: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear enlargement of the last two axes with cell centres at half cells, in float64."""
    for axis, size in ((-2, height), (-1, width)):
        count = coarse.shape[axis]
        centres = np.clip((np.arange(size) + 0.5) * count / size - 0.5, 0, None)
        low = np.minimum(np.floor(centres).astype(int), count - 1)
        high = np.minimum(low + 1, count - 1)
        part = (centres - low).reshape((-1, 1) if axis == -2 else (-1,))
        coarse = np.take(coarse, low, axis) * (1 - part) + np.take(coarse, high, axis) * part
    return coarse


@pytest.mark.parametrize(("levels", "discount"), [(1, 0.3), (3, 0.3), (8, 0.9)])
def test_pyramid_noise_is_the_sum_of_its_enlarged_levels(levels: int, discount: float) -> None:
    noise = torch.randn((2, 4, 12, 20), generator=seeded(1))
    random = seeded(2)
    expected = noise.double().numpy()
    for level, u in enumerate(torch.rand(levels, generator=random).double().numpy()):
        sides = [max(1, int(np.floor(side / (2 + 2 * u) ** level))) for side in (12, 20)]
        coarse = torch.randn((2, 4, *sides), generator=random).double().numpy()
        expected = expected + bilinear(coarse, 12, 20) * discount**level
        if min(sides) == 1:
            break
    expected /= expected.std(ddof=1)

    pyramid = add_pyramid(noise, levels=levels, discount=discount, generator=seeded(2))

    np.testing.assert_allclose(pyramid.numpy(), expected, rtol=1e-4, atol=1e-5)


def test_a_pyramid_stops_at_a_level_of_one_cell() -> None:
    noise = torch.randn((1, 1, 2, 64), generator=seeded(1))
    expected = seeded(2)
    ratio = 2 + 2 * torch.rand(32, generator=expected)[1].item()
    for shape in ((1, 1, 2, 64), (1, 1, 1, int(64 / ratio))):
        torch.randn(shape, generator=expected)

    used = seeded(2)
    add_pyramid(noise, levels=32, discount=0.3, generator=used)

    assert used.get_state().equal(expected.get_state())


def test_noise_is_the_same_for_latents_of_any_precision() -> None:
    coarse, fine = (normal((2, 3), torch.zeros(1, dtype=t), generator=seeded()) for t in (torch.float16, torch.float32))

    assert coarse.dtype == torch.float32 and coarse.equal(fine)
