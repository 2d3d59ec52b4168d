"""`lora captions`: what is wrong with the captions and pictures of a dataset, and edits of captions with undo."""

from collections.abc import Iterable, Sequence
from functools import reduce
from itertools import zip_longest
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from lora_trainer.commands.audit import audit
from lora_trainer.commands.failures import exit_with_code
from lora_trainer.curation.caption_edit import plan_edit
from lora_trainer.curation.edits import Edit, add_tag, remove_tags, replace_tag, replace_text
from lora_trainer.curation.journal import FOLDER, Change, carry_out, last_entry
from lora_trainer.curation.journal import undo as undo_entry
from lora_trainer.errors import InvalidConfiguration, InvalidDataset

captions = typer.Typer(help="Check the captions and pictures of a dataset, and edit captions.", no_args_is_help=True)
captions.command()(audit)

Folder = Annotated[str, typer.Argument(metavar="DIR", help="Folder of this machine; its reg/ is left alone.")]
Separator = Annotated[str, typer.Option("--separator", help="What stands between tags.")]
Extension = Annotated[str, typer.Option("--extension", help="Extension of caption files.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would change; write nothing.")]
PlainText = Annotated[bool, typer.Option("--text", help="Plain text wherever it stands, instead of whole tags.")]


# Each option of the command line is a parameter.
@captions.command()
def replace(  # noqa: PLR0913
    folder: Folder,
    old: Annotated[str, typer.Argument(help="Whole tag that is to go.")],
    new: Annotated[str, typer.Argument(help="Tag that takes its place; a caption holds it once then.")],
    *,
    text: PlainText = False,
    separator: Separator = ",",
    extension: Extension = ".txt",
    dry_run: DryRun = False,
) -> None:
    """Replace a tag in all captions of a folder."""
    with exit_with_code():
        _check_words((old,), separator=None if text else separator)
        if not new.strip() and not text:
            raise InvalidConfiguration("NEW is empty; `lora captions remove` takes tags away", hint="")
        edit = replace_text(old, new) if text else replace_tag(old, new, separator=separator)
        _edit(folder, f"replace {old!r} by {new!r}", edit, extension=extension, dry_run=dry_run)


@captions.command()
def remove(
    folder: Folder,
    tags: Annotated[list[str], typer.Argument(help="Whole tags that are to go.")],
    *,
    text: PlainText = False,
    separator: Separator = ",",
    extension: Extension = ".txt",
    dry_run: DryRun = False,
) -> None:
    """Remove tags from all captions of a folder."""
    with exit_with_code():
        _check_words(tags, separator=None if text else separator)
        edit = _without_texts(tags) if text else remove_tags(tags, separator=separator)
        _edit(folder, f"remove {', '.join(map(repr, tags))}", edit, extension=extension, dry_run=dry_run)


# Each option of the command line is a parameter.
@captions.command()
def add(  # noqa: PLR0913
    folder: Folder,
    tag: Annotated[str, typer.Argument(help="Tag that captions get which do not hold it.")],
    *,
    first: Annotated[bool, typer.Option("--first/--last", help="Where it is put.")] = False,
    where: Annotated[str | None, typer.Option("--where", metavar="TAG", help="Only where this whole tag is.")] = None,
    separator: Separator = ",",
    extension: Extension = ".txt",
    dry_run: DryRun = False,
) -> None:
    """Add a tag to all captions of a folder."""
    with exit_with_code():
        _check_words((tag,) if where is None else (tag, where), separator=separator)
        edit = add_tag(tag, separator=separator, first=first, where=where)
        said = f"add {tag!r}" + (f" where {where!r} is" if where else "")
        _edit(folder, said, edit, extension=extension, dry_run=dry_run)


@captions.command()
def undo(folder: Folder, *, dry_run: DryRun = False) -> None:
    """Take back the last edit of a folder that was not taken back yet."""
    with exit_with_code():
        root = _local_folder(folder)
        entry = last_entry(root)
        if entry is None:
            raise InvalidDataset(
                f"{folder} has no edit to undo: its {FOLDER}/ holds none",
                hint="Edits are undone with the same folder that they were made with.",
            )
        if dry_run:
            _show(Change(change.file, change.after, change.before) for change in entry.changes)
            typer.echo(f"Would undo: {entry.command}")
            return
        restored = undo_entry(root, entry)
        typer.echo(f"Undone: {entry.command} ({_count(len(restored), 'caption')} restored)")


def _edit(folder: str, said: str, edit: Edit, *, extension: str, dry_run: bool) -> None:
    """Plans an edit and, unless it is a dry run, carries it out. Raises as these say."""
    root = _local_folder(folder)
    planned = plan_edit(root, edit, extension=extension)
    changed = f"{len(planned.changes)} of {_count(planned.captions, 'caption')}"
    if dry_run:
        _show(planned.changes)
        typer.echo(f"Would {said}: {changed} would change")
    elif planned.changes:
        carry_out(root, said, planned.changes)
        typer.echo(f"{said[0].upper()}{said[1:]}: {changed} changed; `lora captions undo` takes it back")
    else:
        typer.echo(f"Nothing to {said}: none of {_count(planned.captions, 'caption')} would change")


def _without_texts(texts: Sequence[str]) -> Edit:
    edits = [replace_text(text, "") for text in texts]
    return lambda caption: reduce(lambda so_far, edit: edit(so_far), edits, caption)


def _check_words(words: Sequence[str], *, separator: str | None) -> None:
    """Raises InvalidConfiguration for tags that no caption can hold; plain text may be anything that is not empty."""
    for word in words:
        if not word or (separator is not None and not word.strip()):
            raise InvalidConfiguration("a tag is empty; write the tag that is meant", hint="")
        if separator is not None and (separator in word or word != word.strip()):
            raise InvalidConfiguration(
                f"{word!r} is no single tag, because tags hold no {separator!r} and no blanks around them; give one "
                "tag each, or --text",
                hint="",
            )


def _local_folder(place: str) -> Path:
    """Raises InvalidConfiguration."""
    if "://" in place and not place.startswith("file://"):
        raise InvalidConfiguration(
            f"{place} does not lie on this machine, and captions are edited only where they can be taken back; copy "
            "the folder here, edit it, and copy its captions back",
            hint="",
        )
    path = Path(place.removeprefix("file://"))
    if not path.is_dir():
        raise InvalidConfiguration(f"{place} is no folder; correct the path", hint="")
    return path


def _show(changes: Iterable[Change]) -> None:
    """Each line that is different, before and after."""
    console = Console(soft_wrap=True, highlight=False)
    for change in changes:
        console.print(Text(change.file, style="bold"))
        pairs = zip_longest(change.before.split("\n"), change.after.split("\n"), fillvalue="")
        for before, after in (pair for pair in pairs if pair[0] != pair[1]):
            console.print(Text(f"- {before.rstrip()}", style="red"))
            console.print(Text(f"+ {after.rstrip()}", style="green"))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
