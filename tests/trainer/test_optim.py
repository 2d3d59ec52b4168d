"""Optimizers and learning rates from the spec."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from lora_api.optimizer_spec import Optimizer, Schedule
from lora_trainer.errors import InvalidConfiguration
from lora_trainer.optim import (
    learning_rates,
    make_optimizer,
    optimizer_arguments,
    optimizer_class_name,
    rate_factor,
    set_rates,
)


def parameters() -> dict[str, list[nn.Parameter]]:
    return {"unet": [nn.Parameter(torch.ones(64, 64))], "text_encoder": [nn.Parameter(torch.ones(64))]}


def test_a_constant_schedule_rises_and_stays() -> None:
    factor = rate_factor(Schedule(name="constant", warmup_steps=4), total_steps=100)

    assert [factor(step) for step in (0, 1, 2, 3, 4, 99)] == [0, 0.25, 0.5, 0.75, 1, 1]


def test_a_cosine_schedule_falls_to_zero_at_the_end() -> None:
    factor = rate_factor(Schedule(name="cosine", warmup_steps=10), total_steps=110)

    expected = [0.5, 1.0, (1 + math.cos(math.pi / 4)) / 2, 0.5, 0.0]
    assert [factor(step) for step in (5, 10, 35, 60, 110)] == pytest.approx(expected)


def test_without_warm_up_the_first_step_has_the_full_rate() -> None:
    assert rate_factor(Schedule(), total_steps=10)(0) == 1.0


def test_parts_have_rates_of_their_own() -> None:
    spec = Optimizer(learning_rate=1e-4, text_encoder_learning_rate=5e-5)

    optimizer = make_optimizer(spec, parameters())
    set_rates(optimizer, learning_rates(spec), 0.5)

    assert {group["name"]: group["lr"] for group in optimizer.param_groups} == {"unet": 5e-5, "text_encoder": 2.5e-5}


def test_a_rate_of_zero_leaves_the_part_out() -> None:
    optimizer = make_optimizer(Optimizer(text_encoder_learning_rate=0.0), parameters())

    assert [group["name"] for group in optimizer.param_groups] == ["unet"]


def test_training_nothing_is_refused() -> None:
    with pytest.raises(InvalidConfiguration, match="every learning rate is 0"):
        make_optimizer(Optimizer(learning_rate=0.0), parameters())


@pytest.mark.parametrize("name", ["adamw", "adamw8bit"])
def test_a_step_goes_against_the_gradient_by_the_rate(name: Any) -> None:
    groups = parameters()
    optimizer = make_optimizer(Optimizer(name=name, learning_rate=0.1, arguments={"weight_decay": "0"}), groups)
    weight = groups["unet"][0]
    weight.grad = torch.full_like(weight, 3.0)

    optimizer.step()

    # Adam's first step is the rate itself, whatever the size of the gradient.
    assert weight.detach().mean().item() == pytest.approx(0.9, abs=1e-3)


def test_arguments_are_python_literals() -> None:
    spec = Optimizer(arguments={"weight_decay": "0.1", "betas": "(0.9, 0.99)"})

    assert optimizer_arguments(spec) == {"weight_decay": 0.1, "betas": (0.9, 0.99)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"decay": "0.1"}, r"spec\.optimizer\.arguments\.decay is no argument of adamw8bit; known are .*weight_decay"),
        ({"lr": "0.1"}, r"spec\.optimizer\.arguments\.lr is no argument"),
        ({"eps": "__import__('os')"}, r"spec\.optimizer\.arguments\.eps is .* no number, tuple or truth value"),
    ],
    ids=["unknown", "ours", "code"],
)
def test_bad_arguments_are_named(arguments: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidConfiguration, match=message):
        optimizer_arguments(Optimizer(arguments=arguments))


def test_a_literal_that_does_not_fit_is_refused() -> None:
    spec = Optimizer(name="adamw", arguments={"betas": "(2.0, 0.9)"})

    with pytest.raises(InvalidConfiguration, match=r"spec\.optimizer\.arguments do not fit adamw: .*beta"):
        make_optimizer(spec, parameters())


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (Optimizer(name="adamw8bit"), "bitsandbytes.optim.adamw.AdamW8bit"),
        (Optimizer(name="adamw", arguments={"weight_decay": "0.01"}), "torch.optim.adamw.AdamW(weight_decay=0.01)"),
    ],
)
def test_the_optimizer_is_named_as_sd_scripts_names_it(spec: Optimizer, expected: str) -> None:
    assert optimizer_class_name(spec) == expected
