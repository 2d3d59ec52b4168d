"""Two thin matrices for a weight change: singular value decomposition, cut at a rank. Used by merges and resizes."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lora_trainer.lora.adapter import DOWN, UP, AdapterModule
from lora_trainer.lora.keys import ModuleName


@dataclass(frozen=True)
class RankRule:
    """How many singular values are kept: at least one, and at most what every limit allows."""

    rank: int | None = None
    """At most so many."""
    energy: float | None = None
    """As few as hold this share of the sum of squares."""
    ratio: float | None = None
    """Those larger than the largest divided by this (kohya's sv_ratio)."""

    def count(self, values: Tensor) -> int:
        """Values to keep of `values`, largest first."""
        count = len(values) if self.rank is None else min(self.rank, len(values))
        if self.energy is not None:
            shares = values.square().cumsum(0) / values.square().sum()
            count = min(count, int((shares < self.energy - _ROUNDING).sum()) + 1)
        if self.ratio is not None:
            count = min(count, int((values > values[0] / self.ratio).sum()))
        return max(1, count)


_ROUNDING = 1e-9
"""A cumulated share misses 1 by so little."""


@dataclass(frozen=True)
class Change:
    """A weight change of one module as a product: (out, r) times (r, in * k * k), in fp32."""

    name: ModuleName
    up: Tensor
    down: Tensor
    kernel: tuple[int, ...]
    """(k, k) of a convolution, () of a linear layer."""

    @property
    def rank(self) -> int:
        """Inner size."""
        return int(self.down.shape[0])

    def module(self, alpha: float, dtype: torch.dtype) -> AdapterModule:
        """The LoRA module with this alpha whose change this is."""
        outputs, rank, scale = len(self.up), self.rank, alpha / self.rank
        up = (self.up / scale).to(dtype).reshape(outputs, rank, *[1] * len(self.kernel))
        down = self.down.to(dtype).reshape(rank, -1, *self.kernel)
        return AdapterModule(self.name, {DOWN: down, UP: up}, alpha)


@dataclass(frozen=True)
class Cut:
    """A change cut to a rank, balanced between its two sides, and the share of its sum of squares that is left."""

    change: Change
    kept_energy: float


def product_change(module: AdapterModule, weight: float = 1.0) -> Change:
    """`weight` times the change of a plain LoRA module, as it is."""
    kernel = tuple(module.down.shape[2:])
    factor = weight * module.scale
    return Change(module.name, module.up.float().flatten(1) * factor, module.down.float().flatten(1), kernel)


def joined(changes: Sequence[Change]) -> Change:
    """The exact sum: the inner sizes add up."""
    first = changes[0]
    up = torch.cat([change.up for change in changes], dim=1)
    return Change(first.name, up, torch.cat([change.down for change in changes]), first.kernel)


def cut_product(change: Change, rule: RankRule) -> Cut:
    """`change` at a smaller rank: the best in the Frobenius norm (Eckart and Young 1936).

    QR of both sides first, so that only an (r, r) matrix is decomposed.
    """
    q_up, r_up = torch.linalg.qr(change.up.double())
    q_down, r_down = torch.linalg.qr(change.down.double().T)
    u, values, v = torch.linalg.svd(r_up @ r_down.T)
    return _cut(change, (q_up @ u, values, v @ q_down.T), rule)


def cut_matrix(name: ModuleName, matrix: Tensor, kernel: tuple[int, ...], rule: RankRule) -> Cut:
    """A whole weight change (out, in * k * k) as a product of rank `rule`."""
    u, values, v = torch.linalg.svd(matrix.float(), full_matrices=False)
    return _cut(Change(name, u, v, kernel), (u, values, v), rule)


def _cut(change: Change, decomposed: tuple[Tensor, Tensor, Tensor], rule: RankRule) -> Cut:
    u, values, v = decomposed
    total = values.square().sum()
    count = rule.count(values) if total > 0 else 1
    root = values[:count].sqrt()
    product = Change(change.name, (u[:, :count] * root).float(), (root[:, None] * v[:count]).float(), change.kernel)
    return Cut(product, float(values[:count].square().sum() / total) if total > 0 else 1.0)
