"""The sum over processes when one of them cannot go on; sums themselves are in test_several_processes."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from lora_trainer import gradients
from lora_trainer.gradients import GradientSum
from lora_trainer.world import World


class CountingWorld(World):
    """One of two processes, the other one of which is not asked."""

    sums = 0

    def add_up(self, tensor: Tensor) -> None:
        self.sums += 1

    def any_of(self, flags: Sequence[bool]) -> list[bool]:
        return list(flags)


def test_a_process_without_memory_for_a_gradient_leaves_no_sum_that_others_wait_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def split(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(gradients, "_BUCKET_NUMBERS", 1)
    parameters = [torch.nn.Parameter(torch.ones(2)) for _ in range(3)]
    for parameter in parameters:
        parameter.grad = torch.ones(2)
    world = CountingWorld(0, 2)
    gathered = GradientSum(world, parameters, is_constant=True)
    gathered.gather(torch.tensor(1.0))
    monkeypatch.setattr(torch, "split", split)

    with pytest.raises(torch.OutOfMemoryError):
        gathered.spread()

    assert world.sums == len(parameters) + 1
