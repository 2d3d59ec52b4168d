"""Which files are the pictures of a dataset, and which caption and mask files belong to them.

Three sources: the folder convention below one root, a `metadata.jsonl` at that root, and the spec's subsets.
Lists and pairs files only; the scan reads them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lora_api.dataset_spec import Dataset
from lora_trainer.data.captions import by_name, find_caption
from lora_trainer.data.folders import (
    MASKS,
    REGULARIZATION,
    ConceptFolder,
    Found,
    find_folders,
    find_regularization,
    listed_folders,
    pictures_below,
    subset_folders,
    visible,
)
from lora_trainer.data.images import is_image
from lora_trainer.data.masks import find_masks, name_in_source
from lora_trainer.data.metadata_file import FILE_NAME, Entry, masks_of, read_metadata


@dataclass(frozen=True)
class DatasetSources:
    """Local copies of what the URIs of `spec.dataset` name."""

    root: Path | None = None
    """Of `uri`."""
    regularization: Path | None = None
    """Of `regularization.uri`."""
    subsets: tuple[Path, ...] = ()
    """Of `subsets[*].uri`, in that order."""


@dataclass(frozen=True)
class PictureFile:
    """A picture's file with its caption's and mask's, before they are read."""

    folder: ConceptFolder
    path: Path
    caption_path: Path | None
    entry: Entry | None
    """What `metadata.jsonl` says about it."""
    mask_path: Path | None

    @property
    def key(self) -> str:
        """Its name in messages, on which files are sorted."""
        return self.folder.prefix + self.path.name

    @property
    def repeats(self) -> int:
        """How often it is seen in an epoch."""
        listed = self.entry.repeats if self.entry else None
        return self.folder.repeats if listed is None else listed

    @property
    def is_regularization(self) -> bool:
        """Whether it shows the ordinary class."""
        return self.folder.is_regularization or (self.entry is not None and self.entry.is_regularization)


@dataclass(frozen=True)
class Listing:
    """All files of a dataset that matter."""

    folders: tuple[ConceptFolder, ...]
    pictures: tuple[PictureFile, ...]
    empty: tuple[str, ...]
    """Folders that hold no picture, and sources that hold no folder."""
    unlisted: tuple[str, ...]
    """Pictures at the root of a dataset that its `metadata.jsonl` does not list."""
    spare_masks: tuple[str, ...]
    """Masks that belong to no picture, or that the spec does not use."""
    problems: tuple[str, ...]


Masks = Mapping[Path, Mapping[str, Path]]
"""Masks in `mask/` by source and name."""


def list_pictures(sources: DatasetSources, spec: Dataset) -> Listing:
    """The pictures in their order, which no file system decides; and all problems that listing shows."""
    listed = sources.root if sources.root and (sources.root / FILE_NAME).is_file() else None
    entries, problems = _read(listed, "", is_root=True) if listed else ({}, [])
    folders, more_problems = _folders(sources, spec, list(entries) if listed else None)
    problems += more_problems
    for folder in folders:
        if folder.source != listed and folder.path / FILE_NAME in folder.files:
            more_entries, more_problems = _read(folder.path, folder.prefix, is_root=False)
            entries |= more_entries
            problems += more_problems
    masks, more_problems = _masks_of_sources(folders)
    pictures = [picture for folder in folders for picture in _pictures(folder, entries, masks, spec)]
    if listed:
        pictures = [picture for picture in pictures if picture.folder.source != listed or picture.entry]
    named = masks_of(entries.values())
    problems += [problem for folder in folders if folder.source != listed for problem in _nested(folder, named)]
    problems += [*more_problems, *_without_mask(pictures)] if spec.mask == "Files" else []
    return Listing(
        folders=tuple(folders),
        pictures=tuple(pictures),
        empty=tuple(_empty(sources, folders)),
        unlisted=tuple(_unlisted(listed, named.union(entries))) if listed else (),
        spare_masks=tuple(_spare(masks, named, pictures)),
        problems=tuple(problems),
    )


