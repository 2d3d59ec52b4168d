"""`lora caption`: caption files for the pictures that have none, by a model that describes them."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

from lora_trainer.captioning.model_files import FILES
from lora_trainer.captioning.search import Search
from lora_trainer.captioning.wording import Wording
from lora_trainer.commands.failures import exit_with_code
from lora_trainer.commands.stores import Anonymous, Endpoint, Region, S3Options, uri_of
from lora_trainer.data.images import is_image
from lora_trainer.errors import BaseModelUnavailable, InvalidConfiguration, InvalidDataset

if TYPE_CHECKING:
    # torch and boto3 take seconds to import; `lora --help` and others do without them.
    import torch

    from lora_trainer.caption_files import Describe, Found, Outcome
    from lora_trainer.storage import Store

_INTERRUPTED = 130
"""What a shell says of a program that was ended by Ctrl-C."""


# Each option of the command line is a parameter.
def caption(  # noqa: PLR0913
    place: Annotated[str, typer.Argument(help="Folder or s3:// prefix; pictures at any depth, but not in reg/.")],
    *,
    model: Annotated[str, typer.Option("--model", help="BLIP model: hf://owner/repo, s3://…, pvc://… or a folder.")],
    batch: Annotated[int, typer.Option("--batch", min=1, max=256, help="Pictures that are looked at together.")] = 8,
    trigger: Annotated[
        str, typer.Option("--trigger", help="Words put first, with a comma, unless they are said.")
    ] = "",
    prefix: Annotated[str, typer.Option("--prefix", help="Text before every caption, with a space between.")] = "",
    suffix: Annotated[str, typer.Option("--suffix", help="Text after every caption, with a space between.")] = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace captions that are there.")] = False,
    extension: Annotated[str, typer.Option("--extension", help="Extension of caption files.")] = ".txt",
    beams: Annotated[int, typer.Option("--beams", min=1, max=16, help="Beams of the search.")] = 3,
    min_length: Annotated[int, typer.Option("--min-length", min=0, max=200, help="Least tokens to say.")] = 5,
    max_length: Annotated[int, typer.Option("--max-length", min=1, max=200, help="Most tokens to say.")] = 50,
    device: Annotated[str | None, typer.Option("--device", help="cuda or cpu. Default: a GPU if there is one.")] = None,
    endpoint: Endpoint = None,
    region: Region = None,
    anonymous: Anonymous = False,
) -> None:
    """Describe pictures that have no caption file, and write one for each. Started again, it goes on."""
    from lora_trainer.caption_files import CaptionWriter, caption_pictures, find_tasks  # noqa: PLC0415  (boto3)

    options, tally = S3Options(endpoint, region, anonymous), _Tally()
    search, wording = Search(beams, min_length, max_length), Wording(trigger, prefix, suffix)
    with exit_with_code():
        _check(extension, search)
        store = _open(place, options)
        found = find_tasks(store.list(), extension=extension, overwrite=overwrite)
        if not (found.tasks or found.captioned):
            raise InvalidDataset(f"{place} holds no pictures to caption; give a folder of pictures")
        with _ending_with_summary(found, tally):
            if found.tasks:
                describe = _describer(model, device, options, search)
                writer = CaptionWriter(store, overwrite, is_shared=uri_of(place).startswith("s3://"))
                outcomes = caption_pictures(found.tasks, writer, describe, wording.caption, batch=batch)
                _watch(outcomes, len(found.tasks), tally)
        if tally.problems:
            raise InvalidDataset.listing(tally.problems)


@dataclass
class _Tally:
    """What was done so far."""

    written: int = 0
    kept: int = 0
    problems: list[str] = field(default_factory=list)

    def add(self, outcome: "Outcome") -> None:
        self.written += outcome.state == "written"
        self.kept += outcome.state == "kept"
        if outcome.state == "failed":
            self.problems.append(f"{outcome.task.picture} {outcome.problem}")


def _check(extension: str, search: Search) -> None:
    """Raises InvalidConfiguration."""
    if not re.fullmatch(r"\.[A-Za-z0-9]+", extension) or is_image(PurePosixPath(f"a{extension}")):
        raise InvalidConfiguration(f"--extension is {extension}; write that of caption files, such as .txt", hint="")
    if search.min_tokens > search.max_tokens:
        raise InvalidConfiguration(
            f"--min-length is {search.min_tokens}, more than --max-length {search.max_tokens}; lower it", hint=""
        )


def _open(place: str, options: S3Options) -> "Store":
    from lora_trainer.storage import open_store  # noqa: PLC0415  (boto3)

    uri = uri_of(place)
    if uri.startswith("file://") and not Path(place.removeprefix("file://")).is_dir():
        raise InvalidConfiguration(f"{place} is no folder; correct the path", hint="")
    return open_store(uri, options.connection(), field=place, on_bytes=lambda count: None)


def _describer(model: str, device: str | None, options: S3Options, search: Search) -> "Describe":
    """Fetches and loads the model. Raises as fetching and loading say."""
    from lora_trainer.captioning.blip import load_captioner  # noqa: PLC0415  (torch)
    from lora_trainer.storage import Source, fetch  # noqa: PLC0415

    where, uri, connection = _device(device), uri_of(model), options.connection()
    source = Source(uri, "--model", BaseModelUnavailable, FILES)
    folder = fetch(source, connection.folder_for(uri), connection, on_bytes=lambda count: None)
    captioner = load_captioner(folder, where, field="--model")
    return lambda images: captioner.describe(images, search)


def _device(name: str | None) -> "torch.device":
    import torch  # noqa: PLC0415  (takes seconds)

    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        # A device that is not there says so only when something is put on it.
        return torch.empty(1, device=name).device
    except (RuntimeError, AssertionError) as error:
        problem = str(error).splitlines()[0]
        raise InvalidConfiguration(f"--device {name} cannot be used: {problem}; use cuda or cpu", hint="") from error


def _watch(outcomes: Iterator["Outcome"], total: int, tally: _Tally) -> None:
    """Carries all out behind a progress bar."""
    rest_of_line = Column(ratio=1, no_wrap=True, overflow="ellipsis")
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    newest = TextColumn("{task.fields[caption]}", table_column=rest_of_line)
    with Progress(*columns, newest, console=Console(stderr=True), expand=True) as bar:
        shown = bar.add_task("captions", total=total, caption="")
        for outcome in outcomes:
            tally.add(outcome)
            text = outcome.caption or outcome.problem
            bar.update(shown, advance=1, caption=escape(f"{outcome.task.picture}: {text}"))


@contextmanager
def _ending_with_summary(found: "Found", tally: _Tally) -> Iterator[None]:
    """Says at the end, and after Ctrl-C, what was done."""
    try:
        yield
    except KeyboardInterrupt as error:
        typer.echo(f"Stopped: {_summary(found, tally)}; started again, it goes on")
        raise typer.Exit(_INTERRUPTED) from error
    typer.echo(_summary(found, tally))


def _summary(found: "Found", tally: _Tally) -> str:
    said = [f"{tally.written} captions written", f"{found.captioned + tally.kept} pictures had one"]
    said += [f"{len(tally.problems)} failed"] if tally.problems else []
    said += [f"{found.regularization} in reg/ left out"] if found.regularization else []
    return ", ".join(said)
