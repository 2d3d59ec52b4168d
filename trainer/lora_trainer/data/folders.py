"""Folders of pictures: kohya's convention `<repeats>_<concept>`, or subsets that the spec lists.

Pure but for listing folders. Used by the scan.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lora_api.dataset_spec import Augmentation, Captions, Dataset, Subset
from lora_trainer.data.images import is_image
from lora_trainer.data.metadata_file import FILE_NAME, MAX_REPEATS

REGULARIZATION = "reg"
MASKS = "mask"
"""Folder of loss masks inside a source."""
_CONVENTION = re.compile(r"(?P<repeats>[0-9]+)_(?P<text>.*)", re.DOTALL)
_NAME_WITHOUT_TEXT = "its folder's name has no text; write one"


@dataclass(frozen=True)
class ConceptFolder:
    """A folder of pictures that are seen equally often, as one thing."""

    path: Path
    source: Path
    """The fetched folder that it lies in, or is; masks are found by paths relative to it."""
    key: str
    """Path relative to the dataset with `/`, or a name; no two folders have the same one."""
    name: str
    """Its name in metadata."""
    repeats: int
    """How often each picture is seen in an epoch."""
    text: str
    """Class tokens: the caption of pictures that have none."""
    without_text: str
    """Why `text` may be empty, and the cure; end of a message."""
    is_regularization: bool
    captions: Captions
    augmentation: Augmentation
    files: tuple[Path, ...]
    """Ascending by name; hidden files and files of folders inside are left out."""

    @property
    def prefix(self) -> str:
        """What stands before the names of its files in messages and keys."""
        return f"{self.key}/" if self.key else ""


Found = tuple[list[ConceptFolder], list[str]]
"""Folders, and what is wrong with them."""


def find_folders(root: Path, spec: Dataset) -> Found:
    """The concept folders by name, then those of `reg/` by name; and what stands in no folder of the convention."""
    folders, problems = _folders_in(root, spec, is_regularization=False)
    ordinary = root / REGULARIZATION
    if ordinary.is_dir():
        more_folders, more_problems = _folders_in(ordinary, spec, is_regularization=True)
        folders += more_folders
        problems += more_problems
        if spec.regularization.uri is not None and more_folders + more_problems:
            problems.append(
                f"{REGULARIZATION}/ holds regularisation pictures, and spec.dataset.regularization.uri names others; "
                "remove one of them"
            )
    return folders, problems


def find_regularization(root: Path, spec: Dataset) -> Found:
    """The folders `<repeats>_<class>` of `spec.dataset.regularization.uri`, under the same keys as those of `reg/`."""
    if (root / FILE_NAME).is_file():
        return [], [f"spec.dataset.regularization.uri holds {FILE_NAME}, which is read in its folders only; move it"]
    loose = [path.name for path in visible(root) if path.is_file() and is_image(path)]
    if loose:
        return [], [
            f"spec.dataset.regularization.uri holds pictures themselves (such as {loose[0]}); give the folder above, "
            "whose folders are named like `1_woman`, where the number is how often each picture is seen"
        ]
    return _folders_in(root, spec, is_regularization=True)


def subset_folders(paths: Sequence[Path], spec: Dataset) -> Found:
    """The folders of `spec.dataset.subsets`, fetched to `paths`, in the order of the spec.

    A subset is called by the last part of its URI; a second one of that name gets ` (2)` after it, and so on.
    """
    taken: set[str] = set()
    folders, problems = [], []
    for number, (subset, path) in enumerate(zip(spec.subsets, paths, strict=True)):
        field = f"spec.dataset.subsets[{number}]"
        if not path.is_dir():
            problems.append(f"{field}.uri is a file; give the folder that holds the pictures")
            continue
        name = _unused(name_of(subset.uri), taken)
        taken.add(name)
        folders.append(_subset_folder(subset, path, spec, name=name, field=field))
        if not pictures_below(path):
            problems.append(f"{field}.uri holds no pictures; correct it or remove the subset")
    return folders, problems


def listed_folders(root: Path, parents: Sequence[Path], spec: Dataset) -> list[ConceptFolder]:
    """The folders of the pictures that the `metadata.jsonl` of the dataset lists, by path."""
    folders = []
    for path in sorted(set(parents)):
        key = "" if path == root else path.relative_to(root).as_posix()
        folder = ConceptFolder(
            path=path,
            source=root,
            key=key,
            name=path.name if key else name_of(spec.uri or root.as_uri()),
            repeats=1,
            text="",
            without_text="metadata.jsonl gives it no caption; write one",
            is_regularization=False,
            captions=spec.captions,
            augmentation=spec.augmentation,
            files=_files(path),
        )
        folders.append(folder)
    return folders


def concept_of(name: str) -> tuple[int, str] | None:
    """Repeats and text that the name of a folder says by the convention; None if it does not follow it."""
    match = _CONVENTION.fullmatch(name)
    if match is None or not 1 <= int(match["repeats"]) <= MAX_REPEATS:
        return None
    return int(match["repeats"]), match["text"].strip()


def name_of(uri: str) -> str:
    """Last part of a URI, without the revision of a repository."""
    last = uri.rstrip("/").rpartition("/")[2]
    return last.partition("@")[0] if uri.startswith("hf://") else last


def visible(folder: Path) -> list[Path]:
    """What lies in a folder, ascending by name; names that begin with a dot are left out."""
    return sorted((path for path in folder.iterdir() if not path.name.startswith(".")), key=lambda path: path.name)


def pictures_below(folder: Path) -> list[Path]:
    """Every picture in a folder and the folders in it, ascending; hidden files and folders are left out."""
    below = (path for path in folder.rglob("*") if is_image(path) and path.is_file())
    return sorted(path for path in below if not any(part.startswith(".") for part in path.relative_to(folder).parts))


def _folders_in(parent: Path, spec: Dataset, *, is_regularization: bool) -> Found:
    folders: list[ConceptFolder] = []
    problems: list[str] = []
    skipped = {MASKS} if is_regularization else {MASKS, REGULARIZATION}
    prefix = f"{REGULARIZATION}/" if is_regularization else ""
    for path in visible(parent):
        key = prefix + path.name
        if not path.is_dir():
            if is_image(path):
                problems.append(f"{key} lies in no concept folder; move it into a folder such as `10_concept`")
        elif path.name not in skipped:
            concept = concept_of(path.name)
            if concept is not None:
                folders.append(_concept_folder(path, concept, spec, key=key))
            elif pictures_below(path):
                problems.append(_nameless(path.name, key))
    return folders, problems


def _concept_folder(path: Path, concept: tuple[int, str], spec: Dataset, *, key: str) -> ConceptFolder:
    is_regularization = key != path.name
    beside = path.parent.parent if is_regularization and spec.regularization.uri is None else path.parent
    return ConceptFolder(
        path=path,
        source=beside,
        key=key,
        name=path.name,
        repeats=concept[0],
        text=concept[1],
        without_text=_NAME_WITHOUT_TEXT,
        is_regularization=is_regularization,
        captions=spec.captions,
        augmentation=spec.augmentation,
        files=_files(path),
    )


def _subset_folder(subset: Subset, path: Path, spec: Dataset, *, name: str, field: str) -> ConceptFolder:
    captions, augmentation = subset.captions, subset.augmentation
    return ConceptFolder(
        path=path,
        source=path,
        key=name,
        name=name,
        repeats=subset.repeats,
        text=(subset.class_tokens or "").strip(),
        without_text=f"{field}.classTokens is not set; write the file or set it",
        is_regularization=subset.is_regularization,
        captions=captions.applied_to(spec.captions) if captions else spec.captions,
        augmentation=augmentation.applied_to(spec.augmentation) if augmentation else spec.augmentation,
        files=_files(path),
    )


def _nameless(name: str, key: str) -> str:
    text = name.partition("_")[2] if name[:1].isdecimal() else name
    if _CONVENTION.fullmatch(name):
        repeats = name.partition("_")[0]
        return (
            f"{key}/ says {repeats} repeats, but 1 to {MAX_REPEATS} are possible; rename it to `10_{text or 'concept'}`"
        )
    return f"{key}/ holds pictures, but its name does not say their repeats; rename it to `10_{text or 'concept'}`"


def _unused(name: str, taken: set[str]) -> str:
    candidate, number = name, 1
    while candidate in taken:
        number += 1
        candidate = f"{name} ({number})"
    return candidate


def _files(folder: Path) -> tuple[Path, ...]:
    return tuple(file for file in visible(folder) if file.is_file())
