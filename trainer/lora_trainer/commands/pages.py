"""Where the page of `report` or `compare` goes: a file of this machine, or a place by its URI."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from lora_trainer.commands.stores import S3Options, open_place
from lora_trainer.errors import InvalidConfiguration

Out = Annotated[
    str, typer.Option("--out", "-o", help="The HTML file, here or at s3://bucket/key; an older one is replaced.")
]


def write_page(out: str, write: Callable[[Path], None], options: S3Options) -> int:
    """Lets `write` make the page and puts it to `out`, a path or a URI; its size in bytes.

    Raises:
        InvalidConfiguration: `out` names no file.
        TrainingError: as `write` and the store say.
    """
    if "://" not in out:
        if not Path(out).name or Path(out).is_dir():
            raise InvalidConfiguration(
                f"--out is {out!r}, which names no file; write {Path(out, 'page.html')}", hint=""
            )
        write(Path(out))
        return Path(out).stat().st_size
    folder, _, name = out.rpartition("/")
    if not name:
        raise InvalidConfiguration(f"--out is {out}, a folder; name a file in it, such as {out}page.html", hint="")
    if "://" not in folder:
        raise InvalidConfiguration(f"--out is {out}, which names no bucket; write s3://bucket/{name}", hint="")
    target = open_place(folder, options, field="--out")
    with tempfile.TemporaryDirectory() as place:
        page = Path(place, name)
        write(page)
        target.put_bytes(page.read_bytes(), name)
        return page.stat().st_size
