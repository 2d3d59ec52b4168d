"""What a file of settings says, whatever its form; made by each reader, turned into fields by `translation`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lora_trainer.migration.draft import Leftover


@dataclass(frozen=True)
class Source:
    """Settings under the names of sd-scripts' arguments, and what else the file tells."""

    form: str
    """What kind of file it is, for people."""
    raw: Mapping[str, object]
    """Argument -> value as it stands there. What is no argument of sd-scripts is told to the user."""
    complete: bool = True
    """Whether sd-scripts' defaults hold for arguments that are not there."""
    is_sdxl: bool = False
    dataset_config: Mapping[str, Any] | None = None
    """A dataset definition (`general`, `datasets`), which takes the place of the folders."""
    prompts: tuple[Mapping[str, Any], ...] | None = None
    """Pictures to draw, as fields of `samples.prompts[]`; None: the prompt file, if any, is not here."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    """Fields that are known without an argument; they win."""
    leftovers: tuple[Leftover, ...] = ()
    """What the reader could not carry over."""
    name: str = ""
    """What the result may be called when no argument says so."""


@dataclass(frozen=True)
class Choices:
    """What the user says on top, because no settings file knows it."""

    base_model: str | None = None
    dataset: str | None = None
    output: str | None = None
    name: str | None = None
