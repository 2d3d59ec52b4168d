"""`lora import`: settings of Kohya_ss and sd-scripts as a LoraTraining file."""

import sys
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from lora_trainer.commands.failures import exit_with_code
from lora_trainer.migration.document import render, settle, summary
from lora_trainer.migration.reader import read_adapter, read_text_settings
from lora_trainer.migration.source import Choices, Source
from lora_trainer.migration.translation import translate
from lora_trainer.migration.unusable import UnusableSettings

_STDIN = "-"


def import_(
    file: Annotated[
        str,
        typer.Argument(
            help="Kohya_ss settings (.json, .toml), a script or command line of sd-scripts, a dataset definition "
            "(.toml), an adapter (.safetensors); - reads text from stdin."
        ),
    ],
    *,
    base_model: Annotated[str | None, typer.Option(metavar="URI", help="Where the base model lies.")] = None,
    dataset: Annotated[str | None, typer.Option(metavar="URI", help="Where the pictures lie.")] = None,
    output_uri: Annotated[
        str | None, typer.Option("--output", metavar="URI", help="Where adapters are written.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the training. Default: output_name.")] = None,
    write_to: Annotated[
        Path | None, typer.Option("-o", metavar="FILE", help="Write here instead of to stdout; never over a file.")
    ] = None,
) -> None:
    """Turn settings of Kohya_ss or sd-scripts into a LoraTraining file; what cannot be carried over is told."""
    with exit_with_code():
        source = _read(file)
        chosen, draft = translate(source, Choices(base_model, dataset, output_uri, name))
        training = settle(chosen, draft)
        shown = "stdin" if file == _STDIN else Path(file).name
        text = render(training, draft, origin=f"{shown} ({source.form}), brought over by `lora import`")
        if write_to is not None:
            _write(write_to, text)
    if write_to is None:
        sys.stdout.write(text)
    for line in summary(draft):
        typer.echo(line, err=True)


def _read(file: str) -> Source:
    if file == _STDIN:
        return read_text_settings(_decoded(sys.stdin.buffer, "stdin"), folder=Path.cwd(), name="")
    path = Path(file)
    try:
        content = path.open("rb")
    except OSError as error:
        raise UnusableSettings(f"{path} cannot be read: {error.strerror}", hint="Check the path.") from error
    with content:
        if path.suffix == ".safetensors":
            return read_adapter(content, name=path.stem)
        return read_text_settings(_decoded(content, file), folder=path.parent, name=path.stem)


def _decoded(stream: BinaryIO, name: str) -> str:
    try:
        return stream.read().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UnusableSettings(f"{name} is no UTF-8 text: {error}; give settings or a .safetensors") from error


def _write(path: Path, text: str) -> None:
    try:
        with path.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError as error:
        raise UnusableSettings(f"{path} exists; choose another name or delete it", hint="") from error
    except OSError as error:
        raise UnusableSettings(f"{path} cannot be written: {error.strerror}", hint="") from error
