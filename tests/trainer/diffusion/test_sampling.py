"""How a drawing goes, whatever the sampler; with a model that is a formula."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from lora_api.evaluation_spec import Sampler
from lora_trainer.conditioning import TextStates
from lora_trainer.diffusion.samplers import METHODS
from lora_trainer.diffusion.sampling import sample
from tests.support.formula_model import REQUEST, SCHEDULE, predict


@pytest.mark.parametrize("sampler", METHODS)
def test_a_single_step_starts_at_full_noise(sampler: Sampler) -> None:
    seen: list[float] = []

    def noting(latents: Tensor, timesteps: Tensor, text: TextStates, sizes: Tensor) -> Tensor:
        seen.append(float(timesteps[0]))
        return predict(latents, timesteps, text, sizes)

    sample(noting, SCHEDULE, replace(REQUEST, steps=1, sampler=sampler))

    assert seen == [999.0]


@pytest.mark.parametrize("sampler", METHODS)
def test_a_picture_does_not_depend_on_what_is_drawn_beside_it(sampler: Sampler) -> None:
    one = replace(REQUEST, sampler=sampler)
    both = replace(
        one,
        text=REQUEST.text.rows([0, 0]),
        negative_text=REQUEST.negative_text.rows([0, 0]),
        sizes=REQUEST.sizes.expand(2, -1),
        guidance=torch.tensor([7.0, 3.0]),
        seeds=(4, 9),
    )

    alone, together = (sample(predict, SCHEDULE, request) for request in (one, both))

    torch.testing.assert_close(together[1], alone[0])


def test_sampling_can_be_stopped_between_steps() -> None:
    class Stop(Exception):
        pass

    def stop() -> None:
        raise Stop

    with pytest.raises(Stop):
        sample(predict, SCHEDULE, REQUEST, on_step=stop)


def test_prompts_of_other_length_than_the_negative_ones_are_asked_about_one_by_one() -> None:
    longer = TextStates(torch.full((1, 6, 2), 0.7), REQUEST.text.pooled)

    found = sample(predict, SCHEDULE, replace(REQUEST, text=longer))

    torch.testing.assert_close(found, sample(predict, SCHEDULE, REQUEST))
