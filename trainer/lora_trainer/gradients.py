"""Adds the gradients of all processes up, once a step. Used by `loop`.

Not by accelerate's DDP: that reduces at every backward pass, also at those of an accumulation and of a batch that goes
through the model in pieces, and wants every tensor to get a gradient in each. The gradients of an adapter are small, so
one sum behind the last pass costs little; it lies between backward pass and update, outside of both.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from lora_trainer.world import World

_BUCKET_NUMBERS = 16 << 20
"""Numbers that travel at once: 64 MiB."""


class GradientSum:
    """The gradients of some parameters, and a loss, on their way to their sum over all processes."""

    def __init__(self, world: World, parameters: Sequence[Tensor], *, is_constant: bool) -> None:
        """`is_constant`: the same parameters get a gradient in every step, whatever the batch."""
        self._world, self._buckets, self._is_constant = world, list(_buckets(parameters)), is_constant
        self._parameters = parameters
        self._present: list[bool] | None = None
        self._flat: list[Tensor] = []

    def gather(self, loss: Tensor) -> None:
        """Copies the gradients of this process, in fp32, with its `loss`, a scalar; needs as much room again."""
        if self._world.size == 1:
            self._flat = [loss]
            return
        self._flat = [torch.cat([_gradient(parameter) for parameter in bucket]) for bucket in self._buckets]
        self._flat.append(loss.float().reshape(1))

    def spread(self) -> Tensor:
        """Gives every parameter the sum of its gradients; the sum of the losses. Raises PeerLost.

        The gradient of a parameter stays None where no process has one; a process without one adds nothing.
        """
        *buckets, loss = self._flat
        self._flat = []
        if self._world.size == 1:
            return loss
        present = dict(zip(map(id, self._parameters), self._which_are_present(), strict=True))
        # First all sums: a process that had no memory for a copy between two would leave the others in the next one.
        for flat in (*buckets, loss):
            self._world.add_up(flat)
        for bucket, flat in zip(self._buckets, buckets, strict=True):
            for parameter, piece in zip(bucket, torch.split(flat, [p.numel() for p in bucket]), strict=True):
                if present[id(parameter)]:
                    # A copy: sums over memory that begins elsewhere differ in their last bits.
                    parameter.grad = piece.view(parameter.shape).to(parameter.dtype, copy=True)
        return loss[0]

    def _which_are_present(self) -> list[bool]:
        if self._present is None or not self._is_constant:
            self._present = self._world.any_of([parameter.grad is not None for parameter in self._parameters])
        return self._present


def _gradient(parameter: Tensor) -> Tensor:
    """(numbers,) fp32; zeros where this process has none."""
    if parameter.grad is None:
        return torch.zeros(parameter.numel(), device=parameter.device)
    return parameter.grad.detach().flatten().to(torch.float32)


def _buckets(parameters: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """`parameters` in order, in groups that do not grow beyond the limit unless one alone does."""
    bucket: list[Tensor] = []
    numbers = 0
    for parameter in parameters:
        if bucket and numbers + parameter.numel() > _BUCKET_NUMBERS:
            yield bucket
            bucket, numbers = [], 0
        bucket.append(parameter)
        numbers += parameter.numel()
    if bucket:
        yield bucket
