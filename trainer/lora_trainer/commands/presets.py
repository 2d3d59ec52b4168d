"""`--presets`: block weights under names of one's own. Used by `bake` and `grid`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from lora_trainer.errors import InvalidConfiguration
from lora_trainer.lora.block_weights import parse_presets

PresetsFile = Annotated[
    Path | None, typer.Option("--presets", help="Presets of your own: the extension's lbwpresets.txt.")
]


def read_presets(path: Path | None) -> Mapping[str, str]:
    """The presets in a file, if there is one. Raises InvalidConfiguration."""
    if path is None:
        return {}
    try:
        return parse_presets(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidConfiguration(f"--presets: {path} cannot be read: {error.strerror}", hint="") from error
    except UnicodeDecodeError as error:
        raise InvalidConfiguration(f"--presets: {path} is not UTF-8; save it as UTF-8", hint="") from error
