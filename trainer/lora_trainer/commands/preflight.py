"""`lora preflight`: what can be found out before a GPU is asked for; in a cluster a Job of its own runs it first."""

from lora_trainer.commands.attempt import Work, attempt
from lora_trainer.commands.options import Overrides, ServeProgress, TrainingFile, WorkDir


def preflight(
    file: TrainingFile,
    *,
    overrides: Overrides = None,
    work_dir: WorkDir = None,
    serve_progress: ServeProgress = True,
) -> None:
    """Check pictures, base model, output and plan of a training, without a GPU; says whether it was trained already."""
    attempt(_load, file, overrides, work_dir=work_dir, serve_progress=serve_progress)


def _load() -> Work:
    from lora_trainer.preflight import check_before_training  # noqa: PLC0415  (slow to import)

    return check_before_training
