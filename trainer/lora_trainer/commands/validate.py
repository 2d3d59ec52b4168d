"""`lora validate`: everything that is wrong with a file, at once, with line numbers."""

import typer

from lora_api.advice import warnings_about
from lora_api.exit_codes import ExitCode
from lora_api.load import InvalidTraining
from lora_trainer.checks import problems_with
from lora_trainer.commands.failures import exit_with_code
from lora_trainer.commands.options import Overrides, TrainingFile
from lora_trainer.commands.overrides import parse_with, read_text


def validate(file: TrainingFile, *, overrides: Overrides = None) -> None:
    """Say everything that is wrong with a LoraTraining file, with line numbers, and what should be known."""
    with exit_with_code(of_training=True):
        text = read_text(file)
    try:
        training = parse_with(text, overrides or ())
    except InvalidTraining as error:
        for problem in sorted(error.problems, key=lambda problem: problem.line or 0):
            words = f"{problem.path} {problem.message}".strip()
            place = f"{file}:{problem.line}" if problem.line else str(file)
            typer.echo(f"{place}: {words}", err=True)
        raise typer.Exit(int(ExitCode.INVALID_CONFIGURATION)) from error
    problems = list(problems_with(training.spec))
    for words in problems:
        typer.echo(f"{file}: {words}", err=True)
    if problems:
        raise typer.Exit(int(ExitCode.INVALID_CONFIGURATION))
    for words in warnings_about(training.spec):
        typer.echo(f"{file}: warning: {words}", err=True)
    typer.echo(f"{file}: LoraTraining {training.name} is valid")
