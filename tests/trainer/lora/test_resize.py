"""Adapters at another rank do the same at the same strength."""

from pathlib import Path

import pytest
import torch

from lora_trainer.lora.adapter import AdapterFile, InvalidAdapterFile
from lora_trainer.lora.lowrank import RankRule
from lora_trainer.lora.resize import Resized, resize_adapter
from tests.support.adapter_files import (
    CONVOLUTION,
    LINEAR,
    TEXT,
    make_adapter,
    make_dora,
    make_loha,
    make_lokr,
    make_module,
    replaced,
)


def resized(adapter: AdapterFile, rule: RankRule) -> Resized:
    """`adapter` under the name a."""
    return resize_adapter(adapter, rule, name="a.safetensors", out=Path("small.safetensors"))


def test_a_larger_rank_changes_nothing() -> None:
    adapter = make_adapter(rank=2, alpha=3.0)

    result = resized(adapter, RankRule(64))

    for key, module in result.adapter.modules.items():
        assert torch.allclose(module.delta, adapter.modules[key].delta, atol=1e-5)
        assert result.kept_energy[key] == pytest.approx(1.0)


def test_a_smaller_rank_keeps_the_ratio_of_alpha_to_rank() -> None:
    result = resized(make_adapter(rank=4, alpha=2.0), RankRule(2))

    assert {(module.rank, module.alpha) for module in result.adapter.modules.values()} == {(2, 1.0)}


def test_the_kept_energy_is_what_the_change_lost() -> None:
    adapter = make_adapter(rank=4)

    result = resized(adapter, RankRule(2))

    for key, kept in result.kept_energy.items():
        before, after = adapter.modules[key].delta, result.adapter.modules[key].delta
        lost = (before - after).square().sum() / before.square().sum()
        assert kept == pytest.approx(1 - float(lost), abs=1e-5)


def test_an_energy_gives_every_module_its_own_rank_and_all_one_alpha() -> None:
    thin = make_module(LINEAR, rank=1, alpha=0.5)
    adapter = replaced(make_adapter(LINEAR, TEXT, rank=4, alpha=2.0), thin)

    result = resized(adapter, RankRule(energy=0.99999))

    modules = {module.name: module for module in result.adapter.modules.values()}
    assert (modules[LINEAR].rank, modules[TEXT].rank) == (1, 4)
    assert {module.alpha for module in modules.values()} == {2.0}
    assert min(result.kept_energy.values()) >= 0.99999
    assert torch.allclose(modules[LINEAR].delta, thin.delta, atol=1e-5)


def test_a_loha_and_a_lokr_become_plain() -> None:
    adapter = replaced(make_adapter(), make_loha(LINEAR), make_lokr(CONVOLUTION))

    result = resized(adapter, RankRule(64))

    assert result.adapter.type == "locon"
    for key, module in result.adapter.modules.items():
        assert torch.allclose(module.delta, adapter.modules[key].delta, atol=1e-4)
    assert next(m for m in result.adapter.modules.values() if m.name == CONVOLUTION).down.shape[1:] == (4, 3, 3)


def test_a_dora_says_what_to_do_instead() -> None:
    adapter = replaced(make_adapter(), make_dora(LINEAR))

    with pytest.raises(InvalidAdapterFile, match=r"`lora merge a\.safetensors --base BASE --rank N --out small"):
        resized(adapter, RankRule(2))


def test_numbers_that_are_not_finite_are_told() -> None:
    broken = make_adapter()
    next(iter(broken.modules.values())).up.fill_(float("inf"))

    with pytest.raises(InvalidAdapterFile, match="holds numbers that are not finite; take one from before"):
        resized(broken, RankRule(2))


def test_the_number_format_stays() -> None:
    result = resized(make_adapter(dtype=torch.bfloat16), RankRule(2))

    assert {module.dtype for module in result.adapter.modules.values()} == {torch.bfloat16}


def test_the_metadata_tells_the_new_rank_and_the_source() -> None:
    metadata = {"ss_network_dim": "4", "ss_network_alpha": "2.0", "ss_tag_frequency": "{}", "ss_epoch": "3"}

    result = resized(make_adapter(LINEAR, rank=4, metadata=metadata), RankRule(2))

    assert result.adapter.metadata == {
        "ss_network_module": "networks.lora",
        "ss_network_dim": "2",
        "ss_network_alpha": "1.0",
        "ss_tag_frequency": "{}",
        "ss_output_name": "small",
        "modelspec.title": "small",
        "modelspec.merged_from": "a.safetensors (resized)",
    }


def test_ranks_that_differ_are_called_dynamic_as_sd_scripts_does() -> None:
    adapter = replaced(make_adapter(LINEAR, TEXT, rank=4), make_module(LINEAR, rank=1))

    metadata = resized(adapter, RankRule(energy=0.99999)).adapter.metadata

    assert (metadata["ss_network_dim"], metadata["ss_network_alpha"]) == ("Dynamic", "Dynamic")
