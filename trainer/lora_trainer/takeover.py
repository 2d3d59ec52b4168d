"""Makes the output this process's own while it trains or evaluates: fence, local folder, uploads, and the kept log.

Used by `run` and `evaluate`.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lora_api.status import MemoryRung
from lora_trainer import memory
from lora_trainer.errors import TrainingError
from lora_trainer.memory import StepTooLarge
from lora_trainer.output import OutputSettings, RunOutput
from lora_trainer.prepare import Known, Session
from lora_trainer.results import Run
from lora_trainer.run_log import record_failure
from lora_trainer.state_places import next_start
from lora_trainer.storage import Fence, Store
from lora_trainer.storage.disk_errors import disk_errors
from lora_trainer.uploads import StillUploading


@contextmanager
def taking_over(store: Store, prepared: Known, rungs: tuple[MemoryRung, ...], session: Session) -> Iterator[RunOutput]:
    """The output, which from now on belongs to this process; whatever happens, its log is kept there."""
    settings, spec, tracker = session.settings, prepared.training.spec, session.audience.tracker
    owner = prepared.training.metadata.uid or prepared.identity.spec_digest
    fence = Fence.acquire(store, owner=owner, attempt=settings.attempt, pod=settings.pod)
    tracker.set_starts(fence.starts)
    start = next_start(store, fence.token)
    run = Run(prepared.identity, prepared.provenance, attempt=settings.attempt, start=start, memory_rungs=rungs)
    tracker.set_memory_rungs(rungs)
    if rungs:
        store.put_bytes(memory.to_json(rungs, spec_digest=prepared.identity.spec_digest), memory.RUNGS_KEY)
    with disk_errors(settings.work_dir):
        settings.work_dir.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(dir=settings.work_dir, prefix="output-", ignore_cleanup_errors=True)
    with folder as path:
        kept = OutputSettings(
            folder=Path(path),
            keep_last=spec.checkpoints.keep_last,
            on_change=spec.resume.on_change,
            check_owner=fence.check,
            on_notice=tracker.add_notice,
        )
        output, in_a_hurry = RunOutput(store, run, kept), False
        try:
            yield output
        except KeyboardInterrupt:
            # Ctrl-C for the second time: nobody wants to wait for a store.
            in_a_hurry = True
            raise
        except Exception as error:
            record_failure(error)
            # What was trained before the failure is not lost with it.
            with suppress(StillUploading, TrainingError):
                output.wait(session.seconds_left())
            if isinstance(error, StepTooLarge):
                # This process will take the output over once more, but not from a successor.
                fence.check()
            raise
        finally:
            _close(output, 0.0 if in_a_hurry else session.seconds_left(), session.log_file)


def _close(output: RunOutput, seconds_left: float | None, log_file: Path | None) -> None:
    output.close(seconds_left)
    if seconds_left is None or seconds_left > 0:
        output.publish_log(log_file)
