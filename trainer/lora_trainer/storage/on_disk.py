"""What may be read of this machine: any place of its own, but of a claim only what lies in it. Used by the package and
by `probe`.

Who may write to a claim is often not who trains from it. A link there to one of the pod's Secrets, with the name of a
caption, would put the Secret into the adapter's metadata.
"""

import os
from pathlib import Path

from lora_trainer.storage.source import Source
from lora_trainer.storage.uris import DiskPlace


def check_on_disk(place: DiskPlace, source: Source) -> None:
    """Raises source.unusable when nothing is there, it cannot be read, or a link in it leads out of its claim."""
    try:
        if not place.path.exists():
            raise source.unusable(f"{source.field}: {source.uri} does not exist ({place.path})")
        link = None if place.claim is None else find_escape(place.path, place.claim)
    except OSError as error:
        raise source.unusable(f"{source.field}: {source.uri} cannot be read: {error.strerror}") from error
    if link is not None:
        raise source.unusable(f"{source.field}: {link} is a link that leads out of its claim; put the file there")


def find_escape(root: Path, claim: Path) -> Path | None:
    """The first path at or below `root` whose file lies outside `claim`; links to folders are followed."""
    inside = Path(os.path.realpath(claim))
    waiting, seen = [root], set[Path]()
    while waiting:
        path = waiting.pop()
        # Not Path.resolve(): it raises for a link to itself.
        real = Path(os.path.realpath(path))
        if not real.is_relative_to(inside):
            return path
        if real not in seen and real.is_dir():
            seen.add(real)
            waiting += _links_and_folders(real)
    return None


def _links_and_folders(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return [Path(one.path) for one in entries if one.is_symlink() or one.is_dir(follow_symlinks=False)]
    except PermissionError:
        # Such as lost+found: nothing of it can be read, by whatever name.
        return []
