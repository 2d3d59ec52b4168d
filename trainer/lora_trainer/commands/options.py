"""Arguments and options that several sub-commands share, and what is wrong with them."""

import re
from pathlib import Path
from typing import Annotated

import typer

from lora_trainer.errors import InvalidConfiguration

_URI = re.compile(r"[a-z0-9]+:/")

TrainingFile = Annotated[Path, typer.Argument(help="LoraTraining in YAML, as for kubectl apply.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="Change a field, such as training.epochs=3.")
]
WorkDir = Annotated[Path | None, typer.Option(help="Where fetched files are kept.")]
ServeProgress = Annotated[
    bool, typer.Option("--serve/--no-serve", help="Answer /progress and /metrics where LORA_LISTEN_ADDRESS says.")
]


def check_local(path: Path, name: str) -> None:
    """Raises InvalidConfiguration for a URI where a folder of this machine is made: it would be one called `s3:`."""
    if _URI.match(str(path)):
        raise InvalidConfiguration(f"{name} is {path}, a URI; name a folder of this machine", hint="")
