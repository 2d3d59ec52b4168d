"""One sub-command of `lora`, run as on a command line."""

from collections.abc import Callable
from typing import Any

import typer
from typer.testing import CliRunner, Result


def run_command(command: Callable[..., Any], *arguments: object) -> Result:
    """What the command prints and how it ends, with these arguments."""
    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])
