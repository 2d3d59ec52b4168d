"""The pictures of a dataset folder with their captions, all problems found at once.

kohya's folder convention: `<repeats>_<concept>/` folders hold pictures with a caption file beside each, and
`reg/` beside them holds folders of the same shape for regularisation. Used before the plan, and by `lora plan`.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from lora_api.dataset_spec import Captions, Dataset
from lora_trainer.data.captions import Caption, CaptionSource, UnusableCaption, holds_token, read_caption
from lora_trainer.data.folders import ConceptFolder, find_folders
from lora_trainer.data.images import UnusableImage, check_image, is_image
from lora_trainer.errors import InvalidDataset

_SHOWN_NAMES = 5


@dataclass(frozen=True)
class Example:
    """One picture with its caption."""

    index: int
    """Place in the scanned dataset."""
    path: Path
    key: str
    """Path relative to the dataset with `/`: its name in messages, the same wherever the dataset lies."""
    width_px: int
    """Width after the EXIF rotation."""
    height_px: int
    """Height after the EXIF rotation."""
    caption: str
    caption_source: CaptionSource
    repeats: int
    is_regularization: bool
    folder: str
    """Name of its folder, such as `10_hina woman`."""
    sha256: str
    """Digest of the picture's file."""


@dataclass(frozen=True)
class ScannedDataset:
    """All pictures: concept folders by name, then those of `reg/` by name, files by name inside."""

    examples: tuple[Example, ...]
    digest: str
    """SHA-256 over keys, picture digests and captions: the same content gives the same digest anywhere."""
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class _Picture:
    """A picture file before it was read."""

    folder: ConceptFolder
    path: Path
    caption_path: Path | None

    @property
    def key(self) -> str:
        return f"{self.folder.key}/{self.path.name}"


@dataclass(frozen=True)
class _Reading:
    """What reading one picture and its caption gave."""

    picture: _Picture
    size: tuple[int, int] = (0, 0)
    sha256: str = ""
    caption: Caption | None = None
    problems: tuple[str, ...] = ()


def scan(root: Path, spec: Dataset) -> ScannedDataset:
    """Every picture below `root` with its caption; all pictures are decoded once, so that none fails later.

    Raises:
        InvalidDataset: everything that is wrong, named by file.
    """
    if not root.is_dir():
        raise InvalidDataset(
            f"spec.dataset.uri: {root.name} is a file; give the folder that holds `10_concept` folders"
        )
    folders, problems = find_folders(root)
    pictures = [picture for folder in folders for picture in _pictures(folder, spec.captions.extension)]
    readings = _read_all(pictures, spec)
    problems += [problem for reading in readings for problem in reading.problems]
    if not problems and not any(not picture.folder.is_regularization for picture in pictures):
        problems = ["it holds no training picture; put pictures into a folder such as `10_concept`"]
    if problems:
        raise InvalidDataset.listing(problems)
    examples = tuple(_example(index, reading) for index, reading in enumerate(readings))
    return ScannedDataset(examples, _digest(examples), tuple(_warnings(folders, readings, examples, spec.captions)))


def _pictures(folder: ConceptFolder, caption_extension: str) -> list[_Picture]:
    captions = {path.name.casefold(): path for path in folder.files if not is_image(path)}
    found = []
    for path in folder.files:
        if is_image(path):
            caption_path = captions.get(f"{path.stem}{caption_extension}".casefold())
            found.append(_Picture(folder, path, caption_path))
    return found


def _read_all(pictures: Sequence[_Picture], spec: Dataset) -> list[_Reading]:
    """Readings in the order of the pictures, whatever the number of threads."""
    with ThreadPoolExecutor(max_workers=max(1, spec.workers), thread_name_prefix="scan") as pool:
        return list(pool.map(lambda picture: _read(picture, spec.captions), pictures))


def _read(picture: _Picture, captions: Captions) -> _Reading:
    problems: list[str] = []
    size, sha256, caption = (0, 0), "", None
    try:
        data = picture.path.read_bytes()
        sha256 = hashlib.sha256(data).hexdigest()
        size = check_image(data)
    except UnusableImage as error:
        problems.append(f"{picture.key} {error}")
    except OSError as error:
        problems.append(f"{picture.key} cannot be read ({error.strerror})")
    try:
        caption = _caption(picture, captions)
    except UnusableCaption as error:
        name = picture.caption_path.name if picture.caption_path else picture.path.name
        problems.append(f"{picture.folder.key}/{name} {error}")
    return _Reading(picture, size, sha256, caption, tuple(problems))


def _caption(picture: _Picture, captions: Captions) -> Caption:
    if picture.caption_path is not None:
        return Caption(read_caption(picture.caption_path), "file")
    wanted = picture.path.stem + captions.extension
    if captions.missing == "Fail":
        raise UnusableCaption(f"has no caption file {wanted}; write one or set spec.dataset.captions.missing")
    if not picture.folder.text:
        raise UnusableCaption(f"has no caption file {wanted}, and its folder's name has no text; write one")
    return Caption(picture.folder.text, "folder")


def _example(index: int, reading: _Reading) -> Example:
    picture, caption = reading.picture, reading.caption
    assert caption is not None, "a reading without problems has a caption"
    return Example(
        index=index,
        path=picture.path,
        key=picture.key,
        width_px=reading.size[0],
        height_px=reading.size[1],
        caption=caption.text,
        caption_source=caption.source,
        repeats=picture.folder.repeats,
        is_regularization=picture.folder.is_regularization,
        folder=picture.folder.name,
        sha256=reading.sha256,
    )


def _digest(examples: Iterable[Example]) -> str:
    digest = hashlib.sha256()
    for example in examples:
        line = json.dumps([example.key, example.sha256, example.caption], ensure_ascii=False)
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()


def _warnings(
    folders: Sequence[ConceptFolder], readings: Sequence[_Reading], examples: Sequence[Example], captions: Captions
) -> Iterable[str]:
    for folder in folders:
        if not any(is_image(path) for path in folder.files):
            yield f"{folder.key} holds no pictures."
    without = [reading.picture for reading in readings if reading.picture.caption_path is None]
    if without:
        names = ", ".join(picture.key for picture in without[:_SHOWN_NAMES])
        more = f" and {len(without) - _SHOWN_NAMES} more" if len(without) > _SHOWN_NAMES else ""
        yield f"{len(without)} pictures have no {captions.extension} file and get their folder's text: {names}{more}."
    others = {folder.key + "/" + path.stem for folder in folders for path in folder.files if _is_caption(path)}
    elsewhere = sum(f"{picture.folder.key}/{picture.path.stem}" in others for picture in without)
    if elsewhere:
        yield (
            f"{elsewhere} of them have a caption file with another extension than {captions.extension}; "
            "set spec.dataset.captions.extension if those are meant."
        )
    for folder in folders:
        texts = [e.caption for e in examples if e.key.startswith(f"{folder.key}/") and e.caption_source == "file"]
        if texts and not folder.is_regularization and not any(holds_token(text, folder.text) for text in texts):
            yield f"No caption of {folder.key} holds a word of '{folder.text}'; add its trigger word to them."


def _is_caption(path: Path) -> bool:
    return path.suffix.lower() in {".txt", ".caption"}
