"""What every process of a run but the first one does: its part of each step. Called by `run`.

It prepares the same as the first one, takes the state over from it, and ends when the last step is made. Saving,
drawing and measuring are the first one's, which it waits for in between.
"""

import logging

from lora_api.spec import LoraTraining
from lora_api.status import MemoryRung
from lora_trainer.assembly import open_inputs
from lora_trainer.briefing import briefed, check_same
from lora_trainer.checkpoint import state_from_bytes
from lora_trainer.compute import make_accelerator, prefer_determinism
from lora_trainer.errors import Interrupted, InterruptedUnsaved
from lora_trainer.generated_captions import with_captions
from lora_trainer.ladder import descend
from lora_trainer.loop import Trainer, train
from lora_trainer.prepare import Prepared, Session, prepare
from lora_trainer.results import Ended
from lora_trainer.stopping import StopRequested
from lora_trainer.workshop import set_up
from lora_trainer.world import PeerLost, World

logger = logging.getLogger(__name__)


def follow(world: World, training: LoraTraining, session: Session) -> Ended:
    """Trains with the first process, to the end.

    Raises:
        TrainingError: as preparing and training say; `Interrupted` when some process was told to stop.
    """
    make_accelerator(training.spec)  # It sets the number of threads.
    prefer_determinism(cpu_threads=session.settings.cpu_threads)
    prepared = prepare(training, session)
    session.say("WaitingForLead", "for what is to be done")
    briefing = briefed(world)
    if briefing is None:
        return Ended("AlreadyTrained", "nothing is left to be trained")
    check_same(prepared, briefing, world)
    prepared = with_captions(prepared, briefing.captions)
    return descend(training.spec, briefing.rungs, lambda rungs: _train(prepared, rungs, session, world))


def _train(prepared: Prepared, rungs: tuple[MemoryRung, ...], session: Session, world: World) -> Ended:
    workshop = set_up(prepared, rungs, session, world)
    trainer, autocast = workshop.trainer, workshop.accelerator.autocast
    workshop.residence.settle()
    with open_inputs(workshop.prepared, workshop.residence, autocast, session, world=world) as inputs:
        trainer.restore(state_from_bytes(world.from_lead(b"")))
        session.say("Training", f"as process {world.rank} of {world.size}, from step {trainer.step}")
        try:
            train(
                trainer,
                inputs,
                should_stop=session.should_stop,
                after_step=lambda epoch: session.audience.tracker.alive(),
                after_epoch=lambda epoch: _note_epoch(trainer, epoch),
            )
        except PeerLost as lost:
            raise InterruptedUnsaved(f"{lost}, at step {trainer.step}") from lost
        except StopRequested as stop:
            raise Interrupted(f"{world.why_stop()} at step {trainer.step}; the first process saves the state") from stop
    return Ended("Completed", f"process {world.rank} made its part of {trainer.step} steps")


def _note_epoch(trainer: Trainer, epoch: int) -> None:
    trainer.epoch = epoch
