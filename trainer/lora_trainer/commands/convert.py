"""`lora convert`: an adapter from one file format to another."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from lora_trainer.commands.failures import exit_with_code
from lora_trainer.commands.precisions import Precision


class Format(StrEnum):
    """Formats of adapters."""

    KOHYA = "kohya"
    DIFFUSERS = "diffusers"
    PEFT = "peft"


class FamilyName(StrEnum):
    """Families of base models."""

    SD15 = "sd15"
    SD2 = "sd2"
    SDXL = "sdxl"


def convert(
    source: Annotated[Path, typer.Argument(help="Adapter file (kohya, diffusers) or PEFT folder.")],
    target: Annotated[Path, typer.Argument(help="What is written: a file, or for peft a folder. Must not exist.")],
    *,
    to: Annotated[Format, typer.Option("--to", help="Format to write.")],
    family: Annotated[
        FamilyName | None, typer.Option("--family", help="What the adapter is for. Default: read from the file.")
    ] = None,
    precision: Annotated[
        Precision | None, typer.Option("--precision", help="Number format to write. Default: as in the file.")
    ] = None,
) -> None:
    """Write an adapter in another file format, bit for bit."""
    # torch takes seconds to import; `lora --help`, `plan` and `validate` do without it.
    from lora_trainer.lora.adapter import PRECISIONS  # noqa: PLC0415
    from lora_trainer.lora.convert import convert as convert_adapter  # noqa: PLC0415

    dtype = PRECISIONS[precision] if precision else None
    with exit_with_code():
        adapter = convert_adapter(source, target, to=to.value, family=family.value if family else None, dtype=dtype)
    typer.echo(f"{target}: {adapter.type} for {adapter.family}, {len(adapter.modules)} modules, {to.value} format")
