"""Exponential moving average of the adapter's weights; kept by `loop`, saved and drawn instead of them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from lora_api.training_spec import Ema


class Average:
    """a <- d a + (1 - d) w after every n-th step, with d = min(decay, (1 + k) / (10 + k)) at the k-th update.

    The low d of the first updates keeps the start, where the adapter does nothing yet, from lingering; a function
    of the step, so the state is the average alone.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], ema: Ema) -> None:
        """Starts at the weights as they are; the average is fp32 on their device."""
        self._parameters, self._ema = dict(parameters), ema
        self._average = {name: p.detach().to(torch.float32, copy=True) for name, p in parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Takes the weights in after `step` steps (from 1), if it is the turn of this step."""
        if step % self._ema.every_steps:
            return
        updates = step // self._ema.every_steps
        decay = min(self._ema.decay, (1 + updates) / (10 + updates))
        weights = [parameter.float() for parameter in self._parameters.values()]
        torch._foreach_lerp_(list(self._average.values()), weights, 1 - decay)

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Puts the average in place of the weights; every bit of them is back afterwards."""
        weights = {name: parameter.detach().clone() for name, parameter in self._parameters.items()}
        self._write(self._average)
        try:
            yield
        finally:
            self._write(weights)

    def state(self) -> dict[str, Tensor]:
        """The average by the names of the weights, shared with this object."""
        return self._average

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Goes on from what `state` gave."""
        assert set(state) == set(self._average), "the average is of another network although the digests fit"
        for name, average in self._average.items():
            average.copy_(state[name])

    @torch.no_grad()
    def _write(self, values: Mapping[str, Tensor]) -> None:
        for name, parameter in self._parameters.items():
            parameter.copy_(values[name])
