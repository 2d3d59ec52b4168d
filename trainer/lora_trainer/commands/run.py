"""`lora run`: trains here; in a pod it is what the Job runs."""

import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer
from prometheus_client import CollectorRegistry
from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from lora_api.exit_codes import ExitCode, outcome_of
from lora_api.status import Progress as ProgressNumbers
from lora_trainer.commands.failures import exit_with_code
from lora_trainer.commands.overrides import load_training_file
from lora_trainer.errors import InvalidConfiguration, TrainingError
from lora_trainer.metrics import TrainingMetrics
from lora_trainer.progress import ProgressTracker, serve, write_termination
from lora_trainer.settings import Settings

if TYPE_CHECKING:
    from lora_trainer.run import Ended

logger = logging.getLogger(__name__)

_CRASHED = 1
"""What Python exits with after an error that nobody caught."""
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def run(
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
    """Train a LoRA here, with the same file as in a cluster. Started again, it goes on from its newest state."""
    # The flag comes first: told to stop while torch is still imported, the process must end as interrupted.
    with exit_with_code(), stop_flag() as should_stop:
        settings = Settings.from_environment()
        settings = replace(settings, work_dir=work_dir or settings.work_dir)
        tracker, registry = ProgressTracker(), CollectorRegistry()
        with ExitStack() as stack, _last_word(settings.termination_log, tracker):
            if serve_progress and settings.listen:
                stack.enter_context(_serving(settings, tracker, registry))
            training = load_training_file(file, overrides or ())
            metrics, on_progress = TrainingMetrics(registry), stack.enter_context(showing(Console(stderr=True)))
            # torch and diffusers take ten seconds to import; `lora --help`, `plan` and `validate` do without them.
            from lora_trainer.prepare import Session  # noqa: PLC0415
            from lora_trainer.recorder import Audience  # noqa: PLC0415
            from lora_trainer.run import run_training  # noqa: PLC0415

            session = Session(settings, Audience(tracker, metrics, on_progress), should_stop)
            ended = run_training(training, session)
            _say_end(settings.termination_log, tracker, ended)
    typer.echo(f"{ended.reason}: {ended.message}")


@contextmanager
def stop_flag() -> Iterator[Callable[[], bool]]:
    """A question that SIGTERM and SIGINT turn from no to yes."""
    asked = threading.Event()

    def ask(number: int, _: FrameType | None) -> None:
        if asked.is_set() and number == signal.SIGINT:
            # Whoever presses Ctrl-C twice does not want to wait for the state to be saved.
            raise KeyboardInterrupt
        logger.info("%s: stopping after this batch", signal.Signals(number).name)
        asked.set()

    before = {number: signal.signal(number, ask) for number in _SIGNALS}
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _last_word(path: Path | None, tracker: ProgressTracker) -> Iterator[None]:
    """Leaves the reason of a failure where the kubelet looks, and lets it pass on."""
    try:
        yield
    except TrainingError as error:
        if path:
            message = tracker.termination(error.exit_code, reason=error.reason, message=str(error), hint=error.hint)
            write_termination(path, message)
        raise
    except Exception as error:
        if path:
            crash = outcome_of(_CRASHED)
            text = f"{type(error).__name__}: {error}"
            message = tracker.termination(_CRASHED, reason=crash.reason, message=text, hint=crash.hint)
            write_termination(path, message)
        raise


def _say_end(path: Path | None, tracker: ProgressTracker, ended: "Ended") -> None:
    tracker.set_reason(ended.reason, ended.message)
    if path:
        write_termination(path, tracker.termination(ExitCode.COMPLETED, reason=ended.reason, message=ended.message))


@contextmanager
def _serving(settings: Settings, tracker: ProgressTracker, registry: CollectorRegistry) -> Iterator[None]:
    assert settings.listen is not None
    try:
        server = serve(tracker, registry, settings.listen)
    except OSError as error:
        raise InvalidConfiguration(
            f"LORA_LISTEN_ADDRESS: {settings.listen.host}:{settings.listen.port} cannot be listened on: "
            f"{error.strerror}; choose another port or use --no-serve"
        ) from error
    logger.info("progress and metrics at http://%s:%s", server.address.host, server.address.port)
    try:
        yield
    finally:
        server.close()


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
    """Log lines through `console`, which keeps the bar below them."""
    root = logging.getLogger()
    before = root.handlers[:]
    root.handlers = [RichHandler(console=console, show_path=False, log_time_format="%H:%M:%S")]
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
