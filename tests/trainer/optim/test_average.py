"""The moving average of the weights."""

import pytest
import torch
from torch import nn

from lora_api.training_spec import Ema
from lora_trainer.optim import Average


def weight(value: float = 0.0, dtype: torch.dtype = torch.float32) -> nn.Parameter:
    return nn.Parameter(torch.full((3,), value, dtype=dtype))


def set_to(parameter: nn.Parameter, value: float) -> None:
    with torch.no_grad():
        parameter.fill_(value)


def averaged(average: Average, parameter: nn.Parameter) -> float:
    with average.swapped():
        return parameter[0].item()


def test_the_decay_rises_to_its_value() -> None:
    parameter = weight()
    average = Average({"w": parameter}, Ema(decay=0.3))
    expected = 0.0

    for step, value in enumerate((1.0, 4.0, -2.0, 5.0), start=1):
        set_to(parameter, value)
        average.update(step)
        decay = min(0.3, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value

    assert averaged(average, parameter) == pytest.approx(expected)


def test_only_every_nth_step_counts() -> None:
    parameter = weight()
    average = Average({"w": parameter}, Ema(every_steps=3))

    set_to(parameter, 1.0)
    average.update(1)
    average.update(2)
    before = averaged(average, parameter)
    average.update(3)

    assert before == 0.0
    assert averaged(average, parameter) == pytest.approx(1 - 2 / 11)


def test_the_weights_are_back_bit_for_bit_even_after_an_error() -> None:
    parameter = nn.Parameter(torch.randn(5, generator=torch.Generator().manual_seed(1)))
    average = Average({"w": parameter}, Ema())
    set_to(parameter, 1 / 3)
    expected = parameter.detach().clone()

    with pytest.raises(KeyError), average.swapped():
        raise KeyError

    assert torch.equal(parameter, expected)


def test_small_changes_of_short_weights_are_not_lost() -> None:
    parameter = weight(1.0, torch.bfloat16)
    average = Average({"w": parameter}, Ema(decay=0.999))
    set_to(parameter, 1.0078125)

    for step in range(10_000, 10_100):
        average.update(step)

    # Each update moves the average by at most 8e-6: far less than bf16 can hold beside 1.
    assert average.state()["w"][0].item() == pytest.approx(1 + 0.0078125 * (1 - 0.999**100), rel=1e-5)


def test_it_goes_on_from_its_state() -> None:
    parameter = weight()
    one, other = (Average({"w": parameter}, Ema()) for _ in range(2))
    set_to(parameter, 1.0)
    one.update(1)

    other.restore({name: value.clone() for name, value in one.state().items()})

    set_to(parameter, 2.0)
    one.update(2)
    other.update(2)
    assert torch.equal(one.state()["w"], other.state()["w"])
