"""Optimizer and learning-rate schedule from the spec; used by `run`, stepped by `loop`."""

import ast
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from bitsandbytes.optim import AdamW8bit
from torch import nn

from lora_api.optimizer_spec import Optimizer as OptimizerSpec
from lora_api.optimizer_spec import Schedule
from lora_trainer.errors import InvalidConfiguration

_CLASSES: dict[str, Any] = {"adamw": torch.optim.AdamW, "adamw8bit": AdamW8bit}
_OURS = {"self", "params", "lr", "fused", "foreach", "capturable", "differentiable", "optim_bits", "is_paged", "args"}
"""Arguments that are no choice of the user."""


def learning_rates(spec: OptimizerSpec) -> dict[str, float]:
    """The peak learning rate of each part of the model."""
    unet, text_encoder = spec.unet_learning_rate, spec.text_encoder_learning_rate
    return {
        "unet": spec.learning_rate if unet is None else unet,
        "text_encoder": spec.learning_rate if text_encoder is None else text_encoder,
    }


def make_optimizer(spec: OptimizerSpec, parameters: Mapping[str, Sequence[nn.Parameter]]) -> torch.optim.Optimizer:
    """The optimizer over one group per part of the model; a part with rate 0 or without parameters is left out.

    Raises:
        InvalidConfiguration: an argument is unknown or no literal, or nothing is left to train.
    """
    groups = [
        {"params": list(parameters[part]), "lr": rate, "name": part}
        for part, rate in learning_rates(spec).items()
        if rate > 0 and parameters.get(part)
    ]
    if not groups:
        raise InvalidConfiguration("spec.optimizer: every learning rate is 0, so nothing is trained; raise one")
    arguments = optimizer_arguments(spec)
    if spec.name == "adamw":
        arguments["fused"] = True
    try:
        optimizer: torch.optim.Optimizer = _CLASSES[spec.name](groups, **arguments)
    except (TypeError, ValueError) as error:
        raise InvalidConfiguration(f"spec.optimizer.arguments do not fit {spec.name}: {error}") from error
    return optimizer


def optimizer_arguments(spec: OptimizerSpec) -> dict[str, Any]:
    """The spec's further arguments as Python values. Raises InvalidConfiguration that names the argument."""
    known = sorted(set(inspect.signature(_CLASSES[spec.name]).parameters) - _OURS)
    values: dict[str, Any] = {}
    for name, text in spec.arguments.items():
        if name not in known:
            raise InvalidConfiguration(
                f"spec.optimizer.arguments.{name} is no argument of {spec.name}; known are {', '.join(known)}"
            )
        try:
            values[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError) as error:
            raise InvalidConfiguration(
                f"spec.optimizer.arguments.{name} is '{text}', which is no number, tuple or truth value; "
                'write it as Python does, such as "0.01" or "(0.9, 0.99)"'
            ) from error
    return values


def optimizer_class_name(spec: OptimizerSpec) -> str:
    """The optimizer's full class path and arguments, as sd-scripts writes them into `ss_optimizer`."""
    cls = _CLASSES[spec.name]
    arguments = ",".join(f"{name}={value}" for name, value in optimizer_arguments(spec).items())
    return f"{cls.__module__}.{cls.__name__}" + (f"({arguments})" if arguments else "")


def rate_factor(schedule: Schedule, total_steps: int) -> Callable[[int], float]:
    """Factor on the peak learning rate as a function of the number of steps made.

    Linear from 0 over `warmupSteps`, then constant, or half a cosine down to 0 at `total_steps`
    (Loshchilov and Hutter 2016, https://arxiv.org/abs/1608.03983, equation 5 with one cycle).
    """

    def factor(step: int) -> float:
        if step < schedule.warmup_steps:
            return step / schedule.warmup_steps
        if schedule.name == "constant":
            return 1.0
        done = (step - schedule.warmup_steps) / max(1, total_steps - schedule.warmup_steps)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    return factor


def set_rates(optimizer: torch.optim.Optimizer, peaks: Mapping[str, float], factor: float) -> None:
    """Sets every group's learning rate to its peak times `factor`; a function of the step, so nothing to save."""
    for group in optimizer.param_groups:
        group["lr"] = peaks[group["name"]] * factor
