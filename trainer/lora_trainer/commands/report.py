"""`lora report`: one HTML file that shows a run."""

import os
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from lora_trainer.commands.failures import exit_with_code
from lora_trainer.commands.pages import Out, write_page
from lora_trainer.commands.stores import Anonymous, Endpoint, Region, S3Options, open_place

Run = Annotated[
    str, typer.Argument(metavar="RUN", help="Output of a training: a folder, s3://bucket/prefix, or its YAML file.")
]


def report(
    run: Run,
    *,
    out: Out = "report.html",
    endpoint: Endpoint = None,
    region: Region = None,
    anonymous: Anonymous = False,
) -> None:
    """Show a run in one HTML file: best epoch, curves, samples, grid, data, settings, files. Needs no network."""
    with exit_with_code():
        # Reads S3 and pictures, which takes seconds to import; `lora --help` and others do without.
        from lora_trainer.report import write_report  # noqa: PLC0415

        options = S3Options(endpoint, region, anonymous)
        write = partial(write_report, open_place(run, options), links=_links(run, out))
        size_bytes = write_page(out, write, options)
    typer.echo(f"{out}: {size_bytes:,} bytes")


def _links(run: str, out: str) -> str | None:
    """From the report to a run where both lie in folders of this machine; else None."""
    if not Path(run).is_dir() or "://" in out:
        return None
    relative = os.path.relpath(Path(run).absolute(), Path(out).absolute().parent)
    return "" if relative == "." else f"{Path(relative).as_posix()}/"
