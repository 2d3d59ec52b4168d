"""The samplers' steps against diffusers' schedulers at the same noise levels, with a model that is a formula."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    UniPCMultistepScheduler,
)
from torch import Tensor

from lora_api.evaluation_spec import Sampler
from lora_api.model_spec import Prediction
from lora_trainer.conditioning import TextStates
from lora_trainer.diffusion.levels import uniform_to_first
from lora_trainer.diffusion.noise import rescale_zero_terminal
from lora_trainer.diffusion.samplers import METHODS
from lora_trainer.diffusion.sampling import sample
from tests.support.formula_model import BETAS, REQUEST, SCHEDULE, draw_by, predict, with_levels

EULERS = {"euler_a": EulerAncestralDiscreteScheduler, "euler": EulerDiscreteScheduler}
PREDICTIONS = ("epsilon", "v_prediction")


def draw(sampler: Sampler, steps: int, *, prediction: Prediction = "epsilon", zero_terminal: bool = False) -> Tensor:
    """Ours."""
    schedule = rescale_zero_terminal(SCHEDULE) if zero_terminal else SCHEDULE
    return sample(predict, schedule, replace(REQUEST, sampler=sampler, steps=steps), prediction=prediction)


def make(scheduler: Any, prediction: Prediction = "epsilon", **options: Any) -> Any:
    """One of diffusers' with our schedule."""
    return scheduler(**BETAS, prediction_type=prediction, **options)


