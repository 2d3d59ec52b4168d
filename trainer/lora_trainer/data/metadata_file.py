"""`metadata.jsonl`: captions, repeats and masks of pictures, one JSON object a line. Used by the scan."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from lora_trainer.data.captions import MAX_BYTES as MAX_CAPTION_BYTES
from lora_trainer.data.images import is_image

FILE_NAME = "metadata.jsonl"
MAX_REPEATS = 100_000
_MAX_BYTES = 64 << 20
"""Of the whole file, which is held in memory: a hundred thousand pictures with long captions."""
_KINDS = {"file": str, "caption": str, "repeats": int, "mask": str, "regularization": bool}
_KIND_NAMES = {str: "a text", int: "a whole number", bool: "true or false"}
_SHOWN_CHARACTERS = 40


@dataclass(frozen=True)
class Entry:
    """What one line says about one picture."""

    path: Path
    caption: str | None
    repeats: int | None
    mask: Path | None
    is_regularization: bool


class _UnusableLine(ValueError):
    """The message is the end of a sentence that starts with the line."""


def read_metadata(folder: Path, *, is_root: bool) -> tuple[dict[Path, Entry], list[str]]:
    """What `metadata.jsonl` in `folder` says, by picture; and everything that is wrong, each with its line.

    Only the file at the root of a dataset may list pictures of folders inside and set `regularization`.
    """
    with (folder / FILE_NAME).open("rb") as file:
        data = file.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        return {}, [f"has more than {_MAX_BYTES:,} bytes; shorten it, or use folders with caption files instead"]
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return {}, [f"is not UTF-8 (position {error.start}); save it as UTF-8"]
    entries: dict[Path, Entry] = {}
    problems = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            entry = _entry(folder, _fields(line), is_root=is_root)
            if entry.path in entries:
                raise _UnusableLine(f"lists {entry.path.relative_to(folder).as_posix()} a second time; remove one line")
            entries[entry.path] = entry
        except _UnusableLine as error:
            problems.append(f"line {number} {error}")
    problems += [
        f"lists {path.relative_to(folder).as_posix()} as a picture and as a mask; remove one"
        for path in sorted(masks_of(entries.values()).intersection(entries))
    ]
    if not entries and not problems:
        problems.append("lists no picture; write lines or remove the file")
    return entries, problems


def _fields(line: str) -> dict[str, Any]:
    """The checked fields of one line."""
    try:
        pairs = json.loads(line, object_pairs_hook=list)
    except json.JSONDecodeError as error:
        raise _UnusableLine(f"is no JSON ({error.msg} at column {error.colno}); write one object a line") from error
    except (ValueError, RecursionError) as error:
        raise _UnusableLine("holds too long a number or too many brackets; write one flat object a line") from error
    if not isinstance(pairs, list) or not all(isinstance(pair, tuple) for pair in pairs):
        raise _UnusableLine('is no JSON object; write one a line, such as {"file": "a.png", "caption": "…"}')
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise _UnusableLine("holds a key twice; remove one")
    for key, value in fields.items():
        _check_field(key, value)
    if "file" not in fields:
        raise _UnusableLine("has no key 'file'; add the path of its picture")
    return fields


def _check_field(key: str, value: object) -> None:
    if key not in _KINDS:
        raise _UnusableLine(f"has the unknown key {_show(key)}; known are {', '.join(_KINDS)}")
    kind = _KINDS[key]
    if type(value) is not kind:
        raise _UnusableLine(f"has {key} {_show(value)}; write {_KIND_NAMES[kind]}")
    if kind is str and not str(value).strip():
        raise _UnusableLine(f"has an empty {key}; write one or remove the key")
    if kind is str and not is_unicode(str(value)):
        raise _UnusableLine(f"has half of a surrogate pair (\\ud800 to \\udfff) in {key}; write the character itself")
    if key == "caption" and len(str(value).encode()) > MAX_CAPTION_BYTES:
        raise _UnusableLine(f"has a caption of more than {MAX_CAPTION_BYTES:,} bytes; shorten it")
    if key == "repeats" and not 1 <= int(str(value)) <= MAX_REPEATS:
        raise _UnusableLine(f"has repeats {value}; write a number from 1 to {MAX_REPEATS}")


def is_unicode(text: str) -> bool:
    """Whether every letter can be written as UTF-8, which halves of surrogate pairs cannot."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def _entry(folder: Path, fields: dict[str, Any], *, is_root: bool) -> Entry:
    path = _picture(folder, "file", fields["file"])
    if not is_root and path.parent != folder:
        raise _UnusableLine(f"lists {fields['file']}, which lies in a folder inside; only the dataset's own may do so")
    if not is_root and "regularization" in fields:
        raise _UnusableLine("has the key regularization, which belongs into the dataset's own metadata.jsonl only")
    return Entry(
        path=path,
        caption=fields.get("caption"),
        repeats=fields.get("repeats"),
        mask=_picture(folder, "mask", fields["mask"]) if "mask" in fields else None,
        is_regularization=fields.get("regularization", False),
    )


def _picture(folder: Path, key: str, name: str) -> Path:
    relative = PurePosixPath(name)
    if relative.is_absolute() or ".." in relative.parts:
        raise _UnusableLine(f"has {key} {_show(name)}, which leads out of the folder; write a path inside it")
    if any(part.startswith(".") for part in relative.parts):
        raise _UnusableLine(f"has {key} {_show(name)}, which is hidden by a dot; rename it")
    path = folder / relative
    if not _is_file(path):
        cure = "write / between folders" if "\\" in name else "correct the path (it is relative to metadata.jsonl)"
        raise _UnusableLine(f"has {key} {_show(name)}, which does not exist; {cure}")
    if not is_image(path):
        raise _UnusableLine(f"has {key} {_show(name)}, which is no picture by its name; list pictures only")
    return path


def _is_file(path: Path) -> bool:
    """Whether a file lies there; a name that no file can have is none."""
    try:
        return path.is_file()
    except OSError:
        return False


def _show(value: object) -> str:
    shown = json.dumps(value, ensure_ascii=False, default=str)
    return shown if len(shown) <= _SHOWN_CHARACTERS else shown[:_SHOWN_CHARACTERS] + "…"


def masks_of(entries: Iterable[Entry]) -> set[Path]:
    """Files that are masks, and so no pictures of their own."""
    return {entry.mask for entry in entries if entry.mask is not None}
