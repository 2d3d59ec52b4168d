"""The messages of the trainer to the operator: `/progress` while it runs, the termination message at its end."""

from collections.abc import Callable, Iterator
from typing import Annotated, Any

from pydantic import Field

from lora_api.exit_codes import ExitCode
from lora_api.status import (
    Artifacts,
    Checkpoint,
    CheckpointRequest,
    Count,
    EvaluationStatus,
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
    """Downloading, CheckingData, Captioning, LoadingModel, EncodingLatents, Resuming, Training, Measuring, Sampling,
    Saving, Evaluating or Stalled."""
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
    evaluation: EvaluationStatus | None = None
    """What is known of the epochs."""
    artifacts: Artifacts | None = None
    """What lies in the store."""
    starts: Count | None = None
    """How many pods of this very training have begun to write to the output, this one included."""
    resumed_from_step: Count | None = None
    """Step of the state that the trainer went on from."""
    saved_state: SavedState | None = None
    """The newest state that lies verified in the store."""
    checkpoint_request: CheckpointRequest = ""
    """The newest request for a state, by `POST /checkpoint`, that a stored state answers."""
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
        """JSON of at most 4096 bytes: what is least needed to understand the end is left out until it fits."""
        for message in self._ever_shorter():
            data = message.model_dump_json(by_alias=True, exclude_none=True).encode()
            if len(data) <= MAX_TERMINATION_BYTES:
                return data
        raise AssertionError("the shortest termination message does not fit")

    def _ever_shorter(self) -> "Iterator[TerminationMessage]":
        shorter = self
        yield shorter
        for changes in _WITHOUT:
            shorter = shorter.model_copy(update={name: change(getattr(shorter, name)) for name, change in changes})
            yield shorter


def _newest(count: int) -> Callable[[tuple[Any, ...]], tuple[Any, ...]]:
    return lambda items: items[len(items) - count :] if len(items) > count else items


def _first_words(characters: int) -> Callable[[EvaluationStatus | None], EvaluationStatus | None]:
    return lambda found: found and found.model_copy(update={"message": found.message[:characters]})


def _first(characters: int) -> Callable[[str], str]:
    return lambda text: text[:characters]


def _last_lines(characters: int) -> Callable[[str], str]:
    return lambda text: text if len(text) <= characters else text[len(text) - characters :].partition("\n")[2]


def _without_tables(plan: Plan | None) -> Plan | None:
    return plan and plan.model_copy(update={"buckets": (), "warnings": ()})


def _nothing(_: object) -> None:
    return None


_WITHOUT: tuple[tuple[tuple[str, Callable[[Any], Any]], ...], ...] = (
    (("checkpoints", _newest(10)),),
    (("checkpoints", _newest(5)), ("notices", _newest(4))),
    (("checkpoints", _newest(2)), ("log_tail", _last_lines(1400))),
    (("plan", _without_tables),),
    (("checkpoints", _newest(1)), ("notices", _newest(2)), ("log_tail", _last_lines(1000))),
    (("evaluation", _first_words(400)),),
    (("checkpoints", _newest(0)), ("message", _first(1000)), ("hint", _first(500)), ("log_tail", _last_lines(600))),
    (("notices", _newest(0)), ("memory_rungs", _newest(0)), ("plan", _nothing), ("log_tail", _last_lines(300))),
    (("artifacts", _nothing), ("best_checkpoint", _nothing), ("message", _first(600)), ("hint", _first(200))),
    (("evaluation", _first_words(100)),),
    (("saved_state", _nothing), ("log_tail", _last_lines(0)), ("message", _first(300)), ("hint", _first(150))),
)
"""What is given up, step by step, for a last word that fits."""
