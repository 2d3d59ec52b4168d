"""kohya's folder convention: which folders of a dataset hold pictures, how often they are seen, and as what.

Pure but for listing folders. Used by the scan.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from lora_trainer.data.images import is_image

_CONVENTION = re.compile(r"(?P<repeats>[0-9]+)_(?P<text>.*)", re.DOTALL)
_REGULARIZATION = "reg"


@dataclass(frozen=True)
class ConceptFolder:
    """A folder `<repeats>_<text>`."""

    key: str
    """Path relative to the dataset with `/`."""
    repeats: int
    """How often each picture is seen in an epoch."""
    text: str
    """Class tokens: the caption of pictures that have none."""
    is_regularization: bool
    files: tuple[Path, ...]
    """Ascending by name."""

    @property
    def name(self) -> str:
        """Name of the folder itself."""
        return self.key.rpartition("/")[2]


def find_folders(root: Path) -> tuple[list[ConceptFolder], list[str]]:
    """The concept folders by name, then those of `reg/` by name; and what stands in no folder of the convention."""
    folders, problems = _folders_in(root, prefix="", is_regularization=False)
    if (root / _REGULARIZATION).is_dir():
        more_folders, more_problems = _folders_in(
            root / _REGULARIZATION, prefix=f"{_REGULARIZATION}/", is_regularization=True
        )
        folders += more_folders
        problems += more_problems
    return folders, problems


def _folders_in(parent: Path, *, prefix: str, is_regularization: bool) -> tuple[list[ConceptFolder], list[str]]:
    folders: list[ConceptFolder] = []
    problems: list[str] = []
    for path in _visible(parent):
        key = prefix + path.name
        if not path.is_dir():
            if is_image(path):
                problems.append(f"{key} lies in no concept folder; move it into a folder such as `10_concept`")
        elif is_regularization or path.name != _REGULARIZATION:
            folder = _concept_folder(path, key, is_regularization=is_regularization)
            problems += _misplaced(path, key, folder)
            if folder is not None:
                folders.append(folder)
    return folders, problems


def _concept_folder(path: Path, key: str, *, is_regularization: bool) -> ConceptFolder | None:
    match = _CONVENTION.fullmatch(path.name)
    if match is None or int(match["repeats"]) < 1:
        return None
    files = tuple(file for file in _visible(path) if file.is_file())
    return ConceptFolder(key, int(match["repeats"]), match["text"].strip(), is_regularization, files)


def _misplaced(path: Path, key: str, folder: ConceptFolder | None) -> list[str]:
    """Pictures that would be left out in silence."""
    if folder is None:
        if not _holds_images(path):
            return []
        text = path.name.partition("_")[2] if path.name[:1].isdecimal() else path.name
        return [
            f"{key}/ holds pictures, but its name does not say their repeats; rename it to `10_{text or 'concept'}`"
        ]
    nested = [inner for inner in _visible(path) if inner.is_dir() and _holds_images(inner)]
    return [f"{key}/{inner.name}/ holds pictures, but nested folders are not read; move them up" for inner in nested]


def _holds_images(folder: Path) -> bool:
    return any(is_image(path) for path in folder.rglob("*"))


def _visible(folder: Path) -> list[Path]:
    return sorted((path for path in folder.iterdir() if not path.name.startswith(".")), key=lambda path: path.name)
