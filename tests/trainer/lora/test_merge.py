"""Sums of adapters: what is added up is what the formulas say."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lora_trainer.lora.adapter import AdapterFile, AdapterModule, InvalidAdapterFile
from lora_trainer.lora.formats import read_adapter, save_adapter
from lora_trainer.lora.keys import ModuleName
from lora_trainer.lora.merge import Weighted, merge_adapters, merge_into
from tests.support.adapter_files import (
    CONVOLUTION,
    LINEAR,
    SIZES,
    TEXT,
    make_adapter,
    make_dora,
    make_loha,
    make_lokr,
    replaced,
)

OUT = Path("sum.safetensors")


def base_weight(name: ModuleName) -> Tensor:
    """Weights of a base model."""
    return torch.randn(SIZES[name], generator=torch.Generator().manual_seed(8))


def merged(*terms: tuple[AdapterFile, float], **options: Any) -> AdapterFile:
    """The sum of terms that are called a, b, …"""
    named = [Weighted(adapter, weight, chr(97 + index)) for index, (adapter, weight) in enumerate(terms)]
    return merge_adapters(named, out=OUT, dtype=options.pop("dtype", torch.float32), **options)


def deltas(adapter: AdapterFile) -> dict[str, Tensor]:
    """The weight change of every module."""
    return {key: module.delta for key, module in adapter.modules.items()}


def test_ranks_add_up_and_the_sum_is_exact() -> None:
    first, second = make_adapter(rank=4, alpha=2.0), make_adapter(rank=3, alpha=6.0, seed=50)

    total = merged((first, 0.7), (second, -0.3))

    assert {module.rank for module in total.modules.values()} == {7}
    for key, delta in deltas(total).items():
        assert torch.allclose(delta, 0.7 * deltas(first)[key] - 0.3 * deltas(second)[key], atol=1e-5)


def test_one_adapter_at_its_full_strength_stays_as_it_is_in_half_precision() -> None:
    adapter = make_adapter(rank=4, alpha=1.2, dtype=torch.float16)

    total = merged((adapter, 1.0), dtype=torch.float16)

    for key, module in total.modules.items():
        assert all(tensor.equal(adapter.modules[key].tensors[name]) for name, tensor in module.tensors.items())
        assert module.alpha == pytest.approx(1.2)


def test_a_module_of_one_adapter_only_is_added_as_well() -> None:
    total = merged((make_adapter(LINEAR, TEXT), 1.0), (make_adapter(LINEAR, rank=2, alpha=8.0), 0.5))

    text = next(module for module in total.modules.values() if module.name == TEXT)
    expected = next(module for module in make_adapter(LINEAR, TEXT).modules.values() if module.name == TEXT)
    assert (len(total.modules), text.rank) == (2, 4)
    assert torch.allclose(text.delta, expected.delta, atol=1e-6)


def test_all_modules_have_one_alpha_which_diffusers_needs() -> None:
    total = merged((make_adapter(LINEAR, TEXT), 1.0), (make_adapter(LINEAR, rank=2, alpha=8.0), 0.5))

    assert len({module.alpha for module in total.modules.values()}) == 1


def test_a_rank_gives_the_best_approximation() -> None:
    adapters = make_adapter(rank=4), make_adapter(rank=3, seed=50)
    exact = deltas(merged((adapters[0], 0.7), (adapters[1], 0.3)))

    cut = merged((adapters[0], 0.7), (adapters[1], 0.3), rank=2)

    for key, delta in deltas(cut).items():
        u, values, v = torch.linalg.svd(exact[key])
        assert torch.allclose(delta, (u[:, :2] * values[:2]) @ v[:2], atol=1e-4)


def test_a_rank_larger_than_the_weight_is_exact() -> None:
    adapters = make_adapter(rank=4), make_adapter(rank=3, seed=50)

    cut = merged((adapters[0], 0.7), (adapters[1], 0.3), rank=64)

    exact = deltas(merged((adapters[0], 0.7), (adapters[1], 0.3)))
    assert all(torch.allclose(delta, exact[key], atol=1e-4) for key, delta in deltas(cut).items())


@pytest.mark.parametrize("name", [LINEAR, CONVOLUTION], ids=["linear", "convolution"])
def test_every_type_adds_up_to_a_plain_lora(name: ModuleName) -> None:
    plain = make_adapter(name)
    terms = [(plain, 0.5), (replaced(plain, make_loha(name)), 0.4), (replaced(plain, make_lokr(name)), 0.3),
             (replaced(plain, make_dora(name)), 0.2)]  # fmt: skip

    total = merged(*terms, rank=64, base=base_weight)

    module = next(iter(total.modules.values()))
    changes = [weight * next(iter(adapter.modules.values())).change(base_weight(name)) for adapter, weight in terms]
    assert module.type == ("lora" if name == LINEAR else "locon")
    assert torch.allclose(module.delta, torch.stack(changes).sum(0).flatten(1), atol=1e-3)


def test_a_loha_needs_a_rank() -> None:
    adapter = replaced(make_adapter(), make_loha(LINEAR))

    with pytest.raises(InvalidAdapterFile, match="a holds loha modules, which add up to no exact LoRA; give --rank"):
        merged((adapter, 1.0))


def test_a_dora_needs_the_base_model() -> None:
    adapter = replaced(make_adapter(), make_dora(LINEAR))

    with pytest.raises(InvalidAdapterFile, match="a is a dora, whose change depends on the base model; give --base"):
        merged((adapter, 1.0), rank=4)


@pytest.mark.parametrize("rank", [None, 2])
def test_numbers_that_are_not_finite_do_not_add_up(rank: int | None) -> None:
    (module,) = make_adapter(LINEAR).modules.values()
    broken = replaced(make_adapter(), replace(module, alpha=float("nan")))

    with pytest.raises(InvalidAdapterFile, match=r"a: lora_unet.* holds numbers that are not finite"):
        merged((broken, 1.0), rank=rank)


def test_a_sum_beyond_half_precision_says_what_to_do() -> None:
    with pytest.raises(InvalidAdapterFile, match="use smaller strengths or --precision fp32"):
        merged((make_adapter(), 1e30), rank=2, dtype=torch.float16)


def test_adapters_of_two_families_do_not_add_up() -> None:
    with pytest.raises(InvalidAdapterFile, match="b is for sdxl, but a is for sd15"):
        merged((make_adapter(), 1.0), (make_adapter(family="sdxl"), 1.0))


def test_modules_of_two_sizes_do_not_add_up() -> None:
    module = AdapterModule(LINEAR, {"lora_down.weight": torch.ones(1, 3), "lora_up.weight": torch.ones(4, 1)}, 1.0)

    with pytest.raises(InvalidAdapterFile, match="attn1_to_q has different sizes in a and b"):
        merged((make_adapter(LINEAR), 1.0), (replaced(make_adapter(LINEAR), module), 1.0))


def test_the_metadata_is_what_the_terms_agree_on_and_where_they_came_from() -> None:
    same = {"ss_base_model_version": "sd_v1", "ss_network_args": "{}"}
    first, second = (make_adapter(metadata=same | {"ss_seed": seed, "ss_epoch": "3"}) for seed in ("1", "2"))

    metadata = merged((first, 0.7), (second, 0.3), rank=2).metadata

    assert metadata == {
        "ss_base_model_version": "sd_v1",
        "ss_network_module": "networks.lora",
        "ss_network_dim": "2",
        "ss_network_alpha": "2.0",
        "ss_network_args": '{"conv_dim": "2", "conv_alpha": "2.0"}',
        "ss_output_name": "sum",
        "modelspec.title": "sum",
        "modelspec.merged_from": "a (0.7), b (0.3)",
    }


def test_a_sum_can_be_written_and_read(tmp_path: Path) -> None:
    total = merged((make_adapter(), 0.7), (make_adapter(seed=50), 0.3))

    save_adapter(tmp_path / "sum.safetensors", total)

    read = read_adapter(tmp_path / "sum.safetensors")
    assert all(torch.allclose(delta, deltas(total)[key]) for key, delta in deltas(read).items())


class Base(nn.Module):
    """Two of the modules, at the paths that they have in a UNet."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.convolution = nn.Linear(10, 6), nn.Conv2d(4, 8, 3)

    def get_submodule(self, target: str) -> nn.Module:
        known: dict[str, nn.Module] = {LINEAR.path: self.linear, CONVOLUTION.path: self.convolution}
        if target not in known:
            raise AttributeError(target)
        return known[target]


