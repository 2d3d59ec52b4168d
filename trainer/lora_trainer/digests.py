"""SHA-256 of files, and of several named digests together. Used by data, families and whatever compares runs."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def join_digests(parts: Mapping[str, str]) -> str:
    """SHA-256 over named digests, in hex; the order of `parts` does not matter."""
    digest = hashlib.sha256()
    for name, value in sorted(parts.items()):
        digest.update(json.dumps([name, value]).encode() + b"\n")
    return digest.hexdigest()
