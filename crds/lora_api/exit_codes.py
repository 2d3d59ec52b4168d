"""The one table of exit codes: what the trainer says by ending, what the Job does, and who must act."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

Policy = Literal["FailJob", "Ignore", "Count"]
Actor = Literal["nobody", "user", "cluster operator", "us"]


class ExitCode(IntEnum):
    """Exit codes of the trainer; 64 to 78 follow sysexits.h where it has a fitting one."""

    COMPLETED = 0
    INVALID_CONFIGURATION = 64
    INVALID_DATASET = 65
    BASE_MODEL_UNAVAILABLE = 66
    STORAGE_UNAVAILABLE = 69
    OUT_OF_MEMORY = 70
    DIVERGED = 71
    STALLED = 72
    INTERRUPTED = 75
    INTERRUPTED_UNSAVED = 76
    ACCESS_DENIED = 77
    KILLED = 137
    TERMINATED = 143


@dataclass(frozen=True)
class Outcome:
    """What one exit code means."""

    code: int | None
    """None: any other code."""
    reason: str
    """Reason in `status.failure` and in the Succeeded condition."""
    policy: Policy | None
    """What the Job does; None: the pod succeeded."""
    actor: Actor
    """Who must act."""
    hint: str
    """What to do about it."""


OUTCOMES: tuple[Outcome, ...] = (
    Outcome(ExitCode.COMPLETED, "Completed", None, "nobody", "The final manifest is in the store."),
    Outcome(
        ExitCode.INVALID_CONFIGURATION,
        "InvalidConfiguration",
        "FailJob",
        "user",
        "Correct the named field and create a new LoraTraining.",
    ),
    Outcome(
        ExitCode.INVALID_DATASET,
        "InvalidDataset",
        "FailJob",
        "user",
        "Correct the named file or folder of the dataset and create a new LoraTraining.",
    ),
    Outcome(
        ExitCode.BASE_MODEL_UNAVAILABLE,
        "BaseModelUnavailable",
        "FailJob",
        "user",
        "Check spec.baseModel: the URI, the family, and access to gated models.",
    ),
    Outcome(
        ExitCode.STORAGE_UNAVAILABLE,
        "StorageUnavailable",
        "Count",
        "cluster operator",
        "The store did not answer after retries; check spec.storage.endpoint and the network.",
    ),
    Outcome(
        ExitCode.OUT_OF_MEMORY,
        "OutOfMemory",
        "FailJob",
        "user",
        "Lower training.batchSize or dataset.resolution, or set training.gradientCheckpointing.",
    ),
    Outcome(
        ExitCode.DIVERGED,
        "Diverged",
        "FailJob",
        "user",
        "The loss is no longer a number; lower the learning rates or use precision bf16 or fp32.",
    ),
    Outcome(
        ExitCode.STALLED,
        "Stalled",
        "Count",
        "cluster operator",
        "The trainer gave no sign of life; the log of the attempt shows where it hung. The next pod goes on from the "
        "newest state.",
    ),
    Outcome(ExitCode.INTERRUPTED, "Interrupted", "Ignore", "nobody", "The state was saved; the next pod goes on."),
    Outcome(
        ExitCode.INTERRUPTED_UNSAVED,
        "InterruptedUnsaved",
        "Ignore",
        "nobody",
        "The state could not be saved in time; the next pod goes on from the state before.",
    ),
    Outcome(
        ExitCode.ACCESS_DENIED,
        "AccessDenied",
        "FailJob",
        "user",
        "Check the credentials in spec.storage.credentialsSecretRef and what they may do.",
    ),
    Outcome(
        ExitCode.KILLED,
        "Killed",
        "Count",
        "user",
        "The pod was killed, most often for its memory; raise spec.pod.resources.limits.memory.",
    ),
    Outcome(
        ExitCode.TERMINATED,
        "Interrupted",
        "Ignore",
        "nobody",
        "Told to stop before the trainer had begun; the next pod goes on from the newest state.",
    ),
    Outcome(None, "TrainerCrashed", "Count", "us", "An error of the trainer; please report it with the pod's log."),
)

_BY_CODE = {outcome.code: outcome for outcome in OUTCOMES}


def outcome_of(code: int) -> Outcome:
    """The meaning of an exit code; unknown codes are crashes."""
    return _BY_CODE.get(code, _BY_CODE[None])


def codes_with(policy: Policy) -> tuple[int, ...]:
    """Exit codes that a Job treats alike, ascending."""
    return tuple(sorted(o.code for o in OUTCOMES if o.policy == policy and o.code is not None))
