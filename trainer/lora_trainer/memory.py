"""What is given up, one after the other, when a step needs more memory than the GPU has. Pure; used by `run`.

The ladder (`spec.retry.onOutOfMemory: Ladder`): half of each batch at a time, as often as it can be halved; gradient
checkpointing; the 8-bit form of the optimizer. Batches, steps, noise and digests stay what they are: with half of each
batch only the order of additions changes. What was taken lies in the output, where the next start finds it.
"""

import json
import logging
from collections.abc import Mapping, Sequence

from pydantic import ValidationError

from lora_api.optimizer_arguments import ARGUMENTS
from lora_api.spec import LoraTrainingSpec
from lora_api.status import MemoryRung

logger = logging.getLogger(__name__)

RUNGS_KEY = "state/memory.json"
HALF_BATCH, GRADIENT_CHECKPOINTING, EIGHT_BIT_OPTIMIZER = "HalfBatch", "GradientCheckpointing", "EightBitOptimizer"
_EIGHT_BIT_FORMS: Mapping[str, str] = {
    "adamw": "adamw8bit",
    "pagedadamw": "pagedadamw8bit",
    "pagedadamw32bit": "pagedadamw8bit",
    "lion": "lion8bit",
    "sgdnesterov": "sgdnesterov8bit",
}


class StepTooLarge(Exception):
    """The device had too little memory for a step; the step was not made, and the trainer cannot be used any more."""

    def __init__(self, message: str, *, step: int) -> None:
        super().__init__(message)
        self.step = step
        """Steps made before it."""


def next_rung(spec: LoraTrainingSpec, taken: Sequence[MemoryRung], *, step: int) -> MemoryRung | None:
    """What to give up next, from `step` on; None: nothing is left."""
    batch, at_once = spec.training.batch_size, examples_at_once(spec, taken)
    if at_once > 1:
        half = (at_once + 1) // 2
        message = f"the batch of {batch} goes through the model in pieces of {half}"
        return MemoryRung(name=HALF_BATCH, step=step, message=message)
    names = {rung.name for rung in taken}
    if not spec.training.gradient_checkpointing and GRADIENT_CHECKPOINTING not in names:
        message = "activations are computed a second time instead of being kept; steps take about a third longer"
        return MemoryRung(name=GRADIENT_CHECKPOINTING, step=step, message=message)
    form = eight_bit_form(spec)
    if form is not None and EIGHT_BIT_OPTIMIZER not in names:
        message = f"{form} takes the place of {spec.optimizer.name}; its averages of the gradients begin anew"
        return MemoryRung(name=EIGHT_BIT_OPTIMIZER, step=step, message=message)
    return None


def examples_at_once(spec: LoraTrainingSpec, taken: Sequence[MemoryRung]) -> int:
    """How many examples of a batch may go through the model together."""
    size = spec.training.batch_size
    for rung in taken:
        if rung.name == HALF_BATCH:
            size = (size + 1) // 2
    return size


def apply(spec: LoraTrainingSpec, taken: Sequence[MemoryRung]) -> LoraTrainingSpec:
    """The spec by which model and optimizer are built; that of the user says what the run is."""
    names, form = {rung.name for rung in taken}, eight_bit_form(spec)
    training, optimizer = spec.training, spec.optimizer
    if GRADIENT_CHECKPOINTING in names:
        training = training.model_copy(update={"gradient_checkpointing": True})
    if EIGHT_BIT_OPTIMIZER in names and form is not None:
        optimizer = optimizer.model_copy(update={"name": form})
    return spec.model_copy(update={"training": training, "optimizer": optimizer})


def eight_bit_form(spec: LoraTrainingSpec) -> str | None:
    """The optimizer whose averages take a quarter of the memory; None where there is none with these arguments."""
    form = _EIGHT_BIT_FORMS.get(spec.optimizer.name)
    fits = form is not None and set(spec.optimizer.arguments) <= set(ARGUMENTS[form])
    return form if fits else None


def to_json(rungs: Sequence[MemoryRung], *, spec_digest: str) -> bytes:
    """What lies at `RUNGS_KEY`."""
    content = [rung.model_dump(mode="json", by_alias=True) for rung in rungs]
    return json.dumps({"specDigest": spec_digest, "rungs": content}).encode()


def from_json(data: bytes, *, spec_digest: str) -> tuple[MemoryRung, ...]:
    """The rungs that earlier starts of this run took; none where `data` is of another run, or cannot be read."""
    try:
        content = json.loads(data)
        if content["specDigest"] != spec_digest:
            return ()
        return tuple(MemoryRung.model_validate(rung) for rung in content["rungs"])
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        logger.warning("%s cannot be read and is not used: %s", RUNGS_KEY, error)
        return ()
