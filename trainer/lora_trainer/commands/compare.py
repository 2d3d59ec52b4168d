"""`lora compare`: several runs side by side in one HTML file."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from lora_trainer.commands.failures import exit_with_code
from lora_trainer.commands.stores import Anonymous, Endpoint, Region, S3Options, open_place
from lora_trainer.errors import InvalidConfiguration

_MOST = 12


def compare(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN…", help="Outputs of trainings: folders, s3://bucket/prefix, or their YAML files."),
    ],
    *,
    out: Annotated[
        str, typer.Option("--out", "-o", help="The HTML file, here or at s3://bucket/key; an older one is replaced.")
    ] = "compare.html",
    endpoint: Endpoint = None,
    region: Region = None,
    anonymous: Anonymous = False,
) -> None:
    """Lay runs side by side in one HTML file: best epochs, curves, samples, and the settings that differ."""
    with exit_with_code():
        if not 2 <= len(runs) <= _MOST:
            raise InvalidConfiguration(f"RUN… names {len(runs)}; name 2 to {_MOST} runs", hint="")
        size_bytes = _write(runs, out, S3Options(endpoint, region, anonymous))
    typer.echo(f"{out}: {size_bytes:,} bytes")


def _write(runs: list[str], out: str, options: S3Options) -> int:
    """Writes the page to `out`, a path or a URI; its size."""
    # Reads S3 and pictures, which takes seconds to import; `lora --help` and others do without.
    from lora_trainer.report import write_comparison  # noqa: PLC0415

    stores = [open_place(run, options) for run in runs]
    if "://" not in out:
        write_comparison(stores, Path(out))
        return Path(out).stat().st_size
    folder, _, name = out.rpartition("/")
    if not name:
        raise InvalidConfiguration(f"--out is {out}, a folder; name a file in it, such as {out}compare.html", hint="")
    if "://" not in folder:
        raise InvalidConfiguration(f"--out is {out}, which names no bucket; write s3://bucket/{name}", hint="")
    target = open_place(folder, options)
    with tempfile.TemporaryDirectory() as place:
        page = Path(place, "compare.html")
        write_comparison(stores, page)
        target.put_bytes(page.read_bytes(), name)
        return page.stat().st_size
