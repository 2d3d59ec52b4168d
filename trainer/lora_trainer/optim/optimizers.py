"""Optimizers by their name in the spec; made and stepped by `loop`, named in the metadata by `run`."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import bitsandbytes.optim as bnb
import dadaptation
import prodigyopt
import schedulefree
import torch
from dadaptation.experimental import DAdaptAdamPreprint, DAdaptAdanIP
from transformers import Adafactor

from lora_api.optimizer_arguments import argument_values
from lora_api.optimizer_spec import Optimizer as OptimizerSpec
from lora_trainer.errors import InvalidConfiguration

CLASSES: Mapping[str, Any] = {
    "adamw": torch.optim.AdamW,
    "adamw8bit": bnb.AdamW8bit,
    "pagedadamw": bnb.PagedAdamW,
    "pagedadamw8bit": bnb.PagedAdamW8bit,
    "pagedadamw32bit": bnb.PagedAdamW32bit,
    "lion": bnb.Lion,
    "lion8bit": bnb.Lion8bit,
    "pagedlion8bit": bnb.PagedLion8bit,
    "sgdnesterov": torch.optim.SGD,
    "sgdnesterov8bit": bnb.SGD8bit,
    "adafactor": Adafactor,
    "prodigy": prodigyopt.Prodigy,
    "dadaptation": DAdaptAdamPreprint,
    "dadaptadagrad": dadaptation.DAdaptAdaGrad,
    "dadaptadam": dadaptation.DAdaptAdam,
    "dadaptadan": dadaptation.DAdaptAdan,
    "dadaptadanip": DAdaptAdanIP,
    "dadaptlion": dadaptation.DAdaptLion,
    "dadaptsgd": dadaptation.DAdaptSGD,
    "schedulefree": schedulefree.AdamWScheduleFree,
    "radamschedulefree": schedulefree.RAdamScheduleFree,
    "sgdschedulefree": schedulefree.SGDScheduleFree,
}
_PRESETS: Mapping[str, Mapping[str, Any]] = {
    "adafactor": {"scale_parameter": False, "relative_step": False, "warmup_init": False},
    "sgdnesterov": {"momentum": 0.9},
    "sgdnesterov8bit": {"momentum": 0.9},
}
"""Arguments that differ from the class's defaults unless the user says otherwise."""
_OURS: Mapping[str, Mapping[str, Any]] = {
    "adamw": {"fused": True},
    # Not fused: torch 2.13's fused SGD leaves bf16 weights on a CPU as they are, without a word.
    "sgdnesterov": {"nesterov": True},
    "sgdnesterov8bit": {"nesterov": True},
}
"""Arguments that are no choice of the user and not written into the metadata."""


def make_optimizer(spec: OptimizerSpec, groups: Sequence[Mapping[str, Any]]) -> torch.optim.Optimizer:
    """The optimizer over `groups` (params, lr, name), ready to make steps.

    Raises:
        InvalidConfiguration: the class refuses the arguments.
    """
    arguments = {**_arguments(spec), **_OURS.get(spec.name, {})}
    rate = max(float(group["lr"]) for group in groups)
    try:
        optimizer: torch.optim.Optimizer = CLASSES[spec.name]([dict(group) for group in groups], lr=rate, **arguments)
    except (TypeError, ValueError) as error:
        raise InvalidConfiguration(
            f"spec.optimizer.arguments do not fit {spec.name}: {error}; change or remove them"
        ) from error
    _keep_precision_of_state(optimizer)
    if _averages_by_itself(optimizer):
        optimizer.train()  # type: ignore[attr-defined]  # it starts in the mode for evaluating
    return optimizer


def optimizer_class_name(spec: OptimizerSpec) -> str:
    """The optimizer's full class path and arguments, as sd-scripts writes them into `ss_optimizer`."""
    cls = CLASSES[spec.name]
    arguments = ",".join(f"{name}={value}" for name, value in _arguments(spec).items())
    return f"{cls.__module__}.{cls.__name__}" + (f"({arguments})" if arguments else "")


@contextmanager
def evaluating(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Lets the parameters be what a schedule-free optimizer would have saved and drawn; of others, what they are.

    Defazio et al. 2024, https://arxiv.org/abs/2405.15682: gradients are taken at y, the result is the average x.
    Afterwards every bit of y is back: the optimizer's own way there and back would round, and a run that saves
    would differ from one that does not.
    """
    if not _averages_by_itself(optimizer):
        yield
        return
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    trained = [parameter.detach().clone() for parameter in parameters]
    optimizer.eval()  # type: ignore[attr-defined]
    try:
        yield
    finally:
        optimizer.train()  # type: ignore[attr-defined]
        with torch.no_grad():
            for parameter, value in zip(parameters, trained, strict=True):
                parameter.copy_(value)


def _keep_precision_of_state(optimizer: torch.optim.Optimizer) -> None:
    """Lets a loaded state keep its number format; torch casts it to that of the weights, which rounds for bf16."""
    loaded: dict[int, dict[str, Any]] = {}

    def before(_: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        loaded.update(state["state"])

    def after(optimizer: torch.optim.Optimizer) -> None:
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        for index, values in loaded.items():
            state = optimizer.state[parameters[index]]
            for name, value in values.items():
                if torch.is_tensor(value) and value.dtype != state[name].dtype:
                    state[name] = value.to(state[name].device, copy=True)
        loaded.clear()

    optimizer.register_load_state_dict_pre_hook(before)
    optimizer.register_load_state_dict_post_hook(after)


def _averages_by_itself(optimizer: torch.optim.Optimizer) -> bool:
    return "train_mode" in optimizer.param_groups[0]


def _arguments(spec: OptimizerSpec) -> dict[str, Any]:
    return {**_PRESETS.get(spec.name, {}), **argument_values(spec.arguments)}
