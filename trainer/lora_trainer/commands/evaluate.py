"""`lora evaluate`: evaluates a run that is complete, as its file says; in a cluster a Job of its own runs it."""

from lora_trainer.commands.attempt import Work, attempt
from lora_trainer.commands.options import Overrides, ServeProgress, TrainingFile, WorkDir


def evaluate(
    file: TrainingFile,
    *,
    overrides: Overrides = None,
    work_dir: WorkDir = None,
    serve_progress: ServeProgress = True,
) -> None:
    """Make best adapter, grid and report of a completed training anew, after its `evaluation` was changed."""
    attempt(_load, file, overrides, work_dir=work_dir, serve_progress=serve_progress)


def _load() -> Work:
    from lora_trainer.evaluate import evaluate_training  # noqa: PLC0415  (slow to import)

    return evaluate_training
