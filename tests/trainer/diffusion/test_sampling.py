"""Our Euler ancestral steps against diffusers' scheduler, with a model that is a formula."""

from dataclasses import replace

import pytest
import torch
from diffusers import EulerAncestralDiscreteScheduler
from torch import Tensor

from lora_trainer.diffusion.noise import make_schedule
from lora_trainer.diffusion.sampling import Request, sample_euler_ancestral

SCHEDULE = make_schedule(0.00085, 0.012)
REQUEST = Request(
    states=torch.full((1, 3, 2), 0.7),
    negative_states=torch.full((1, 3, 2), 0.2),
    guidance=torch.tensor([3.0]),
    seeds=(9,),
    shape=(4, 4, 6),
    steps=7,
)


def predict(latents: Tensor, timesteps: Tensor, states: Tensor) -> Tensor:
    """Depends on everything that a UNet depends on."""
    return torch.tanh(latents * 0.8 + states.mean(dim=(1, 2)).view(-1, 1, 1, 1) + timesteps.view(-1, 1, 1, 1) / 1000)


def reference(request: Request) -> Tensor:
    """The same by diffusers' scheduler."""
    scheduler = EulerAncestralDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    scheduler.set_timesteps(request.steps)
    generator = torch.Generator().manual_seed(request.seeds[0])
    latents = torch.randn((1, *request.shape), generator=generator) * scheduler.init_noise_sigma
    for timestep in scheduler.timesteps:
        scaled = scheduler.scale_model_input(latents, timestep)
        without = predict(scaled, timestep[None], request.negative_states)
        with_text = predict(scaled, timestep[None], request.states)
        epsilon = without + request.guidance[0] * (with_text - without)
        latents = scheduler.step(epsilon, timestep, latents, generator=generator).prev_sample
    return latents


@pytest.mark.parametrize("steps", [2, 7, 20])
def test_steps_equal_those_of_diffusers(steps: int) -> None:
    request = replace(REQUEST, steps=steps)

    latents = sample_euler_ancestral(predict, SCHEDULE, request)

    torch.testing.assert_close(latents, reference(request), rtol=1e-4, atol=1e-4)


def test_a_single_step_starts_at_full_noise() -> None:
    seen: list[float] = []

    def noting(latents: Tensor, timesteps: Tensor, states: Tensor) -> Tensor:
        seen.append(float(timesteps[0]))
        return predict(latents, timesteps, states)

    sample_euler_ancestral(noting, SCHEDULE, replace(REQUEST, steps=1))

    assert seen == [999.0]


def test_a_picture_does_not_depend_on_what_is_drawn_beside_it() -> None:
    both = replace(
        REQUEST,
        states=REQUEST.states.expand(2, -1, -1),
        negative_states=REQUEST.negative_states.expand(2, -1, -1),
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
