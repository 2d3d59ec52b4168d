"""Everything that ends a training early: one class per who must act, each with its exit code.

TrainingError
├── InvalidConfiguration (64)   user: the spec
├── InvalidDataset (65)         user: the pictures or captions
├── BaseModelUnavailable (66)   user: the base model
├── StorageUnavailable (69)     nobody at first (retried), then who runs the cluster
├── OutOfMemory (70)            user: batch size, resolution
├── Diverged (71)               user: learning rates, precision
├── Stalled (72)                who runs the cluster: the process hung
├── Interrupted (75)            nobody: the next pod goes on
├── InterruptedUnsaved (76)     nobody: the next pod goes on from the state before
│   └── Superseded              nobody: another process writes to the output
└── AccessDenied (77)           user: credentials

Raised all over the trainer with a message for people; `__main__` turns it into the exit code.
"""

from collections.abc import Sequence
from typing import ClassVar

from lora_api.exit_codes import ExitCode, outcome_of

_SHOWN_PROBLEMS = 20


class TrainingError(Exception):
    """Ends the training with `exit_code`; `str()` says what is wrong, `hint` what to do about it."""

    exit_code: ClassVar[ExitCode]

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = outcome_of(self.exit_code).hint if hint is None else hint

    @property
    def reason(self) -> str:
        """The CamelCase word that the operator shows in `status.failure.reason`."""
        return outcome_of(self.exit_code).reason


class InvalidConfiguration(TrainingError):
    """The spec cannot be carried out; the message names the field."""

    exit_code = ExitCode.INVALID_CONFIGURATION


class InvalidDataset(TrainingError):
    """Pictures or captions cannot be used; the message names every file."""

    exit_code = ExitCode.INVALID_DATASET

    @classmethod
    def listing(cls, problems: Sequence[str]) -> "InvalidDataset":
        """One error for all problems; the first 20 are shown."""
        lines = [f"the dataset has {len(problems)} problem{'s' if len(problems) > 1 else ''}:"]
        lines += [f"- {problem}" for problem in problems[:_SHOWN_PROBLEMS]]
        if len(problems) > _SHOWN_PROBLEMS:
            lines.append(f"- and {len(problems) - _SHOWN_PROBLEMS} more")
        return cls("\n".join(lines))


class BaseModelUnavailable(TrainingError):
    """The base model is missing, gated or of another family."""

    exit_code = ExitCode.BASE_MODEL_UNAVAILABLE


class StorageUnavailable(TrainingError):
    """The object store or the disk failed, after retries."""

    exit_code = ExitCode.STORAGE_UNAVAILABLE


class OutOfMemory(TrainingError):
    """The device has too little memory."""

    exit_code = ExitCode.OUT_OF_MEMORY


class Diverged(TrainingError):
    """The loss or a gradient is no longer a number."""

    exit_code = ExitCode.DIVERGED


class Stalled(TrainingError):
    """No sign of life for too long; raised by nobody: the watchdog ends the process in its name."""

    exit_code = ExitCode.STALLED


class Interrupted(TrainingError):
    """Told to stop; the state lies in the store."""

    exit_code = ExitCode.INTERRUPTED


class InterruptedUnsaved(TrainingError):
    """Told to stop; the state could not be stored in time."""

    exit_code = ExitCode.INTERRUPTED_UNSAVED


class Superseded(InterruptedUnsaved):
    """Another process writes to the output now; this one has written nothing since."""

    def __init__(self, message: str) -> None:
        super().__init__(message, hint="Nothing has to be done: the other process goes on.")


class AccessDenied(TrainingError):
    """The store or the hub refuses these credentials."""

    exit_code = ExitCode.ACCESS_DENIED
