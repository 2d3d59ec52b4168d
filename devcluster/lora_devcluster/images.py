"""Which local command stands for which image. Used by the kubelet."""

import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

NOOP = "noop"
Table = Mapping[str, Sequence[str] | str]


@dataclass(frozen=True)
class Image:
    """An image that is there: its entry point, or the mark that its containers end at once without a process."""

    entrypoint: tuple[str, ...]
    noop: bool = False


def find_image(table: Table, name: str) -> Image | None:
    """The first entry whose pattern fits the image's name; None is an image that cannot be pulled."""
    for pattern, command in table.items():
        if fnmatchcase(name, pattern):
            if command == NOOP:
                return Image((), noop=True)
            return Image((command,) if isinstance(command, str) else tuple(command))
    return None


def resolve_program(argv: list[str], path: str) -> list[str]:
    """The command with its program as a path; `python` is the interpreter that runs the cluster.

    Raises:
        FileNotFoundError: there is no such program.
    """
    if argv[0] in ("python", "python3"):
        return [sys.executable, *argv[1:]]
    program = shutil.which(argv[0], path=path)
    if program is None:
        raise FileNotFoundError(f'exec: "{argv[0]}": executable file not found in $PATH')
    return [program, *argv[1:]]
