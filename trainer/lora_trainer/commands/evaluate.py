"""`lora evaluate`: evaluates a run that is complete, as its file says; in a cluster a Job of its own runs it."""

import typer

from lora_trainer.audience import Audience
from lora_trainer.commands.failures import exit_with_code
from lora_trainer.commands.options import Overrides, ServeProgress, TrainingFile, WorkDir
from lora_trainer.commands.overrides import load_training_file
from lora_trainer.commands.session import open_surroundings


def evaluate(
    file: TrainingFile,
    *,
    overrides: Overrides = None,
    work_dir: WorkDir = None,
    serve_progress: ServeProgress = True,
) -> None:
    """Make best adapter, grid and report of a completed training anew, after its `evaluation` was changed."""
    with exit_with_code(of_training=True), open_surroundings(work_dir=work_dir, serve_progress=serve_progress) as here:
        training = load_training_file(file, overrides or ())
        here.tracker.set_stall_seconds(training.spec.limits.stall_seconds)
        # torch and diffusers take ten seconds to import; `lora --help`, `plan` and `validate` do without them.
        with here.stop.at_once():
            from lora_trainer.evaluate import evaluate_training  # noqa: PLC0415
            from lora_trainer.prepare import Session  # noqa: PLC0415

        audience = Audience(here.tracker, here.metrics, lambda _: None)
        session = Session(here.settings, audience, here.should_stop, here.stop.seconds_left, here.log_file)
        ended = evaluate_training(training, session)
        here.say_end(ended.reason, ended.message)
    typer.echo(f"{ended.reason}: {ended.message}")