@pytest.mark.parametrize("sampler", EULERS)
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("steps", [2, 20])
def test_euler_steps_equal_those_of_diffusers(sampler: Sampler, prediction: Prediction, steps: int) -> None:
    scheduler = make(EULERS[sampler], prediction)
    scheduler.set_timesteps(steps)

    expected = draw_by(scheduler, REQUEST)

    torch.testing.assert_close(draw(sampler, steps, prediction=prediction), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sampler", EULERS)
def test_euler_steps_from_pure_noise_equal_those_of_diffusers(sampler: Sampler) -> None:
    """The first sigma is 4096, so the fp32 of both loses digits in the first step."""
    scheduler = make(EULERS[sampler], "v_prediction", rescale_betas_zero_snr=True)
    scheduler.set_timesteps(20)

    expected = draw_by(scheduler, REQUEST)

    found = draw(sampler, 20, prediction="v_prediction", zero_terminal=True)
    torch.testing.assert_close(found, expected, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_ddim_equals_that_of_diffusers_but_for_its_step_to_the_first_timestep(prediction: Prediction) -> None:
    scheduler = make(DDIMScheduler, prediction, steps_offset=1, set_alpha_to_one=False, clip_sample=False)
    scheduler.set_timesteps(20)

    expected = draw_by(scheduler, REQUEST, steps=19)

    torch.testing.assert_close(draw("ddim", 20, prediction=prediction), expected, rtol=1e-4, atol=1e-4)


def test_ddim_is_the_papers_formula_where_diffusers_has_other_timesteps() -> None:
    """Equation 12 of Song et al. 2021 with sigma = 0."""
    latents = torch.randn((1, *REQUEST.shape), generator=torch.Generator().manual_seed(REQUEST.seeds[0]))
    points = [1 + 35 * place for place in range(28, -1, -1)]
    for timestep, following in pairwise(points):
        time = torch.tensor([float(timestep)])
        without, told = (predict(latents, time, t, REQUEST.sizes) for t in (REQUEST.negative_text, REQUEST.text))
        noise = without + 3.0 * (told - without)
        here, there = SCHEDULE.alphas_cumprod[timestep], SCHEDULE.alphas_cumprod[following]
        picture = (latents - (1 - here).sqrt() * noise) / here.sqrt()
        latents = there.sqrt() * picture + (1 - there).sqrt() * noise

    torch.testing.assert_close(draw("ddim", 28), latents, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("steps", [4, 28])
def test_dpmpp_2m_equals_that_of_diffusers_at_whole_timesteps(prediction: Prediction, steps: int) -> None:
    scheduler = make(DPMSolverMultistepScheduler, prediction)
    scheduler.set_timesteps(timesteps=[999 - 999 // (steps - 1) * place for place in range(steps)])
    first = float(scheduler.sigmas[0])  # It works on latents of variance 1, and begins with the data's share of noise.

    expected = draw_by(scheduler, REQUEST, start=first / (first**2 + 1) ** 0.5)

    torch.testing.assert_close(draw("dpmpp_2m", steps, prediction=prediction), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("steps", [2, 9, 20])
def test_dpmpp_2m_karras_equals_that_of_diffusers(steps: int) -> None:
    scheduler = make(DPMSolverMultistepScheduler, use_karras_sigmas=True)
    scheduler.set_timesteps(steps)
    first = float(scheduler.sigmas[0])

    expected = draw_by(scheduler, REQUEST, start=first / (first**2 + 1) ** 0.5)

    torch.testing.assert_close(draw("dpmpp_2m_karras", steps), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("steps", [1, 2, 3, 8, 28])
def test_unipc_equals_that_of_diffusers_at_the_same_levels(prediction: Prediction, steps: int) -> None:
    scheduler = make(UniPCMultistepScheduler, prediction, solver_order=3, solver_type="bh1")

    expected = draw_by(with_levels(scheduler, uniform_to_first(SCHEDULE, steps)), REQUEST)

    torch.testing.assert_close(draw("unipc", steps, prediction=prediction), expected, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("sampler", METHODS)
@pytest.mark.parametrize("zero_terminal", [False, True])
def test_a_model_that_knows_v_finds_the_picture(sampler: Sampler, zero_terminal: bool) -> None:
    """v of a known x_0 at the noisy x_t is what a perfect model says: eps follows from x_t and x_0."""
    schedule = rescale_zero_terminal(SCHEDULE) if zero_terminal else SCHEDULE
    picture = torch.randn((1, 4, 4, 6), generator=torch.Generator().manual_seed(2))
    table = schedule.alphas_cumprod.clamp(min=2.0**-24)
    log_sigmas = ((1 - table) / table).sqrt().log()

    def perfect(latents: Tensor, timesteps: Tensor, text: TextStates, sizes: Tensor) -> Tensor:
        below = timesteps.long()
        log_sigma = torch.lerp(log_sigmas[below], log_sigmas[(below + 1).clamp(max=999)], timesteps - below)
        share = (1 / (log_sigma.exp() ** 2 + 1)).view(-1, 1, 1, 1)
        noise = (latents - share.sqrt() * picture) / (1 - share).sqrt()
        return share.sqrt() * noise - (1 - share).sqrt() * picture

    request = replace(REQUEST, sampler=sampler, steps=28)
    found = sample(perfect, schedule, request, prediction="v_prediction")

    # These two end where a little noise is left.
    torch.testing.assert_close(found, picture, rtol=0.03, atol=0.12 if sampler in ("ddim", "unipc") else 0.03)


@pytest.mark.parametrize("sampler", METHODS)
def test_only_ancestral_steps_draw_fresh_noise(sampler: Sampler) -> None:
    drawn: list[Tensor] = []

    def noise() -> Tensor:
        drawn.append(torch.zeros(1, 1, 1, 1))
        return drawn[-1]

    METHODS[sampler].solver([2.0, 1.0], noise).step(0, torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1))

    assert len(drawn) == (1 if sampler == "euler_a" else 0)


@pytest.mark.parametrize("sampler", ["dpmpp_2m", "unipc"])
def test_few_steps_of_a_higher_order_end_nearer_to_the_picture_of_many(sampler: Sampler) -> None:
    def error(name: Sampler) -> float:
        return float((draw(name, 15) - draw(name, 150)).abs().mean())

    assert error(sampler) < error("euler") / 2
