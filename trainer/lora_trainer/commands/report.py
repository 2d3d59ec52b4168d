"""`lora report`: one HTML file that shows a run."""

import os
from pathlib import Path
from typing import Annotated

import typer

from lora_trainer.commands.failures import exit_with_code
from lora_trainer.commands.stores import Anonymous, Endpoint, Region, S3Options, open_place

Run = Annotated[
    str, typer.Argument(metavar="RUN", help="Output of a training: a folder, s3://bucket/prefix, or its YAML file.")
]


def report(
    run: Run,
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="The HTML file; an older one is replaced.")] = Path(
        "report.html"
    ),
    endpoint: Endpoint = None,
    region: Region = None,
    anonymous: Anonymous = False,
) -> None:
    """Show a run in one HTML file: best epoch, curves, samples, grid, data, settings, files. Needs no network."""
    with exit_with_code():
        # Reads S3 and pictures, which takes seconds to import; `lora --help` and others do without.
        from lora_trainer.report import write_report  # noqa: PLC0415

        store = open_place(run, S3Options(endpoint, region, anonymous))
        write_report(store, out, links=_links(run, out))
    typer.echo(f"{out}: {out.stat().st_size:,} bytes")


def _links(run: str, out: Path) -> str | None:
    """From the report to a run in a folder of this machine; None: it lies elsewhere."""
    if not Path(run).is_dir():
        return None
    relative = os.path.relpath(Path(run).absolute(), out.absolute().parent)
    return "" if relative == "." else f"{Path(relative).as_posix()}/"
