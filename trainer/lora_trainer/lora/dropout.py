"""Leaves parts of the adapters out while they are trained; used by `lora.inject`.

As sd-scripts' `networks.lora` does: elements behind A, whole ranks per picture, whole modules per forward pass. All
masks are functions of (seed, step, micro-batch, module), so a resumed run, and the second forward pass of gradient
checkpointing, see the same ones. Masks are drawn where the activations are: GPUs and CPUs draw different ones.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lora_api.model_spec import Network
from lora_trainer.lora.layer import ADAPTER, AdaptedLayer
from lora_trainer.rng import Purpose, derive_seed, uniform


@dataclass(frozen=True)
class Share:
    """Which examples of a batch go through the model together: from `first` to below `last`, of `count`."""

    first: int
    last: int
    count: int

    def rows_of(self, rows: int) -> tuple[int, slice]:
        """(rows of the whole batch, where these lie), for values of which every example has as many rows."""
        each = rows // (self.last - self.first)
        return each * self.count, slice(each * self.first, each * self.last)


class Dropout:
    """The dropout of all layers of a run. Nothing is dropped outside of `at`."""

    def __init__(self, network: Network, *, seed: int) -> None:
        self._elements, self._ranks, self._modules = network.dropout, network.rank_dropout, network.module_dropout
        self._seed = seed
        self._now: tuple[int, int] | None = None
        self._share: Share | None = None

    def install(self, layers: Sequence[AdaptedLayer]) -> None:
        """Makes the layers drop elements and ranks; LoHa and LoKr, which have no ranks to drop, drop output rows."""
        for layer in layers:
            if self._elements == self._ranks == 0:
                continue
            if layer.type in ("loha", "lokr"):
                _drop_rows(layer, self._ranks_dropped)
            else:
                layer.layer.lora_A[ADAPTER].register_forward_hook(self._inner_hook(layer.name))

    @contextmanager
    def at(self, step: int, micro: int, share: Share | None = None) -> Iterator[None]:
        """Drops, with the masks of a micro-batch, until the end of the block, which holds the backward pass too.

        With a `share` of its examples, each gets the mask that it would get in the whole batch.
        """
        self._now, self._share = (step, micro), share
        try:
            yield
        finally:
            self._now = self._share = None

    def skipped(self, layers: Sequence[AdaptedLayer]) -> list[AdaptedLayer]:
        """The layers that the current micro-batch leaves out; never all, or there would be nothing to train."""
        if self._now is None or self._modules == 0:
            return []
        coins = [uniform(self._seed, Purpose.NETWORK_DROPOUT, "module", *self._now, layer.name) for layer in layers]
        highest = max(coins)
        return [layer for layer, coin in zip(layers, coins, strict=True) if coin < min(self._modules, highest)]

    def _inner_hook(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        def drop(down: nn.Module, _: tuple[Tensor, ...], inner: Tensor) -> Tensor:
            if self._now is None:
                return inner
            if self._elements > 0:
                inner = self._dropped(inner, inner.shape, self._elements, "element", name)
            return self._ranks_dropped(inner, is_convolution=isinstance(down, nn.Conv2d), name=name)

        return drop

    def _ranks_dropped(self, values: Tensor, *, is_convolution: bool, name: str) -> Tensor:
        """Drops channels of values (B, r, h, w), or (B, ..., r), each picture its own."""
        if self._now is None or self._ranks == 0:
            return values
        batch, between = values.shape[0], (1,) * (values.dim() - 2)
        shape = (batch, values.shape[1], *between) if is_convolution else (batch, *between, values.shape[-1])
        return self._dropped(values, shape, self._ranks, "rank", name)

    def _dropped(self, values: Tensor, shape: Sequence[int], share: float, kind: str, name: str) -> Tensor:
        assert self._now is not None
        seed = derive_seed(self._seed, Purpose.NETWORK_DROPOUT, kind, *self._now, name)
        random = torch.Generator(values.device).manual_seed(seed)
        rows, mine = (shape[0], slice(None)) if self._share is None else self._share.rows_of(shape[0])
        drawn = torch.empty((rows, *shape[1:]), dtype=values.dtype, device=values.device)
        kept = drawn.bernoulli_(1 - share, generator=random)[mine]
        return values * kept * (1 / (1 - share))


def _drop_rows(layer: AdaptedLayer, drop: Callable[..., Tensor]) -> None:
    """PEFT adds up W x and what this method gives: the rows of the change are its channels."""
    change_of, is_convolution = layer.layer._get_delta_activations, isinstance(layer.base, nn.Conv2d)

    def dropped_change(*args: object, **kwargs: object) -> Tensor:
        return drop(change_of(*args, **kwargs), is_convolution=is_convolution, name=layer.name)

    layer.layer._get_delta_activations = dropped_change