def _read(folder: Path, prefix: str, *, is_root: bool) -> tuple[dict[Path, Entry], list[str]]:
    entries, problems = read_metadata(folder, is_root=is_root)
    return entries, [f"{prefix}{FILE_NAME} {problem}" for problem in problems]


def _folders(sources: DatasetSources, spec: Dataset, listed: Sequence[Path] | None) -> Found:
    """The folders of all sources; `listed` are the pictures of the root's `metadata.jsonl`."""
    folders, problems = subset_folders(sources.subsets, spec)
    if sources.root is not None and listed is not None:
        folders += listed_folders(sources.root, [path.parent for path in listed], spec)
    elif sources.root is not None:
        found = find_folders(sources.root, spec)
        folders, problems = folders + found[0], problems + found[1]
    if sources.regularization is not None:
        found = find_regularization(sources.regularization, spec)
        folders, problems = folders + found[0], problems + found[1]
    return folders, problems


def _empty(sources: DatasetSources, folders: Sequence[ConceptFolder]) -> Iterable[str]:
    for folder in folders:
        if not any(is_image(path) for path in folder.files):
            yield folder.key
    if sources.regularization is not None and not any(folder.source == sources.regularization for folder in folders):
        yield "spec.dataset.regularization.uri"
    ordinary = sources.root / REGULARIZATION if sources.root else None
    if ordinary and ordinary.is_dir() and not any(folder.path.is_relative_to(ordinary) for folder in folders):
        yield f"{REGULARIZATION}/"


def _masks_of_sources(folders: Sequence[ConceptFolder]) -> tuple[Masks, list[str]]:
    found = {source: find_masks(source) for source in dict.fromkeys(folder.source for folder in folders)}
    problems = [problem for _, complaints in found.values() for problem in complaints]
    return {source: masks for source, (masks, _) in found.items()}, problems


def _pictures(
    folder: ConceptFolder, entries: Mapping[Path, Entry], masks: Masks, spec: Dataset
) -> Iterable[PictureFile]:
    others = by_name(path for path in folder.files if not is_image(path))
    named_masks = masks_of(entries.values())
    for path in folder.files:
        if not is_image(path) or path in named_masks:
            continue
        entry = entries.get(path)
        mask = None
        if spec.mask == "Files":
            beside = masks[folder.source].get(name_in_source(path, folder.source))
            mask = entry.mask if entry and entry.mask else beside
        caption_path = find_caption(path.stem, folder.captions.extension, others)
        yield PictureFile(folder, path, caption_path, entry, mask)


def _nested(folder: ConceptFolder, named_masks: set[Path]) -> Iterable[str]:
    """Pictures that would be left out in silence."""
    for inner in visible(folder.path):
        is_masks = inner.name == MASKS and folder.path == folder.source
        if inner.is_dir() and not is_masks and not named_masks.issuperset(pictures_below(inner)):
            yield f"{folder.prefix}{inner.name}/ holds pictures, but nested folders are not read; move them up"


def _without_mask(pictures: Iterable[PictureFile]) -> Iterable[str]:
    for picture in pictures:
        if picture.mask_path is None and not picture.is_regularization:
            wanted = f"{MASKS}/{picture.path.relative_to(picture.folder.source).as_posix()}"
            yield f"{picture.key} has no mask {wanted}; draw one, or change spec.dataset.mask"


def _unlisted(root: Path, used: set[Path]) -> Iterable[str]:
    for path in pictures_below(root):
        if path not in used and path.relative_to(root).parts[0] != MASKS:
            yield path.relative_to(root).as_posix()


def _spare(masks: Masks, named: set[Path], pictures: Sequence[PictureFile]) -> Iterable[str]:
    """Names of the masks that no picture uses."""
    used = {picture.mask_path for picture in pictures}
    for source, found in masks.items():
        yield from (path.relative_to(source).as_posix() for path in found.values() if path not in used)
    yield from (path.name for path in sorted(named - used))
