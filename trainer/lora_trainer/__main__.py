"""The `lora` command, also `python -m lora_trainer`: registers the sub-commands and sets logging up."""

import logging
import os
import sys
import warnings

import typer
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from lora_trainer.commands.inspect import inspect
from lora_trainer.commands.plan import plan
from lora_trainer.commands.run import run
from lora_trainer.commands.validate import validate

app = typer.Typer(
    name="lora",
    help="Train LoRA adapters for Stable Diffusion, here or in a cluster, with the same file.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
)
for command in (run, plan, validate, inspect):
    app.command()(command)


def main() -> None:
    """Entry point of `lora`."""
    set_up_logging()
    # cuBLAS gives the same result every time only with a fixed workspace, and reads this when it starts.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    app()


def set_up_logging() -> None:
    """Our own lines to stderr; from libraries, warnings only."""
    logging.basicConfig(
        level=logging.WARNING, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S"
    )
    logging.getLogger("lora_trainer").setLevel(logging.INFO)
    warnings.filterwarnings("ignore", category=FutureWarning)
    for library in (diffusers_logging, transformers_logging):
        library.set_verbosity_error()
        library.disable_progress_bar()


if __name__ == "__main__":
    main()
