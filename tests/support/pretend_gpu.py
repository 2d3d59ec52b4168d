"""A pretend GPU: tensors that compute on the CPU, but lie on another device for everyone who asks.

Finds without a GPU what only a GPU would find: operations on tensors of two devices, and places where the program
waits for the device. Its device is `meta`, the one other device that every build of PyTorch has.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

PRETEND = torch.device("meta")

_aten = torch.ops.aten
_READING = (_aten._local_scalar_dense.default, _aten.nonzero.default, _aten.masked_select.default, _aten.equal.default)
"""What gives the host a number, or a shape, that the device has to find first."""
_TAKING_HOST_SCALARS = "a 0-d tensor of the CPU may be an operand, but no part of a stack"


class OnPretendGpu(Tensor):
    """A tensor on the pretend GPU; `held` is what it holds, on the CPU."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "OnPretendGpu":
        made: OnPretendGpu = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, held.shape, strides=held.stride(), dtype=held.dtype, device=PRETEND
        )
        made.held = held
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(func, args, kwargs or {}, [])


class _Pretending(TorchDispatchMode):
    def __init__(self, waits: list[str]) -> None:
        super().__init__()
        self._waits = waits

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(func, args, kwargs or {}, self._waits)


@contextmanager
def pretend_gpu() -> Iterator[list[str]]:
    """`PRETEND` can be used inside; gives the list to which every operation that waits for it is added."""
    swapped = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)
    lifted = torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)
    waits: list[str] = []
    try:
        # Fused kernels are asked for by the device's name.
        with (
            patch("torch.optim.optimizer._get_fused_kernels_supported_devices", lambda: [PRETEND.type]),
            _Pretending(waits),
        ):
            yield waits
    finally:
        torch._C._set_only_lift_cpu_tensors(lifted)
        torch.__future__.set_swap_module_params_on_conversion(swapped)


def on_cpu(tensor: Tensor) -> Tensor:
    """What the tensor holds."""
    return tensor.detach().held if isinstance(tensor.detach(), OnPretendGpu) else tensor.detach()


def _computed(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], waits: list[str]) -> Any:
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    there = [tensor for tensor in tensors if isinstance(tensor, OnPretendGpu)]
    if func is _aten._to_copy.default:
        return _moved(func, args, kwargs, waits)
    if not there and not _is_there(kwargs.get("device")):
        return func(*args, **kwargs)
    if func in _READING:
        waits.append(f"{func}")
    elif func is _aten.copy_.default:
        if len(there) == 1 and not (len(args) > 2 and args[2]):
            waits.append(f"copy_ of {tuple(args[1].shape)}")
    elif there:
        _check_devices(func, [tensor for tensor in tensors if not isinstance(tensor, OnPretendGpu)])
    result = func(*tree_map(_held, args), **{name: _held(value) for name, value in kwargs.items()})
    written = [place for place, argument in enumerate(func._schema.arguments) if _is_written(argument)]
    if written and func._schema.returns:
        return args[written[0]] if written[0] < len(args) else kwargs[func._schema.arguments[written[0]].name]
    return tree_map(_there, result)


def _moved(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], waits: list[str]) -> Any:
    begins, wanted = isinstance(args[0], OnPretendGpu), kwargs.get("device")
    ends = begins if wanted is None else _is_there(wanted)
    if begins != ends and not kwargs.get("non_blocking"):
        waits.append(f"copy of {tuple(args[0].shape)} {'to' if ends else 'from'} the device")
    result = func(_held(args[0]), **{name: _held(value) for name, value in kwargs.items()})
    return OnPretendGpu(result) if ends else result


def _check_devices(func: Any, others: Sequence[Tensor]) -> None:
    stacks = func in (_aten.cat.default, _aten.stack.default)
    if any(other.dim() > 0 or stacks for other in others):
        raise RuntimeError(f"{func} of tensors on two devices ({_TAKING_HOST_SCALARS})")


def _is_written(argument: Any) -> bool:
    return argument.alias_info is not None and argument.alias_info.is_write


def _is_there(device: Any) -> bool:
    return device is not None and torch.device(device) == PRETEND


def _held(value: Any) -> Any:
    if isinstance(value, OnPretendGpu):
        return value.held
    if isinstance(value, torch.device):
        return torch.device("cpu")
    return tree_map(_held, value) if isinstance(value, list | tuple) else value


_there: Callable[[Any], Any] = lambda value: OnPretendGpu(value) if isinstance(value, Tensor) else value  # noqa: E731
