"""One attempt at what a LoraTraining file asks for: `lora run`, `preflight` and `evaluate` differ in the work alone."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from lora_api.spec import LoraTraining
from lora_api.status import Progress
from lora_trainer.audience import Audience
from lora_trainer.commands.failures import exit_with_code
from lora_trainer.commands.overrides import load_training_file
from lora_trainer.commands.session import open_surroundings

if TYPE_CHECKING:
    from lora_trainer.prepare import Session
    from lora_trainer.results import Ended

Work = Callable[[LoraTraining, "Session"], "Ended"]
OnProgress = Callable[[Progress], None]


def _quietly() -> AbstractContextManager[OnProgress]:
    return nullcontext(lambda _: None)


def attempt(
    load: Callable[[], Work],
    file: Path,
    overrides: Sequence[str] | None,
    *,
    work_dir: Path | None,
    serve_progress: bool,
    showing: Callable[[], AbstractContextManager[OnProgress]] = _quietly,
) -> None:
    """Does the work and says how it ended, here and to the kubelet.

    Args:
        load: imports and gives the work; torch and diffusers take ten seconds, in which a stop is heard too.
        file: the LoraTraining.
        overrides: changes to its fields.
        work_dir: where fetched files are kept.
        serve_progress: answer /progress and /metrics.
        showing: shows the progress of steps while it is open.
    """
    with exit_with_code(of_training=True), open_surroundings(work_dir=work_dir, serve_progress=serve_progress) as here:
        training = load_training_file(file, overrides or ())
        here.tracker.set_stall_seconds(training.spec.limits.stall_seconds)
        with here.stop.at_once():
            from lora_trainer.prepare import Session  # noqa: PLC0415  (S3, hub and pictures)

            work = load()
        with showing() as on_progress:
            audience = Audience(here.tracker, here.metrics, on_progress)
            session = Session(
                settings=here.settings,
                audience=audience,
                should_stop=here.should_stop,
                seconds_left=here.stop.seconds_left,
                log_file=here.log_file,
                signal=here.stop,
            )
            ended = work(training, session)
        here.say_end(ended.reason, ended.message)
        leads = here.settings.leads
    if leads:
        typer.echo(f"{ended.reason}: {ended.message}")
