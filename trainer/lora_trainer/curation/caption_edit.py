"""Edits of all captions of a folder: what they would change, before anything is written. Used by `lora captions`."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lora_trainer.curation.edits import Edit, edit_lines
from lora_trainer.curation.journal import Change
from lora_trainer.data.captions import UnusableCaption, by_name, find_caption
from lora_trainer.data.folders import MASKS, REGULARIZATION, pictures_below
from lora_trainer.errors import InvalidDataset

_MARK = "\ufeff"
"""Byte-order mark that some editors put before UTF-8; it stays where it is."""


@dataclass(frozen=True)
class PlannedEdit:
    """What an edit would do to a folder."""

    changes: tuple[Change, ...]
    """Ascending by file."""
    captions: int
    """Caption files that were looked at."""


def plan_edit(root: Path, edit: Edit, *, extension: str) -> PlannedEdit:
    """The changes that `edit` makes to the caption files of the pictures below `root`, but not in its `reg/`.

    Raises:
        InvalidDataset: the folder holds no captions, or files are not UTF-8 or would have no caption left, each named.
    """
    files = caption_files(root, extension=extension)
    if not files:
        raise InvalidDataset(
            f"{root} holds no captions: no picture below it has a {extension} file; give another folder or --extension"
        )
    changes: list[Change] = []
    problems: list[str] = []
    for file in files:
        name = file.relative_to(root).as_posix()
        try:
            changes += _change(name, file, edit)
        except UnusableCaption as error:
            problems.append(f"{name} {error}")
        except OSError as error:
            problems.append(f"{name} cannot be read ({error.strerror})")
    if problems:
        raise InvalidDataset.listing(problems)
    return PlannedEdit(tuple(changes), len(files))


def caption_files(root: Path, *, extension: str) -> list[Path]:
    """The caption files of the pictures at any depth below `root`, ascending; masks and `reg/` are left out."""
    skipped = {root / MASKS, root / REGULARIZATION}
    folders: dict[Path, list[Path]] = {}
    for picture in pictures_below(root):
        if skipped.isdisjoint(picture.parents):
            folders.setdefault(picture.parent, []).append(picture)
    found: set[Path] = set()
    for folder, pictures in folders.items():
        beside = by_name(path for path in folder.iterdir() if path.is_file())
        captions = (find_caption(picture.stem, extension, beside) for picture in pictures)
        found.update(path for path in captions if path is not None)
    return sorted(found)


def _change(name: str, file: Path, edit: Edit) -> Iterable[Change]:
    try:
        before = file.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise UnusableCaption("is not UTF-8; save it as UTF-8") from error
    mark = _MARK if before.startswith(_MARK) else ""
    after = mark + edit_lines(before.removeprefix(_MARK), edit)
    if after != before and not _first_line(after):
        raise UnusableCaption("would have no caption left; edit it by hand, or remove the file")
    return [Change(name, before, after)] if after != before else []


def _first_line(text: str) -> str:
    return text.removeprefix(_MARK).partition("\n")[0].strip()
