"""How a command ends when the trainer cannot do what was asked: message and cure on stderr, then the exit code."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType

import typer

from lora_api.exit_codes import ExitCode, outcome_of
from lora_trainer.errors import TrainingError

_HINTS_OF_TOOLS: Mapping[ExitCode, str] = MappingProxyType(
    {
        ExitCode.BASE_MODEL_UNAVAILABLE: "Check the path or URI, and access to gated models (HF_TOKEN).",
        ExitCode.STORAGE_UNAVAILABLE: "Check --endpoint and the network.",
        ExitCode.ACCESS_DENIED: "Check the keys (AWS_ACCESS_KEY_ID or AWS_PROFILE), and what they may do.",
    }
)
"""What to do where there is no LoraTraining whose fields could be corrected."""


@contextmanager
def exit_with_code(*, of_training: bool = False) -> Iterator[None]:
    """Turns a TrainingError into its message and its exit code; `of_training`: hints may name fields of the spec."""
    try:
        yield
    except TrainingError as error:
        typer.echo(f"{error.reason}: {error}", err=True)
        hint = error.hint
        if not of_training and ("spec." in hint or hint == outcome_of(error.exit_code).hint):
            hint = _HINTS_OF_TOOLS.get(error.exit_code, "")
        if hint:
            typer.echo(f"  → {hint}", err=True)
        raise typer.Exit(int(error.exit_code)) from error
