"""The messages of the trainer to the operator: `/progress` while it runs, the termination message at its end."""

from typing import Annotated

from pydantic import Field

from lora_api.exit_codes import ExitCode
from lora_api.status import (
    Artifacts,
    Checkpoint,
    Count,
    MemoryRung,
    Message,
    Notice,
    Plan,
    Progress,
    SavedState,
    StatusModel,
    Time,
)

MAX_TERMINATION_BYTES = 4096
"""What a kubelet keeps of a termination message."""


class ProgressReport(StatusModel):
    """What the trainer is doing now (the JSON of `GET /progress`)."""

    reason: Annotated[str, Field(max_length=64)] = "Starting"
    """Downloading, CheckingData, LoadingModel, EncodingLatents, Resuming, Training, Sampling, Saving or Stalled."""
    message: Message = ""
    """The same as a sentence."""
    plan: Plan | None = None
    """Known once the dataset was read."""
    progress: Progress | None = None
    """Known once training began."""
    checkpoints: Annotated[tuple[Checkpoint, ...], Field(max_length=20)] = ()
    """The newest adapters that were verified and stored."""
    best_checkpoint: Checkpoint | None = None
    """The adapter that did best on held-out pictures."""
    artifacts: Artifacts | None = None
    """What lies in the store."""
    starts: Count | None = None
    """How often a trainer of this very training has begun to write to the output, this time included."""
    resumed_from_step: Count | None = None
    """Step of the state that the trainer went on from."""
    saved_state: SavedState | None = None
    """The newest state that lies verified in the store."""
    memory_rungs: Annotated[tuple[MemoryRung, ...], Field(max_length=16)] = ()
    """What was given up for memory, in order."""
    active_time: Time | None = None
    """Last sign of life: a step, a picture, bytes from or to the store."""
    patience_seconds: Count | None = None
    """Silence for longer than this is unusual for what is being done."""
    notices: Annotated[tuple[Notice, ...], Field(max_length=8)] = ()
    """The newest things to tell once."""
    dataset_digest: Annotated[str, Field(max_length=64)] | None = None
    """Digest of the pictures and captions, once they were read."""


class TerminationMessage(ProgressReport):
    """The trainer's last word, kept by the kubelet after the pod is gone."""

    exit_code: Annotated[int, Field(ge=0, le=255)] = int(ExitCode.COMPLETED)
    """Exit code that follows."""
    step: Count | None = None
    """Step at which it ended."""
    hint: Message = ""
    """What to do about it."""
    log_tail: Annotated[str, Field(max_length=2000)] = ""
    """The last lines of the log, when it failed."""

    def to_bytes(self) -> bytes:
        """JSON of at most 4096 bytes: old checkpoints, then buckets, then words are left out until it fits."""
        for message in self._ever_shorter():
            data = message.model_dump_json(by_alias=True, exclude_none=True).encode()
            if len(data) <= MAX_TERMINATION_BYTES:
                return data
        raise AssertionError("the shortest termination message does not fit")

    def _ever_shorter(self) -> "list[TerminationMessage]":
        without_plan_tables = self.plan and self.plan.model_copy(update={"buckets": (), "warnings": ()})
        shorter = [self]
        for keep in (10, 5, 2, 1, 0):
            kept = self.checkpoints[-keep:] if keep else ()
            shorter.append(self.model_copy(update={"checkpoints": kept}))
        last = shorter[-1].model_copy(update={"plan": without_plan_tables})
        shorter.append(last)
        shorter.append(
            last.model_copy(
                update={"artifacts": None, "message": self.message[:400], "hint": self.hint[:200], "plan": None}
            )
        )
        return shorter
