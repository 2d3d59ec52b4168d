"""`lora run`: trains here; in a pod it is what the Job runs."""

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from lora_api.status import Progress as ProgressNumbers
from lora_trainer.commands.attempt import Work, attempt
from lora_trainer.commands.options import Overrides, ServeProgress, TrainingFile, WorkDir
from lora_trainer.commands.overrides import load_training_file
from lora_trainer.errors import TrainingError
from lora_trainer.launcher import Company, company_of, launch
from lora_trainer.run_log import RunLog, is_for_the_file_only
from lora_trainer.settings import Settings

logger = logging.getLogger(__name__)


def run(
    file: TrainingFile,
    *,
    overrides: Overrides = None,
    work_dir: WorkDir = None,
    serve_progress: ServeProgress = True,
) -> None:
    """Train a LoRA here, with the same file as in a cluster. Started again, it goes on from its newest state.

    For several GPUs it starts a process for each, unless torchrun did.
    """
    company = _company(file, overrides)
    if company is not None:
        raise typer.Exit(launch(sys.argv[1:], company))
    attempt(
        _load,
        file,
        overrides,
        work_dir=work_dir,
        serve_progress=serve_progress,
        showing=lambda: showing(Console(stderr=True)),
    )


def _company(file: Path, overrides: Sequence[str] | None) -> Company | None:
    """The processes that are to be started here; None where this one trains itself.

    What is wrong with the file is said by the attempt at it, which leaves a last word.
    """
    try:
        parallelism = load_training_file(file, overrides or ()).spec.parallelism
        return company_of(parallelism, Settings.from_environment())
    except TrainingError:
        return None


def _load() -> Work:
    from lora_trainer.run import run_training  # noqa: PLC0415  (slow to import)

    return run_training


@contextmanager
def showing(console: Console) -> Iterator[Callable[[ProgressNumbers], None]]:
    """A progress bar on a terminal, plain log lines elsewhere."""
    if not sys.stderr.isatty():
        yield _log_progress
        return
    columns = (
        TextColumn("epoch {task.fields[epoch]}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]}  {task.fields[rate]} steps/s  {task.fields[left]} left"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as bar, _logging_above(console):
        task = bar.add_task("training", total=None, visible=False, epoch="", loss="", rate="", left="")
        yield lambda numbers: _update_bar(bar, task, numbers)


@contextmanager
def _logging_above(console: Console) -> Iterator[None]:
    """Log lines through `console`, which keeps the bar below them; the file goes on getting them."""
    root = logging.getLogger()
    before = root.handlers[:]
    above = RichHandler(console=console, show_path=False, log_time_format="%H:%M:%S")
    above.addFilter(lambda record: not is_for_the_file_only(record))
    root.handlers = [above, *(handler for handler in before if isinstance(handler, RunLog))]
    try:
        yield
    finally:
        root.handlers = before


def _update_bar(bar: Progress, task: TaskID, numbers: ProgressNumbers) -> None:
    bar.update(
        task,
        visible=True,
        completed=numbers.step,
        total=numbers.total_steps,
        epoch=f"{min(numbers.epoch + 1, numbers.total_epochs)}/{numbers.total_epochs}",
        loss=_short(numbers.loss, ".4f"),
        rate=_short(numbers.steps_per_second, ".2f"),
        left=_duration(numbers.remaining_seconds),
    )


def _log_progress(numbers: ProgressNumbers) -> None:
    logger.info(
        "step %s/%s epoch %s/%s loss %s rate %s/s left %s",
        numbers.step,
        numbers.total_steps,
        numbers.epoch,
        numbers.total_epochs,
        _short(numbers.loss, ".5f"),
        _short(numbers.steps_per_second, ".3f"),
        _duration(numbers.remaining_seconds),
    )


def _short(number: float | None, form: str) -> str:
    return "–" if number is None else format(number, form)


def _duration(seconds: int | None) -> str:
    if seconds is None:
        return "–"
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes}m" if hours else f"{minutes}m {rest}s" if minutes else f"{rest}s"
