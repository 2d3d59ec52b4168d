"""`lora captions audit`: what is wrong with the captions and pictures of a dataset, for people and for CI."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import count, groupby
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lora_api.dataset_spec import Dataset, Subset
from lora_api.exit_codes import ExitCode
from lora_trainer.commands.failures import exit_with_code
from lora_trainer.commands.overrides import load_training_file
from lora_trainer.commands.stores import Anonymous, Endpoint, Region, S3Options
from lora_trainer.curation.audit import Audit, Wanted
from lora_trainer.curation.audit import audit as audit_dataset
from lora_trainer.curation.findings import Finding
from lora_trainer.data.folders import concept_of, name_of, visible
from lora_trainer.data.images import is_image
from lora_trainer.data.listing import DatasetSources
from lora_trainer.data.metadata_file import FILE_NAME
from lora_trainer.errors import InvalidConfiguration, InvalidDataset
from lora_trainer.settings import Settings
from lora_trainer.sources import Fetcher, fetch_dataset

_SHOWN_FILES = 5
_SHOWN_FINDINGS = 10

MaxTokens = Annotated[
    int | None, typer.Option("--max-tokens", help="Longest caption: 75, 150 or 225. Default: the file's, else 75.")
]
Resolution = Annotated[
    str | None, typer.Option("--resolution", help="Training size, as 768 or 768x512. Default: the file's, else 512.")
]


# Each option of the command line is a parameter.
def audit(  # noqa: PLR0913
    place: Annotated[str, typer.Argument(help="Folder, s3:// or hf:// URI, or LoraTraining file of the dataset.")],
    *,
    trigger: Annotated[str, typer.Option("--trigger", help="Words that every caption has to hold.")] = "",
    max_tokens: MaxTokens = None,
    resolution: Resolution = None,
    rare: Annotated[
        float, typer.Option("--rare", min=0, max=1, help="Tags on a smaller share of the captions are listed.")
    ] = 0.15,
    extension: Annotated[str | None, typer.Option("--extension", help="Extension of caption files.")] = None,
    tags: Annotated[int, typer.Option("--tags", min=0, help="How many of the most frequent tags to show.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Hints fail as problems do.")] = False,
    endpoint: Endpoint = None,
    region: Region = None,
    anonymous: Anonymous = False,
) -> None:
    """Find what is wrong with captions and pictures. Exit code 65 if there is a problem, 0 if there are only hints."""
    with exit_with_code():
        spec, sources = _dataset(place, S3Options(endpoint, region, anonymous))
        spec = _changed(spec, resolution, max_tokens, extension)
        with _counting() as on_picture:
            counter = _token_counter(spec.captions.weighted)
            found = audit_dataset(sources, spec, Wanted(trigger, rare), counter, on_picture=on_picture)
    if as_json:
        typer.echo(json.dumps(to_document(found), indent=2, ensure_ascii=False))
    else:
        _print(Console(), found, trigger=trigger, tags=tags)
    if found.count("problem") or (strict and found.findings):
        raise typer.Exit(int(ExitCode.INVALID_DATASET))


def to_document(audit: Audit) -> dict[str, Any]:
    """Everything an audit gave, in camelCase like the API."""
    return {
        "pictures": audit.pictures,
        "regularizationPictures": audit.regularization_pictures,
        "captions": audit.captions,
        "problems": audit.count("problem"),
        "hints": audit.count("hint"),
        "tags": [{"tag": tag, "captions": count} for tag, count in audit.tags],
        "findings": [
            {
                "kind": finding.kind.label,
                "severity": finding.kind.severity,
                "message": finding.message,
                "files": list(finding.files),
                "cure": finding.cure,
            }
            for finding in audit.findings
        ],
    }


def _dataset(place: str, options: S3Options) -> tuple[Dataset, DatasetSources]:
    """How a dataset would be trained, and local copies of its folders. Raises as reading and fetching say."""
    if place.endswith((".yaml", ".yml")) and "://" not in place:
        spec = load_training_file(Path(place)).spec
        return spec.dataset, fetch_dataset(spec, Fetcher(spec, Settings.from_environment(), lambda _: None))
    uri = place if "://" in place else f"file://{Path(place).resolve()}"
    root = _fetched(uri, place, options)
    if not root.is_dir():
        raise InvalidDataset(f"{place} is a file; give the folder of pictures", hint="")
    if not _is_flat(root):
        return Dataset(uri=uri), DatasetSources(root=root)
    concept = concept_of(name_of(uri))
    subset = Subset(uri=uri, class_tokens=concept[1] if concept else None)
    return Dataset(subsets=(subset,)), DatasetSources(subsets=(root,))


def _is_flat(root: Path) -> bool:
    """Whether the folder holds pictures itself, and no folder of the convention."""
    inside = visible(root)
    folders = any(path.is_dir() and concept_of(path.name) for path in inside)
    return not (root / FILE_NAME).is_file() and not folders and any(is_image(path) for path in inside)


def _fetched(uri: str, place: str, options: S3Options) -> Path:
    from lora_trainer.storage import Source, fetch  # noqa: PLC0415  (boto3)

    connection = options.connection()
    source = Source(uri, place, InvalidDataset, repository="dataset")
    return fetch(source, connection.folder_for(uri), connection, on_bytes=lambda _: None)


_OPTIONS = {
    "resolution": (None, "resolution", "use 512, 768 or 768x512, in multiples of 8"),
    "max-tokens": ("captions", "maxTokens", "use 75, 150 or 225"),
    "extension": ("captions", "extension", "use that of caption files, such as .txt"),
}
"""Option -> section and field of `spec.dataset`, and what to write instead of what cannot be."""


def _changed(spec: Dataset, resolution: str | None, max_tokens: int | None, extension: str | None) -> Dataset:
    """The spec with what the options say instead. Raises InvalidConfiguration."""
    size = int(resolution) if resolution is not None and resolution.isdecimal() else resolution
    for option, value in (("resolution", size), ("max-tokens", max_tokens), ("extension", extension)):
        if value is not None:
            spec = _with_option(spec, option, value)
    return spec


def _with_option(spec: Dataset, option: str, value: int | str) -> Dataset:
    section, field, cure = _OPTIONS[option]
    document = spec.to_document()
    (document.setdefault(section, {}) if section else document)[field] = value
    try:
        return Dataset.model_validate_json(json.dumps(document))
    except ValidationError as error:
        problem = error.errors()[-1]["msg"]
        raise InvalidConfiguration(f"--{option} cannot be {value} ({problem}); {cure}", hint="") from error


def _token_counter(weighted: bool) -> Callable[[Sequence[str]], Sequence[int]]:
    # Here: transformers takes a second to import, and the other commands do without it.
    from lora_trainer.families.vocabulary import count_tokens  # noqa: PLC0415

    return partial(count_tokens, weighted=weighted)


@contextmanager
def _counting() -> Iterator[Callable[[], None]]:
    """Shows on stderr how many pictures were read."""
    numbers = count(1)
    with Console(stderr=True).status("Reading pictures") as status:
        yield lambda: status.update(f"Reading pictures: {next(numbers)}")


def _print(console: Console, audit: Audit, *, trigger: str, tags: int) -> None:
    regularization = f", {audit.regularization_pictures} for regularisation" if audit.regularization_pictures else ""
    console.print(f"{audit.pictures} pictures{regularization}; {audit.captions} have a caption of their own.")
    if audit.tags and tags:
        console.print(_tag_table(audit, tags))
    for _, group in groupby(audit.findings, key=lambda finding: finding.kind):
        _print_kind(console, list(group))
    if not trigger.strip():
        console.print("No --trigger was given, so captions were not checked for it.", style="dim")
    console.print(_summary(audit), style="bold red" if audit.count("problem") else "bold green")


def _summary(audit: Audit) -> str:
    problems, hints = audit.count("problem"), audit.count("hint")
    if not audit.findings:
        return "Nothing is wrong."
    return f"{problems} problem{'' if problems == 1 else 's'}, {hints} hint{'' if hints == 1 else 's'}."


def _tag_table(audit: Audit, shown: int) -> Table:
    more = len(audit.tags) - shown
    table = Table("Tag", title="Tags", caption=f"and {more} more" if more > 0 else None)
    table.add_column("Captions", justify="right")
    table.add_column("Share", justify="right")
    for tag, number in audit.tags[:shown]:
        table.add_row(Text(tag), str(number), f"{number / max(1, audit.captions):.0%}")
    return table


def _print_kind(console: Console, findings: Sequence[Finding]) -> None:
    """One table for all findings of a kind; the cure once where it is the same for all."""
    kind = findings[0].kind
    cures = {finding.cure for finding in findings}
    console.print(f"\n{kind.title} ({len(findings)}, {kind.severity})", style="bold", highlight=False)
    table = Table(show_lines=True)
    columns = {"Files": any(finding.files for finding in findings), "What": True, "What to do": len(cures) > 1}
    for name in filter(columns.get, columns):
        table.add_column(name, overflow="fold")
    for finding in findings[:_SHOWN_FINDINGS]:
        cells = zip((_some(finding.files), finding.message, finding.cure), columns.values(), strict=True)
        table.add_row(*(Text(cell) for cell, is_shown in cells if is_shown))
    console.print(table)
    if len(findings) > _SHOWN_FINDINGS:
        console.print(f"and {len(findings) - _SHOWN_FINDINGS} more; --json lists all")
    if len(cures) == 1:
        console.print(Text(f"→ {cures.pop()}."))


def _some(files: Sequence[str]) -> str:
    more = f"\nand {len(files) - _SHOWN_FILES} more" if len(files) > _SHOWN_FILES else ""
    return "\n".join(files[:_SHOWN_FILES]) + more
