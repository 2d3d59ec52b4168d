"""An adapter that is in a model for a while changes it as its formula says, and leaves no trace."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lora_trainer.conditioning import Part
from lora_trainer.lora.adapter import AdapterFile, InvalidAdapterFile
from lora_trainer.lora.block_weights import block_vector
from lora_trainer.lora.keys import ModuleName
from lora_trainer.lora.merged import merged
from lora_trainer.lora.strength import Strength
from tests.support.adapter_files import CONVOLUTION, LINEAR, SIZES, TEXT, make_adapter, make_dora, make_loha, replaced


def model_of(dtype: torch.dtype = torch.float32) -> dict[Part, nn.Module]:
    """Parts that hold weights of `SIZES` at their paths."""
    parts: dict[Part, nn.Module] = {}
    for seed, (name, size) in enumerate(SIZES.items()):
        module: nn.Module = parts.setdefault(name.part, nn.Module())
        *folders, leaf = name.path.split(".")
        for folder in folders:
            if not hasattr(module, folder):
                module.add_module(folder, nn.Module())
            module = module.get_submodule(folder)
        holder = nn.Module()
        holder.weight = nn.Parameter(torch.randn(size, generator=torch.Generator().manual_seed(seed)).to(dtype))
        module.add_module(leaf, holder)
    return parts


def weight(parts: dict[Part, nn.Module], name: ModuleName) -> Tensor:
    found = parts[name.part].get_submodule(name.path).weight
    assert isinstance(found, Tensor)
    return found.detach()


@pytest.mark.parametrize("strength", [0.75, -0.5])
def test_a_plain_lora_adds_its_product_at_its_strength(strength: float) -> None:
    parts, adapter = model_of(), make_adapter()
    before = {name: weight(parts, name).clone() for name in SIZES}

    with merged(parts, adapter, Strength(strength)):
        inside = {name: weight(parts, name).clone() for name in SIZES}

    for module in adapter.modules.values():
        product = module.tensors["lora_up.weight"].flatten(1) @ module.tensors["lora_down.weight"].flatten(1)
        change = strength * module.alpha / 4 * product.view(SIZES[module.name])
        torch.testing.assert_close(inside[module.name], before[module.name] + change)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("make", [make_dora, make_loha])
def test_afterwards_every_bit_is_as_it_was(make: object, dtype: torch.dtype) -> None:
    parts = model_of(dtype)
    adapter = replaced(make_adapter(), make(LINEAR))  # type: ignore[operator]
    before = {name: weight(parts, name).clone() for name in SIZES}

    with pytest.raises(KeyboardInterrupt), merged(parts, adapter, Strength(1.5)):
        assert not weight(parts, LINEAR).equal(before[LINEAR])
        raise KeyboardInterrupt

    assert all(weight(parts, name).equal(before[name]) for name in SIZES)


def test_block_weights_choose_what_is_changed() -> None:
    parts, only_text = model_of(), block_vector("own", [1.0] + [0.0] * 16, "sd15")
    before = {name: weight(parts, name).clone() for name in SIZES}

    with merged(parts, make_adapter(), Strength(1.0, only_text)):
        changed = {name for name in SIZES if not weight(parts, name).equal(before[name])}

    assert changed == {TEXT} and CONVOLUTION not in changed


def test_an_adapter_for_another_model_changes_nothing(tmp_path: Path) -> None:
    parts, adapter = model_of(), make_adapter()
    before = {name: weight(parts, name).clone() for name in SIZES}
    del parts["text_encoder"]

    with pytest.raises(InvalidAdapterFile, match="for another one"), merged(parts, _text_last(adapter), Strength()):
        raise AssertionError("it was merged")

    assert all(weight(parts, name).equal(before[name]) for name in (LINEAR, CONVOLUTION))


def _text_last(adapter: AdapterFile) -> AdapterFile:
    modules = sorted(adapter.modules.items(), key=lambda item: item[1].name.part == "text_encoder")
    return AdapterFile(dict(modules), adapter.metadata, adapter.family)
