"""The `lora` command's sub-commands and its logging. Used by `__main__`."""

import logging
import os
import sys
import warnings
from collections.abc import Callable

import typer
from huggingface_hub.utils import disable_progress_bars

from lora_trainer.commands.bake import bake
from lora_trainer.commands.caption import caption
from lora_trainer.commands.captions import captions
from lora_trainer.commands.compare import compare
from lora_trainer.commands.convert import convert
from lora_trainer.commands.dataset import dataset
from lora_trainer.commands.evaluate import evaluate
from lora_trainer.commands.example import example
from lora_trainer.commands.grid import grid
from lora_trainer.commands.import_ import import_
from lora_trainer.commands.inspect import inspect
from lora_trainer.commands.merge import merge
from lora_trainer.commands.plan import plan
from lora_trainer.commands.preflight import preflight
from lora_trainer.commands.report import report
from lora_trainer.commands.resize import resize
from lora_trainer.commands.run import run
from lora_trainer.commands.validate import validate
from lora_trainer.run_log import is_for_the_file_only

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
    "preflight": preflight,
    "evaluate": evaluate,
    "grid": grid,
    "validate": validate,
    "example": example,
    "import": import_,
    "inspect": inspect,
    "convert": convert,
    "caption": caption,
    "bake": bake,
    "merge": merge,
    "resize": resize,
    "report": report,
    "compare": compare,
}
for name, command in _COMMANDS.items():
    app.command(name)(command)
app.add_typer(captions, name="captions")
app.add_typer(dataset, name="dataset")


def set_up_logging() -> None:
    """Our own lines to stderr; from libraries, what went wrong only. What else they say is left to other handlers."""
    stderr = logging.StreamHandler(sys.stderr)
    stderr.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S"))
    stderr.addFilter(_for_people)
    logging.basicConfig(level=logging.WARNING, handlers=[stderr])
    logging.getLogger("lora_trainer").setLevel(logging.INFO)
    warnings.filterwarnings("ignore", category=FutureWarning)
    # Read by the libraries when they are imported, which only some sub-commands do.
    for variable in ("DIFFUSERS_VERBOSITY", "TRANSFORMERS_VERBOSITY"):
        os.environ.setdefault(variable, "error")
    os.environ.setdefault("DIFFUSERS_DISABLE_PROGRESS_BARS", "1")
    # This one has been imported already; transformers asks it.
    disable_progress_bars()


def _for_people(record: logging.LogRecord) -> bool:
    if is_for_the_file_only(record):
        return False
    return record.levelno >= logging.ERROR or record.name.startswith("lora_trainer.")
