"""How a command ends when the trainer cannot do what was asked: message and cure on stderr, then the exit code."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from lora_trainer.errors import TrainingError


@contextmanager
def exit_with_code() -> Iterator[None]:
    """Turns a TrainingError into its message and its exit code."""
    try:
        yield
    except TrainingError as error:
        typer.echo(f"{error.reason}: {error}", err=True)
        if error.hint:
            typer.echo(f"  → {error.hint}", err=True)
        raise typer.Exit(int(error.exit_code)) from error
