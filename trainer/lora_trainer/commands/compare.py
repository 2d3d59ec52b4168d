"""`lora compare`: several runs side by side in one HTML file."""

from functools import partial
from typing import Annotated

import typer

from lora_trainer.commands.failures import exit_with_code
from lora_trainer.commands.pages import Out, write_page
from lora_trainer.commands.stores import Anonymous, Endpoint, Region, S3Options, open_place
from lora_trainer.errors import InvalidConfiguration

_MOST = 12


def compare(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN…", help="Outputs of trainings: folders, s3://bucket/prefix, or their YAML files."),
    ],
    *,
    out: Out = "compare.html",
    endpoint: Endpoint = None,
    region: Region = None,
    anonymous: Anonymous = False,
) -> None:
    """Lay runs side by side in one HTML file: best epochs, curves, samples, and the settings that differ."""
    with exit_with_code():
        if not 2 <= len(runs) <= _MOST:
            raise InvalidConfiguration(f"RUN… names {len(runs)}; name 2 to {_MOST} runs", hint="")
        # Reads S3 and pictures, which takes seconds to import; `lora --help` and others do without it.
        from lora_trainer.report import write_comparison  # noqa: PLC0415

        options = S3Options(endpoint, region, anonymous)
        stores = [open_place(run, options) for run in runs]
        size_bytes = write_page(out, partial(write_comparison, stores), options)
    typer.echo(f"{out}: {size_bytes:,} bytes")
