"""Trains with ever less where the device has too little memory: the loop around `memory`. Used by `run` and `follow`.

All processes of a run take the same rungs: they see the same errors (`loop`), and the next rung follows from the spec.
"""

import gc
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from lora_api.exit_codes import ExitCode, outcome_of
from lora_api.spec import LoraTrainingSpec
from lora_api.status import MemoryRung
from lora_trainer import memory
from lora_trainer.errors import OutOfMemory
from lora_trainer.memory import StepTooLarge

Result = TypeVar("Result")


def descend(
    spec: LoraTrainingSpec,
    rungs: tuple[MemoryRung, ...],
    train: Callable[[tuple[MemoryRung, ...]], Result],
    *,
    on_rung: Callable[[MemoryRung], None] = lambda rung: None,
) -> Result:
    """What `train` gives with `rungs`; after a step that was too large it is called again, with one more.

    Raises:
        OutOfMemory: the spec wants no ladder, or its end is reached.
    """
    while True:
        try:
            return train(rungs)
        except StepTooLarge as error:
            rungs = (*rungs, _next_rung(spec, rungs, error))
        # Model and optimizer go with the frames of the error; this gives their room back to the device.
        gc.collect()
        torch.cuda.empty_cache()
        on_rung(rungs[-1])


def _next_rung(spec: LoraTrainingSpec, rungs: Sequence[MemoryRung], error: StepTooLarge) -> MemoryRung:
    message = f"the GPU has too little memory for a step: {error}"
    if spec.retry.on_out_of_memory == "Fail":
        cure = outcome_of(ExitCode.OUT_OF_MEMORY).hint + " Or set retry.onOutOfMemory: Ladder."
        raise OutOfMemory(message, hint=cure) from error
    rung = memory.next_rung(spec, rungs, step=error.step)
    if rung is None:
        tried = ", ".join(rung.name for rung in rungs) or "nothing, for there was nothing to give up"
        raise OutOfMemory(f"{message}; the ladder has ended, it gave up {tried}") from error
    return rung
