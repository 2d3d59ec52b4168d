"""The `lora` command, also `python -m lora_trainer`: registers the sub-commands and sets logging up."""

import logging
import os
import sys
import warnings
from collections.abc import Callable

import typer
from huggingface_hub.utils import disable_progress_bars

from lora_trainer.commands.convert import convert
from lora_trainer.commands.import_ import import_
from lora_trainer.commands.inspect import inspect
from lora_trainer.commands.merge import merge
from lora_trainer.commands.plan import plan
from lora_trainer.commands.resize import resize
from lora_trainer.commands.run import run
from lora_trainer.commands.validate import validate

app = typer.Typer(
    name="lora",
    help="Train LoRA adapters for Stable Diffusion, here or in a cluster, with the same file.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
)
_COMMANDS: dict[str, Callable[..., None]] = {
    "run": run,
    "plan": plan,
    "validate": validate,
    "import": import_,
    "inspect": inspect,
    "convert": convert,
    "merge": merge,
    "resize": resize,
}
for name, command in _COMMANDS.items():
    app.command(name)(command)


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
    os.environ.setdefault("DIFFUSERS_DISABLE_PROGRESS_BARS", "1")
    # This one has been imported already; transformers asks it.
    disable_progress_bars()


if __name__ == "__main__":
    main()
