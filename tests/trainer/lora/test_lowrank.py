"""Ranks by rule, and the best approximation at a rank."""

import pytest
import torch

from lora_trainer.lora.keys import ModuleName
from lora_trainer.lora.lowrank import RankRule, cut_matrix, cut_product, product_change
from tests.support.adapter_files import CONVOLUTION, LINEAR, make_module

VALUES = torch.tensor([4.0, 2.0, 2.0, 1.0, 0.0])
"""Squares 16, 4, 4, 1, 0 of 25."""


@pytest.mark.parametrize(
    ("rule", "count"),
    [
        (RankRule(rank=3), 3),
        (RankRule(rank=100), 5),
        (RankRule(energy=0.64), 1),
        (RankRule(energy=0.65), 2),
        (RankRule(energy=0.96), 3),
        (RankRule(energy=1.0), 4),
        (RankRule(energy=0.0), 1),
        (RankRule(ratio=1.5), 1),
        (RankRule(ratio=3.0), 3),
        (RankRule(ratio=100.0), 4),
        (RankRule(rank=2, energy=0.99), 2),
        (RankRule(rank=4, ratio=1.5), 1),
    ],
)
def test_as_many_values_are_kept_as_every_limit_allows(rule: RankRule, count: int) -> None:
    assert rule.count(VALUES) == count


@pytest.mark.parametrize("name", [LINEAR, CONVOLUTION])
def test_a_cut_product_is_the_truncated_decomposition(name: ModuleName) -> None:
    module = make_module(name, rank=4, alpha=3.0)
    u, values, v = torch.linalg.svd(module.delta.double())

    cut = cut_product(product_change(module), RankRule(2))

    assert torch.allclose((cut.change.up @ cut.change.down).double(), (u[:, :2] * values[:2]) @ v[:2], atol=1e-5)
    assert cut.kept_energy == pytest.approx(float(values[:2].square().sum() / values.square().sum()))


def test_a_whole_matrix_is_cut_like_a_product() -> None:
    module = make_module(CONVOLUTION, rank=4)
    product = cut_product(product_change(module), RankRule(3))

    whole = cut_matrix(CONVOLUTION, module.delta, (3, 3), RankRule(3))

    assert torch.allclose(whole.change.up @ whole.change.down, product.change.up @ product.change.down, atol=1e-4)
    assert whole.kept_energy == pytest.approx(product.kept_energy, rel=1e-5)


def test_both_sides_are_of_one_size() -> None:
    cut = cut_product(product_change(make_module(LINEAR, rank=4)), RankRule(4))

    assert torch.allclose(cut.change.up.norm(dim=0), cut.change.down.norm(dim=1), rtol=1e-4)


def test_a_module_of_zeros_stays_one() -> None:
    module = make_module(LINEAR, rank=4, alpha=0.0)

    cut = cut_product(product_change(module), RankRule(energy=0.9))

    assert (cut.change.rank, cut.kept_energy) == (1, 1.0)
    assert not cut.change.up.any() and bool(cut.change.down.isfinite().all())


@pytest.mark.parametrize("alpha", [1.0, 4.0, 0.5])
def test_the_alpha_changes_the_tensors_and_not_what_they_do(alpha: float) -> None:
    source = make_module(CONVOLUTION, rank=4)

    module = product_change(source).module(alpha, torch.float32)

    assert (module.alpha, module.down.shape, module.up.shape) == (alpha, (4, 4, 3, 3), (8, 4, 1, 1))
    assert torch.allclose(module.delta, source.delta, atol=1e-5)
