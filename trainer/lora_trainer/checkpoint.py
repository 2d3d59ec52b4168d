"""The state from which a training goes on, as one file; used by `loop` and `run`.

It is small because randomness is a function of (seed, step): no generator, no place in the data is saved.
"""

import io
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_FORMAT_VERSION = 2


class UnreadableState(ValueError):
    """A file that is no training state of this version; the message says why."""


@dataclass(frozen=True)
class TrainingState:
    """Everything that the next steps depend on beside the spec, the pictures and the base model."""

    step: int
    """Updates made."""
    epoch: int
    """Epochs whose adapter lies in the store."""
    adapters: Mapping[str, Tensor]
    """Trainable tensors by name, fp32."""
    optimizer: Mapping[str, Any]
    """The optimizer's `state_dict`."""
    scaler: Mapping[str, Any]
    """The gradient scaler's `state_dict`; empty without one."""
    average: Mapping[str, Any]
    """The moving average of the adapter, as `optim.Average` states it; empty without one."""
    losses: Tensor
    """(at most steps per epoch,) the loss of each of the last steps, at place step modulo steps per epoch."""


def write_state(state: TrainingState, path: Path) -> None:
    """Writes the state; what is on a GPU is copied. Raises OSError."""
    try:
        with path.open("wb") as file:
            torch.save(_content(state), file)
    except RuntimeError as error:
        # After a failed write torch ends its archive all the same, and complains only of where that is.
        refused = error.__context__
        if isinstance(refused, OSError):
            raise OSError(refused.errno, refused.strerror) from error
        raise


def read_state(path: Path) -> TrainingState:
    """The state in `path`, on the CPU. Runs no code from the file. Raises UnreadableState."""
    return _read(path, path.name)


def state_to_bytes(state: TrainingState) -> bytes:
    """The same as a file would hold, for the other processes of the run."""
    buffer = io.BytesIO()
    torch.save(_content(state), buffer)
    return buffer.getvalue()


def state_from_bytes(data: bytes) -> TrainingState:
    """The state that `state_to_bytes` gave, on the CPU. Runs no code from it. Raises UnreadableState."""
    return _read(io.BytesIO(data), "the state of the first process")


def _content(state: TrainingState) -> dict[str, Any]:
    # Not dataclasses.asdict: it would copy every tensor.
    return {"format_version": _FORMAT_VERSION, **{field.name: getattr(state, field.name) for field in fields(state)}}


def _read(source: Path | io.BytesIO, name: str) -> TrainingState:
    try:
        content = torch.load(source, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise UnreadableState(f"{name} cannot be read ({type(error).__name__})") from error
    version = content.pop("format_version", None) if isinstance(content, dict) else None
    if version != _FORMAT_VERSION:
        raise UnreadableState(f"{name} has format version {version}, but {_FORMAT_VERSION} is understood")
    return TrainingState(**content)
