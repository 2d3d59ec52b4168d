"""`lora preflight`: what can be found out before a GPU is asked for; in a cluster a Job of its own runs it first."""

from pathlib import Path
from typing import Annotated

import typer

from lora_trainer.audience import Audience
from lora_trainer.commands.failures import exit_with_code
from lora_trainer.commands.overrides import load_training_file
from lora_trainer.commands.session import open_surroundings


def preflight(
    file: Annotated[Path, typer.Argument(help="LoraTraining in YAML, as for kubectl apply.")],
    *,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="Change a field, such as training.epochs=3.")
    ] = None,
    work_dir: Annotated[Path | None, typer.Option(help="Where fetched files are kept.")] = None,
    serve_progress: Annotated[
        bool, typer.Option("--serve/--no-serve", help="Answer /progress and /metrics where LORA_LISTEN_ADDRESS says.")
    ] = True,
) -> None:
    """Check pictures, base model, output and plan of a training, without a GPU; says whether it was trained already."""
    with exit_with_code(), open_surroundings(work_dir=work_dir, serve_progress=serve_progress) as here:
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
