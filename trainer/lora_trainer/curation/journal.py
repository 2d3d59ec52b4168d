"""The journal of caption edits in `.lora-captions/`, by which they are undone, the last one first.

An edit is written down whole before the first file changes. So whatever ends it half-way, undoing it finds each file
as it was before or as it is after, and any other content is somebody's work that undoing would destroy.
Used by `caption_edit`.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile

from lora_trainer.errors import InvalidDataset

FOLDER = ".lora-captions"
_DIGITS = 6


@dataclass(frozen=True)
class Change:
    """One caption file in an edit."""

    file: str
    """Path relative to the folder of the journal, with `/`."""
    before: str
    """Its whole text."""
    after: str


@dataclass(frozen=True)
class Entry:
    """One edit."""

    number: int
    command: str
    """What was asked for, for people."""
    changes: tuple[Change, ...]


def carry_out(root: Path, command: str, changes: Sequence[Change]) -> Entry:
    """Writes an edit down, then changes its files, each whole or not at all.

    Raises:
        InvalidDataset: a file is no longer as it was read; the files before it are changed, undoing takes that back.
    """
    entry = _write_down(root, command, changes)
    for change in entry.changes:
        if _read(root / change.file) != change.before:
            raise InvalidDataset(
                f"{change.file} was changed by somebody else meanwhile; the edit stopped there, and the files before "
                "it are changed",
                hint="Undo it with `lora captions undo`, then start it again.",
            )
        _replace(root / change.file, change.after)
    return entry


def last_entry(root: Path) -> Entry | None:
    """The edit that undoing takes back; None without any. Raises InvalidDataset if the journal is damaged."""
    path = max(_entries(root), default=None)
    if path is None:
        return None
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        changes = tuple(Change(**change) for change in document["changes"])
        return Entry(int(path.stem), str(document["command"]), changes)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidDataset(
            f"{FOLDER}/{path.name} cannot be read ({error}), so its edit cannot be undone",
            hint="Remove it to keep the captions as they are, or to undo the edits before it.",
        ) from error


def undo(root: Path, entry: Entry) -> list[str]:
    """Takes the last edit back and forgets it; the files that got their old text again.

    Raises:
        InvalidDataset: files were changed since, each named; nothing is undone then.
    """
    texts = {change.file: _read(root / change.file) for change in entry.changes}
    foreign = [change.file for change in entry.changes if texts[change.file] not in (change.before, change.after)]
    if foreign:
        raise InvalidDataset.listing(
            [f"{file} {'is gone' if texts[file] is None else 'was changed'} since the edit" for file in foreign]
        )
    restored = [change for change in entry.changes if texts[change.file] != change.before]
    for change in restored:
        _replace(root / change.file, change.before)
    _path(root, entry.number).unlink()
    return [change.file for change in restored]


def _write_down(root: Path, command: str, changes: Sequence[Change]) -> Entry:
    (root / FOLDER).mkdir(exist_ok=True)
    numbers = [int(path.stem) for path in _entries(root)]
    entry = Entry(max(numbers, default=0) + 1, command, tuple(changes))
    document = {"command": command, "changes": [asdict(change) for change in changes]}
    _replace(_path(root, entry.number), json.dumps(document, ensure_ascii=False, indent=1))
    return entry


def _entries(root: Path) -> list[Path]:
    return [path for path in (root / FOLDER).glob("*.json") if path.stem.isdecimal()]


def _path(root: Path, number: int) -> Path:
    return root / FOLDER / f"{number:0{_DIGITS}d}.json"


def _read(path: Path) -> str | None:
    """Every byte of it as text; None if it is gone or no UTF-8."""
    try:
        return path.read_bytes().decode()
    except (FileNotFoundError, UnicodeDecodeError):
        return None


def _replace(path: Path, text: str) -> None:
    """Puts a whole new content in the place of a file, which keeps its rights and stays a link where it is one."""
    target = Path(os.path.realpath(path))
    with NamedTemporaryFile(dir=target.parent, prefix=".partial-", delete=False) as file:
        partial = Path(file.name)
        try:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
            partial.chmod(target.stat().st_mode & 0o777 if target.exists() else 0o644)
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
