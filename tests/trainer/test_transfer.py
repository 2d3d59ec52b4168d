"""A GPU is not waited for while something is brought to it."""

from typing import Any

import torch

from lora_trainer.transfer import to_device


class Noting:
    """A tensor on the CPU that notes what is asked of it."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def pin_memory(self) -> "Noting":
        self.asked.append("pinned")
        return self

    def to(self, device: Any, *, non_blocking: bool) -> "Noting":
        self.asked.append((str(device), non_blocking))
        return self


def test_what_goes_to_a_gpu_is_pinned_so_that_its_copy_waits_for_nothing() -> None:
    tensor = Noting()

    to_device(tensor, torch.device("cuda", 0))  # type: ignore[arg-type]

    assert tensor.asked == ["pinned", ("cuda:0", True)]


def test_what_stays_on_the_cpu_stays_as_it_is() -> None:
    tensor = torch.ones(2)

    assert to_device(tensor, "cpu") is tensor
