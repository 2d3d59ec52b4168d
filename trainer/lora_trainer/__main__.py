"""The `lora` command, also `python -m lora_trainer`: names the sub-commands and sets logging up."""

import importlib
import logging
import os
import sys
import warnings
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

COMMANDS = ("run", "plan", "validate", "inspect")
"""Sub-commands: each is the function of that name in `commands.<name>`."""


class _Commands(TyperGroup):
    """Imports a sub-command when it is called: torch and diffusers take ten seconds, and `validate` needs neither."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"lora_trainer.commands.{cmd_name}")
        single = typer.Typer(add_completion=False, pretty_exceptions_show_locals=False)
        single.command(cmd_name)(getattr(module, cmd_name))
        return get_command(single)


app = typer.Typer(name="lora", cls=_Commands, no_args_is_help=True, add_completion=False)


@app.callback()
def lora() -> None:
    """Train LoRA adapters for Stable Diffusion, here or in a cluster, with the same file."""


def main() -> None:
    """Entry point of `lora`."""
    set_up_logging()
    # cuBLAS gives the same result every time only with a fixed workspace, and reads this when it starts.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    app()


def set_up_logging() -> None:
    """Our own lines to stderr; from libraries, what went wrong only."""
    logging.basicConfig(
        level=logging.ERROR, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S"
    )
    logging.getLogger("lora_trainer").setLevel(logging.INFO)
    warnings.filterwarnings("ignore", category=FutureWarning)
    # Read by the libraries when they are imported, which only some sub-commands do.
    for name in ("DIFFUSERS_VERBOSITY", "TRANSFORMERS_VERBOSITY"):
        os.environ.setdefault(name, "error")
    for name in ("HF_HUB_DISABLE_PROGRESS_BARS", "DIFFUSERS_DISABLE_PROGRESS_BARS"):
        os.environ.setdefault(name, "1")


if __name__ == "__main__":
    main()
