"""Crops of the persons in a dataset, as pictures of concept folders of their own. Used by `lora dataset crop`.

The scheme by which people divide their pictures: beside `50_hina woman` stand `50_hina woman face`, `… body` (without
the face) and `… full body`, each of which is seen as often as its number says. Planned whole before anything is
written; a file that is there is never written over.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath

from PIL import Image

from lora_trainer.curation.edits import add_tag
from lora_trainer.curation.regions import Box, NoRegion, Part, Person, height_of, region_of, width_of
from lora_trainer.data.captions import UnusableCaption, by_name, find_caption, read_caption
from lora_trainer.data.folders import ConceptFolder, concept_of
from lora_trainer.data.images import UnusableImage, is_image, read_rgb
from lora_trainer.errors import InvalidConfiguration, InvalidDataset

Find = Callable[[str, Image.Image], Person | None]
"""Name of a picture and its RGB pixels -> where its person is; None: nothing is known of it."""


@dataclass(frozen=True)
class Cut:
    """What is cut out of the pictures, and what becomes of it."""

    folders: Mapping[Part, str]
    """Part -> name of its folder, with `{repeats}` and `{text}` of the folder that the picture comes from."""
    words: Mapping[Part, str]
    """Part -> words that its captions end with."""
    margins: Mapping[Part, float]
    """Part -> how much larger than its box a crop is, as a share of the box at each side."""
    min_px: int
    """Crops with a shorter side are left out."""
    extension: str
    """Of caption files."""


@dataclass(frozen=True)
class Crop:
    """One crop: from which picture, and to which file."""

    part: Part
    picture: str
    """Name of the picture in messages."""
    box: Box
    target: Path


@dataclass(frozen=True)
class Skipped:
    """A picture, or a part of it, that gives no crop."""

    picture: str
    part: Part | None
    """None: the whole picture."""
    why: str
    """The end of a sentence that starts with the picture's name."""


Outcome = Crop | Skipped


@dataclass(frozen=True)
class _Picture:
    """A picture that is to be cut."""

    key: str
    stem: str
    image: Image.Image
    caption: str | None
    """None: it has no caption file, and neither get its crops."""
    person: Person


def crop_folders(
    root: Path, folders: Sequence[ConceptFolder], cut: Cut, find: Find, *, dry_run: bool
) -> Iterator[Outcome]:
    """Cuts the pictures of `folders` and writes the crops below `root`; gives each outcome when its file is there.

    Regularisation pictures and crops that an earlier start has made are not cut.

    Raises:
        InvalidConfiguration: the name of a folder cannot be.
        InvalidDataset: two pictures would give one file; nothing is written then.
    """
    targets = {folder.key: _target_names(folder, cut) for folder in folders if not folder.is_regularization}
    sources = _sources(folders, targets)
    _check_targets({folder.prefix + path.name: targets[folder.key] for folder in sources for path in _images(folder)})
    for folder in sources:
        captions = by_name(path for path in folder.files if not is_image(path))
        for path in _images(folder):
            read = _read(folder.prefix + path.name, path, find, find_caption(path.stem, cut.extension, captions))
            if isinstance(read, Skipped):
                yield read
                continue
            for part, name in targets[folder.key].items():
                outcome = _plan(part, read, root / name / f"{read.stem}.png", cut)
                if isinstance(outcome, Crop) and not dry_run:
                    _write(outcome, read, cut)
                yield outcome


def _sources(folders: Sequence[ConceptFolder], targets: Mapping[str, Mapping[Part, str]]) -> list[ConceptFolder]:
    """The folders that no folder's crops go to. Raises InvalidConfiguration if none is left."""
    made = {name for names in targets.values() for name in names.values()}
    sources = [folder for folder in folders if folder.key in targets and folder.path.name not in made]
    if not sources:
        raise InvalidConfiguration(
            f"there is no folder to cut: crops would go to {', '.join(sorted(made))} themselves; name other folders "
            "by --into",
            hint="",
        )
    return sources


def _target_names(folder: ConceptFolder, cut: Cut) -> dict[Part, str]:
    """Part -> name of the folder of its crops."""
    names: dict[Part, str] = {}
    for part, template in cut.folders.items():
        try:
            name = template.format(repeats=folder.repeats, text=folder.text)
        except (KeyError, IndexError, ValueError) as error:
            raise InvalidConfiguration(
                f"--into {part}={template} cannot be filled in; only {{repeats}} and {{text}} can stand in braces",
                hint="",
            ) from error
        if "/" in name or concept_of(name) is None:
            raise InvalidConfiguration(
                f"--into gives {name!r} as the folder of {part} crops of {folder.key}, which no training reads; write "
                f"a number from 1, `_` and a text, such as '20_hina {part}'",
                hint="",
            )
        names[part] = name
    return names


def _images(folder: ConceptFolder) -> list[Path]:
    return [path for path in folder.files if is_image(path)]


def _check_targets(targets: Mapping[str, Mapping[Part, str]]) -> None:
    """Raises InvalidDataset; `targets` are the folders of the crops of each picture."""
    pictures: dict[str, list[str]] = {}
    for key, names in targets.items():
        for name in names.values():
            pictures.setdefault(f"{name}/{PurePosixPath(key).stem}.png", []).append(key)
    problems = [
        f"{' and '.join(keys)} would both give {target}; rename one, or name other folders"
        for target, keys in pictures.items()
        if len(keys) > 1
    ]
    if problems:
        raise InvalidDataset.listing(problems)


def _read(key: str, path: Path, find: Find, caption: Path | None) -> _Picture | Skipped:
    try:
        image = read_rgb(path)
        person = find(key, image)
        if person is None:
            return Skipped(key, None, "has no boxes")
        text = None if caption is None else read_caption(caption)[0]
    except UnusableImage as error:
        return Skipped(key, None, str(error))
    except UnusableCaption as error:
        return Skipped(key, None, f"has a caption that cannot follow: {caption and caption.name} {error}")
    return _Picture(key, path.stem, image, text, person)


def _plan(part: Part, picture: _Picture, target: Path, cut: Cut) -> Outcome:
    try:
        box = region_of(part, picture.person, picture.image.size, cut.margins)
    except NoRegion as error:
        return Skipped(picture.key, part, str(error))
    if min(width_of(box), height_of(box)) < cut.min_px:
        size = f"{width_of(box)}x{height_of(box)} px"
        return Skipped(picture.key, part, f"would give {size}, less than {cut.min_px} px at a side")
    if target.exists():
        return Skipped(picture.key, part, f"has its crop {target.parent.name}/{target.name} already")
    return Crop(part, picture.key, box, target)


def _write(crop: Crop, picture: _Picture, cut: Cut) -> None:
    """The caption first, so that no crop is ever without its own."""
    crop.target.parent.mkdir(parents=True, exist_ok=True)
    caption = crop.target.with_suffix(cut.extension)
    if picture.caption is not None and not caption.exists():
        _create(caption, f"{_worded(picture.caption, cut.words[crop.part])}\n".encode())
    content = BytesIO()
    picture.image.crop(crop.box).save(content, "PNG")
    _create(crop.target, content.getvalue())


def _worded(caption: str, words: str) -> str:
    return add_tag(words, separator=",")(caption) if words else caption


def _create(path: Path, content: bytes) -> None:
    """A new file, whole or not at all."""
    partial = path.with_name(f".partial-{path.name}")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
