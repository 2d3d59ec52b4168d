"""Model, adapters, optimizer and device of one try at training, as what was given up for memory leaves them.

Set up in every process of a run, by `run` in the first one and by `follow` in the others.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from accelerate import Accelerator

from lora_api.status import MemoryRung
from lora_trainer import memory
from lora_trainer.assembly import Residence, load_model, make_learner, make_residence
from lora_trainer.compute import make_accelerator
from lora_trainer.loop import Learner, Trainer
from lora_trainer.prepare import Prepared, Session
from lora_trainer.world import World


@dataclass(frozen=True)
class Workshop:
    """What is trained, and with what."""

    prepared: Prepared
    """With the spec by which the rest is built."""
    accelerator: Accelerator
    learner: Learner
    residence: Residence
    trainer: Trainer
    examples_at_once: int


def set_up(prepared: Prepared, rungs: Sequence[MemoryRung], session: Session, world: World) -> Workshop:
    """Loads the base model and builds the rest. Raises as `assembly` does."""
    at_once = memory.examples_at_once(prepared.training.spec, rungs)
    spec, plan = memory.apply(prepared.training.spec, rungs), prepared.dataset.plan
    prepared = replace(prepared, training=prepared.training.model_copy(update={"spec": spec}))
    accelerator = make_accelerator(spec)
    model = load_model(prepared, accelerator.device, session)
    learner = make_learner(model, spec, prepared=prepared)
    residence = make_residence(model, spec, accelerator.device)
    trainer = Trainer(learner, plan=plan, spec=spec, accelerator=accelerator, examples_at_once=at_once, world=world)
    return Workshop(prepared, accelerator, learner, residence, trainer, at_once)
