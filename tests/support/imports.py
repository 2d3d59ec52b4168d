"""Settings of sd-scripts brought over, for tests of the migration."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from lora_api import LoraTraining, load_training
from lora_trainer.migration.document import render, settle
from lora_trainer.migration.draft import Draft
from lora_trainer.migration.reader import read_text_settings
from lora_trainer.migration.source import Choices, Source
from lora_trainer.migration.translation import translate

PLACES = Choices("hf://owner/base", "s3://lora/data", "s3://lora/run")


def bring_over(source: Source, choices: Choices = PLACES) -> tuple[LoraTraining, Draft]:
    """The training of `source` as a reader of the written file gets it."""
    name, draft = translate(source, choices)
    training = settle(name, draft)
    return load_training(render(training, draft, origin="a test")), draft


def from_text(
    text: str, folder: Path = Path("/nowhere"), *, choices: Choices = PLACES, name: str | None = None
) -> tuple[LoraTraining, Draft]:
    """The training of the text of a settings file."""
    source = read_text_settings(text, folder=folder, name="settings")
    return bring_over(source, replace(choices, name=name))


def from_arguments(arguments: str = "") -> LoraTraining:
    """The training of `train_network.py <arguments>`."""
    return from_text(f"train_network.py {arguments}")[0]


def leftovers_of(arguments: str) -> dict[str, str]:
    """Name -> reason of what `train_network.py <arguments>` could not carry over."""
    return {leftover.name: leftover.reason for leftover in from_text(f"train_network.py {arguments}")[1].leftovers}


def value_at(training: LoraTraining, path: str) -> Any:
    """The value at a path below `spec`, such as `network.rank`."""
    here: Any = training.spec.to_document()
    for step in path.split("."):
        here = here.get(step) if isinstance(here, dict) else None
    return here
