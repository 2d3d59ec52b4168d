"""`lora inspect`: what an adapter file holds."""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from lora_trainer.commands.failures import exit_with_code

if TYPE_CHECKING:
    from lora_trainer.lora.inspect import AdapterSummary, GroupSummary

_LONGEST_VALUE = 100
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class Output(StrEnum):
    """How the answer is printed."""

    TEXT = "text"
    JSON = "json"


def inspect(
    file: Annotated[Path, typer.Argument(help="Adapter file (kohya, diffusers) or PEFT folder.")],
    *,
    output: Annotated[Output, typer.Option("--output", "-o", help="How to print the answer.")] = Output.TEXT,
) -> None:
    """Show an adapter's type, modules, ranks, alphas, norms, tags and metadata."""
    # torch takes seconds to import; `lora --help`, `plan` and `validate` do without it.
    from lora_trainer.lora.inspect import summarise  # noqa: PLC0415

    with exit_with_code():
        summary = summarise(file)
    if output is Output.JSON:
        typer.echo(json.dumps(asdict(summary), indent=2, ensure_ascii=False))
    else:
        _print(summary, Console())


def _print(summary: "AdapterSummary", console: Console) -> None:
    dtypes = ", ".join(summary.dtypes)
    console.print(
        _plain(f"{summary.file}: {summary.size_bytes:,} bytes, {summary.parameters:,} parameters in {dtypes}")
    )
    console.print(f"{summary.type} for {summary.family} in {summary.format} format")
    if summary.trigger_phrase:
        console.print(_plain(f"trigger phrase: {summary.trigger_phrase}"))
    if summary.tags:
        console.print(_plain("tags: " + ", ".join(f"{tag} ({count})" for tag, count in summary.tags)))
    console.print(_table("part", summary.parts))
    if len({(block.ranks, block.alphas) for block in summary.blocks.values()}) > 1:
        console.print(_table("block", summary.blocks))
    metadata = Table("metadata", "value", show_edge=False)
    for key, value in summary.metadata.items():
        shown = value if len(value) <= _LONGEST_VALUE else value[: _LONGEST_VALUE - 1] + "…"
        metadata.add_row(_plain(key), _plain(shown))
    console.print(metadata)


def _plain(text: str) -> Text:
    """The text without what terminals obey: whoever made the file chose its words."""
    return Text(_CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text))


def _table(kind: str, groups: Mapping[str, "GroupSummary"]) -> Table:
    table = Table(Column(kind, no_wrap=True), "modules", "rank", "alpha", "mean norm", "largest norm", "in module")
    for name, group in groups.items():
        table.add_row(
            name,
            str(group.modules),
            ", ".join(map(str, group.ranks)),
            ", ".join(f"{alpha:g}" for alpha in group.alphas),
            f"{group.mean_norm:.4g}",
            f"{group.max_norm:.4g}",
            group.max_norm_module,
        )
    return table
