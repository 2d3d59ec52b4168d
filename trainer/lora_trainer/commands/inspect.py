"""`lora inspect`: what an adapter file holds."""

import json
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lora_api.exit_codes import ExitCode

if TYPE_CHECKING:
    from lora_trainer.lora.inspect import AdapterSummary, PartSummary

_LONGEST_VALUE = 100


class Output(StrEnum):
    """How the answer is printed."""

    TEXT = "text"
    JSON = "json"


def inspect(
    file: Annotated[Path, typer.Argument(help="Adapter in .safetensors format.")],
    *,
    output: Annotated[Output, typer.Option("--output", "-o", help="How to print the answer.")] = Output.TEXT,
) -> None:
    """Show an adapter's metadata, modules, rank, alpha and norms."""
    # torch takes seconds to import; `lora --help`, `plan` and `validate` do without it.
    from lora_trainer.lora.formats import InvalidAdapterFile  # noqa: PLC0415
    from lora_trainer.lora.inspect import summarise  # noqa: PLC0415

    try:
        summary = summarise(file)
    except InvalidAdapterFile as error:
        typer.echo(f"{error}", err=True)
        raise typer.Exit(int(ExitCode.INVALID_CONFIGURATION)) from error
    if output is Output.JSON:
        typer.echo(json.dumps(asdict(summary), indent=2, ensure_ascii=False))
    else:
        _print(summary, Console())


def _print(summary: "AdapterSummary", console: Console) -> None:
    dtypes = ", ".join(summary.dtypes)
    console.print(f"{summary.file}: {summary.size_bytes:,} bytes, {summary.parameters:,} parameters in {dtypes}")
    table = Table("part", "modules", "rank", "alpha", "mean norm", "largest norm", "in module")
    for name, part in summary.parts.items():
        table.add_row(name, *_cells(part))
    console.print(table)
    metadata = Table("metadata", "value", show_edge=False)
    for key, value in summary.metadata.items():
        shown = value if len(value) <= _LONGEST_VALUE else value[: _LONGEST_VALUE - 1] + "…"
        metadata.add_row(Text(key), Text(shown))
    console.print(metadata)


def _cells(part: "PartSummary") -> tuple[str, ...]:
    return (
        str(part.modules),
        ", ".join(map(str, part.ranks)),
        ", ".join(f"{alpha:g}" for alpha in part.alphas),
        f"{part.mean_norm:.4g}",
        f"{part.max_norm:.4g}",
        part.max_norm_module,
    )
