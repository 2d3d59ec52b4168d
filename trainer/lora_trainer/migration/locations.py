"""Paths and names of sd-scripts as URIs; used wherever a setting names a file or a folder."""

import re
from pathlib import Path

_URI = re.compile(r"(s3|hf|pvc|file)://.+")
_HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9._-]+")
_FILES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")


def to_uri(place: str, *, may_be_hub: bool = False) -> str | None:
    """The URI of a path that exists here or, if it may be one, of a hub id; None when it is neither."""
    if _URI.fullmatch(place):
        return place
    path = existing(Path(place))
    if path is not None:
        return f"file://{path.resolve()}"
    if may_be_hub and _HUB_ID.fullmatch(place) and not place.endswith(_FILES):
        return f"hf://{place}"
    return None


def existing(path: Path) -> Path | None:
    """`path` with the user's home put in, if something lies there that can be seen."""
    try:
        path = path.expanduser()
        return path if path.exists() else None
    except (OSError, RuntimeError):  # a name too long, a folder that is closed; no such user
        return None


def last_part(place: str) -> str:
    """The last part of a path of Windows or Linux."""
    return re.split(r"[/\\]", place.rstrip("/\\"))[-1]
