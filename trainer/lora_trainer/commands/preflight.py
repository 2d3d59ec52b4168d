"""`lora preflight`: what can be found out before a GPU is asked for; in a cluster a Job of its own runs it first."""

import typer

from lora_trainer.audience import Audience
from lora_trainer.commands.failures import exit_with_code
from lora_trainer.commands.options import Overrides, ServeProgress, TrainingFile, WorkDir
from lora_trainer.commands.overrides import load_training_file
from lora_trainer.commands.session import open_surroundings


def preflight(
    file: TrainingFile,
    *,
    overrides: Overrides = None,
    work_dir: WorkDir = None,
    serve_progress: ServeProgress = True,
) -> None:
    """Check pictures, base model, output and plan of a training, without a GPU; says whether it was trained already."""
    with exit_with_code(of_training=True), open_surroundings(work_dir=work_dir, serve_progress=serve_progress) as here:
        training = load_training_file(file, overrides or ())
        here.tracker.set_stall_seconds(training.spec.limits.stall_seconds)
        # These read S3, hub and pictures, which takes seconds to import; the other commands do without.
        with here.stop.at_once():
            from lora_trainer.preflight import check_before_training  # noqa: PLC0415
            from lora_trainer.prepare import Session  # noqa: PLC0415

        audience = Audience(here.tracker, here.metrics, lambda _: None)
        session = Session(here.settings, audience, here.should_stop, here.stop.seconds_left, here.log_file)
        ended = check_before_training(training, session)
        here.say_end(ended.reason, ended.message)
    typer.echo(f"{ended.reason}: {ended.message}")
