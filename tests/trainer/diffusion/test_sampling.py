"""Our Euler ancestral steps against diffusers' scheduler, with a model that is a formula."""

from dataclasses import replace

import pytest
import torch
from diffusers import EulerAncestralDiscreteScheduler
from torch import Tensor

from lora_api.model_spec import Prediction
from lora_trainer.conditioning import TextStates
from lora_trainer.diffusion.noise import make_schedule, rescale_zero_terminal
from lora_trainer.diffusion.sampling import Request, sample_euler_ancestral

SCHEDULE = make_schedule(0.00085, 0.012)
REQUEST = Request(
    text=TextStates(torch.full((1, 3, 2), 0.7), torch.full((1, 2), 0.1)),
    negative_text=TextStates(torch.full((1, 3, 2), 0.2), torch.full((1, 2), -0.1)),
    sizes=torch.full((1, 6), 0.3),
    guidance=torch.tensor([3.0]),
    seeds=(9,),
    shape=(4, 4, 6),
    steps=7,
)


def predict(latents: Tensor, timesteps: Tensor, text: TextStates, sizes: Tensor) -> Tensor:
    """Depends on everything that a UNet depends on."""
    assert text.pooled is not None
    told = text.states.mean(dim=(1, 2)) + text.pooled.mean(dim=1) + sizes.mean(dim=1) + timesteps / 1000
    return torch.tanh(latents * 0.8 + told.view(-1, 1, 1, 1))


def reference(request: Request, prediction: Prediction, *, zero_terminal: bool) -> Tensor:
    """The same by diffusers' scheduler."""
    scheduler = EulerAncestralDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type=prediction,
        rescale_betas_zero_snr=zero_terminal,
    )
    scheduler.set_timesteps(request.steps)
    generator = torch.Generator().manual_seed(request.seeds[0])
    latents = torch.randn((1, *request.shape), generator=generator) * scheduler.init_noise_sigma
    for timestep in scheduler.timesteps:
        scaled = scheduler.scale_model_input(latents, timestep)
        without = predict(scaled, timestep[None], request.negative_text, request.sizes)
        with_text = predict(scaled, timestep[None], request.text, request.sizes)
        guided = without + request.guidance[0] * (with_text - without)
        latents = scheduler.step(guided, timestep, latents, generator=generator).prev_sample
    return latents


@pytest.mark.parametrize("steps", [2, 7, 20])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_steps_equal_those_of_diffusers(steps: int, prediction: Prediction) -> None:
    request = replace(REQUEST, steps=steps)

    latents = sample_euler_ancestral(predict, SCHEDULE, request, prediction=prediction)

    expected = reference(request, prediction, zero_terminal=False)
    torch.testing.assert_close(latents, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("steps", [2, 7, 20])
def test_steps_from_pure_noise_equal_those_of_diffusers(steps: int) -> None:
    """The first sigma is 4096, so the fp32 of both loses digits in the first step."""
    request = replace(REQUEST, steps=steps)

    latents = sample_euler_ancestral(predict, rescale_zero_terminal(SCHEDULE), request, prediction="v_prediction")

    expected = reference(request, "v_prediction", zero_terminal=True)
    torch.testing.assert_close(latents, expected, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("zero_terminal", [False, True])
def test_a_model_that_knows_v_finds_the_picture(zero_terminal: bool) -> None:
    """v of a known x_0 at the noisy x_t is what a perfect model says: eps follows from x_t and x_0."""
    schedule = rescale_zero_terminal(SCHEDULE) if zero_terminal else SCHEDULE
    picture = torch.randn((1, 4, 4, 6), generator=torch.Generator().manual_seed(2))

    def perfect(latents: Tensor, timesteps: Tensor, text: TextStates, sizes: Tensor) -> Tensor:
        share = schedule.alphas_cumprod[timesteps.long()].view(-1, 1, 1, 1)
        noise = (latents - share.sqrt() * picture) / (1 - share).sqrt()
        return share.sqrt() * noise - (1 - share).sqrt() * picture

    found = sample_euler_ancestral(perfect, schedule, replace(REQUEST, steps=28), prediction="v_prediction")

    torch.testing.assert_close(found, picture, rtol=0.03, atol=0.03)


def test_a_single_step_starts_at_full_noise() -> None:
    seen: list[float] = []

    def noting(latents: Tensor, timesteps: Tensor, text: TextStates, sizes: Tensor) -> Tensor:
        seen.append(float(timesteps[0]))
        return predict(latents, timesteps, text, sizes)

    sample_euler_ancestral(noting, SCHEDULE, replace(REQUEST, steps=1))

    assert seen == [999.0]


def test_a_picture_does_not_depend_on_what_is_drawn_beside_it() -> None:
    both = replace(
        REQUEST,
        text=REQUEST.text.rows([0, 0]),
        negative_text=REQUEST.negative_text.rows([0, 0]),
        sizes=REQUEST.sizes.expand(2, -1),
        guidance=torch.tensor([7.0, 3.0]),
        seeds=(4, 9),
    )

    alone, together = (sample_euler_ancestral(predict, SCHEDULE, request) for request in (REQUEST, both))

    torch.testing.assert_close(together[1], alone[0])


def test_sampling_can_be_stopped_between_steps() -> None:
    class Stop(Exception):
        pass

    def stop() -> None:
        raise Stop

    with pytest.raises(Stop):
        sample_euler_ancestral(predict, SCHEDULE, REQUEST, on_step=stop)