def test_an_adapter_is_added_to_live_weights_at_its_strength() -> None:
    base, adapter = Base(), make_adapter(LINEAR, CONVOLUTION)
    before = {LINEAR: base.linear.weight.clone(), CONVOLUTION: base.convolution.weight.clone()}

    merge_into({"unet": base}, adapter, 0.4)

    for module in adapter.modules.values():
        weight = base.get_submodule(module.name.path).weight
        assert isinstance(weight, Tensor)
        assert torch.allclose(weight, before[module.name] + 0.4 * module.delta.reshape(weight.shape), atol=1e-6)
        assert weight.requires_grad


def test_a_half_precision_base_is_added_to_in_full_precision() -> None:
    base, adapter = Base().to(torch.bfloat16), make_adapter(LINEAR)
    before = base.linear.weight.clone()

    merge_into({"unet": base}, adapter, 1.0)

    expected = (before.float() + next(iter(adapter.modules.values())).delta).bfloat16()
    assert base.linear.weight.equal(expected)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (make_adapter(TEXT), "the base model has no module text_encoder.encoder.layers.0.mlp.fc1"),
        (
            AdapterModule(LINEAR, {"lora_down.weight": torch.ones(1, 3), "lora_up.weight": torch.ones(6, 1)}, 1.0),
            r"has the size \[6, 10\] in the base model, but the adapter changes \[6, 3\]",
        ),
    ],
)
def test_an_adapter_of_another_model_changes_nothing(module: Any, message: str) -> None:
    base, adapter = Base(), make_adapter(LINEAR, CONVOLUTION)
    other = module.modules.values() if isinstance(module, AdapterFile) else [module]
    before = base.convolution.weight.clone()

    with pytest.raises(InvalidAdapterFile, match=message):
        merge_into({"unet": base}, replace(replaced(adapter, *other)), 1.0)

    assert base.convolution.weight.equal(before)
