"""Arguments and options that several sub-commands share."""

from pathlib import Path
from typing import Annotated

import typer

TrainingFile = Annotated[Path, typer.Argument(help="LoraTraining in YAML, as for kubectl apply.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="Change a field, such as training.epochs=3.")
]
WorkDir = Annotated[Path | None, typer.Option(help="Where fetched files are kept.")]
ServeProgress = Annotated[
    bool, typer.Option("--serve/--no-serve", help="Answer /progress and /metrics where LORA_LISTEN_ADDRESS says.")
]
