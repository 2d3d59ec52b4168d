"""Files at the real sizes of the families, on meta tensors: modules, tensors, names, kernels."""

from functools import cache

import pytest
import torch
from torch import nn

from lora_api.model_spec import Family, Network
from lora_trainer.families.architectures import random_model
from lora_trainer.lora.adapter import DOWN, UP, AdapterModule
from lora_trainer.lora.keys import ModuleName, canonical_path, kernel_of, module_named
from lora_trainer.lora.kohya_format import kohya_tensors
from lora_trainer.lora.targets import targets

LORA, LOCON = Network(rank=8), Network(type="locon", rank=8)


@cache
def modules_of(family: Family, network: Network) -> dict[ModuleName, nn.Module]:
    """Every module that the network adapts in the real model."""
    model = random_model(family, torch.device("meta"), precision=torch.float32)
    return {
        ModuleName(part, canonical_path(target.path)): module.get_submodule(target.path)
        for part, module in model.parts.items()
        for target in targets(module, part, network, family=family)
    }


@pytest.mark.parametrize(
    ("family", "network", "modules"),
    [
        ("sd15", LORA, 264),
        ("sd15", LOCON, 350),
        ("sd2", LORA, 330),
        ("sdxl", LORA, 986),
        ("sdxl", LOCON, 1052),
    ],
)
def test_every_module_has_three_tensors_under_a_key_of_its_own(family: Family, network: Network, modules: int) -> None:
    names = modules_of(family, network)
    adapters = [AdapterModule(name, {DOWN: torch.empty(8, 1), UP: torch.empty(1, 8)}, 8.0) for name in names]

    tensors = kohya_tensors(adapters, family)

    assert (len(names), len(tensors)) == (modules, 3 * modules)
    assert {module_named(key.partition(".")[0]) for key in tensors} == set(names)


@pytest.mark.parametrize("family", ["sd15", "sd2", "sdxl"])
def test_kernels_are_those_of_the_modules(family: Family) -> None:
    for name, module in modules_of(family, LOCON).items():
        assert kernel_of(name, family) == (module.kernel_size if isinstance(module, nn.Conv2d) else ()), name
