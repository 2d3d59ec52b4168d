"""The pictures of a dataset with their captions, read and checked once, all problems found at once.

Used before the plan, and by `lora plan`. Which files are the pictures is the listing's job.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from lora_api.dataset_spec import Dataset
from lora_trainer.data.captions import CaptionSource, UnusableCaption, caption_lines, read_caption
from lora_trainer.data.example import Example, MaskKind
from lora_trainer.data.images import UnusableImage, check_image
from lora_trainer.data.listing import DatasetSources, PictureFile, list_pictures
from lora_trainer.data.masks import check_mask, check_transparency
from lora_trainer.data.metadata_file import is_unicode
from lora_trainer.data.notices import notices
from lora_trainer.digests import join_digests
from lora_trainer.errors import InvalidDataset

__all__ = ["DatasetSources", "Example", "ScannedDataset", "scan"]


@dataclass(frozen=True)
class ScannedDataset:
    """All pictures: folders by name (subsets as listed), those for regularisation last, files by name inside."""

    examples: tuple[Example, ...]
    digests: Mapping[str, str]
    """Key of each picture -> SHA-256 over all that its files say: the same content gives the same digest anywhere."""
    warnings: tuple[str, ...]

    @cached_property
    def digest(self) -> str:
        """SHA-256 over all of them."""
        return join_digests(self.digests)


_T = TypeVar("_T")
_ORDER = "(order of spec.dataset.subsets)"


@dataclass(frozen=True)
class _Reading:
    """What reading one picture, its caption and its mask gave."""

    size: tuple[int, int]
    sha256: str
    caption: tuple[str, ...]
    caption_source: CaptionSource
    mask_sha256: str | None


def scan(sources: DatasetSources, spec: Dataset, *, on_picture: Callable[[], None] = lambda: None) -> ScannedDataset:
    """Every picture of `sources` with its caption; all are decoded once, so that none fails later.

    `on_picture` is called after each of them; what it raises ends the scan.

    Raises:
        InvalidDataset: everything that is wrong, named by file.
    """
    _check_folders(sources)
    listing = list_pictures(sources, spec)
    readings, more_problems = _read_all(listing.pictures, spec, on_picture)
    problems = [*listing.problems, *more_problems]
    if not problems and all(picture.is_regularization for picture in listing.pictures):
        problems = ["it holds no training picture; put pictures into a folder such as `10_concept`"]
    if problems:
        raise InvalidDataset.listing(problems)
    pairs = zip(listing.pictures, readings, strict=True)
    examples = tuple(_example(index, *pair, spec.mask) for index, pair in enumerate(pairs))
    digests = _digests(examples, are_subsets=bool(spec.subsets))
    return ScannedDataset(examples, digests, tuple(notices(listing, examples, spec.mask)))


def _check_folders(sources: DatasetSources) -> None:
    for field, folder in (("uri", sources.root), ("regularization.uri", sources.regularization)):
        if folder is not None and not folder.is_dir():
            raise InvalidDataset(
                f"spec.dataset.{field}: {folder.name} is a file; give the folder that holds `10_concept` folders"
            )


def _read_all(
    pictures: Sequence[PictureFile], spec: Dataset, on_picture: Callable[[], None]
) -> tuple[list[_Reading], list[str]]:
    """Readings of sound pictures and problems of the others, in order whatever the number of threads."""
    results = []
    pool = ThreadPoolExecutor(max_workers=max(1, spec.workers), thread_name_prefix="scan")
    try:
        for result in pool.map(lambda picture: _read(picture, spec.mask), pictures):
            results.append(result)
            on_picture()
    finally:
        pool.shutdown(cancel_futures=True)
    readings = [result for result in results if isinstance(result, _Reading)]
    return readings, [problem for result in results if isinstance(result, list) for problem in result]


def _read(picture: PictureFile, mask: MaskKind) -> _Reading | list[str]:
    """What the files of a picture give, or everything that is wrong with them."""
    if not is_unicode(picture.key):
        return [f"{picture.key!a} has a name that is not UTF-8; rename it"]
    problems: list[str] = []
    read = _attempt(picture.key, lambda: _check_picture(picture.path, mask), problems)
    caption_name = picture.folder.prefix + (picture.caption_path or picture.path).name
    caption = _attempt(caption_name, lambda: _caption(picture), problems)
    mask_path, mask_sha256 = picture.mask_path, None
    if mask_path is not None and read is not None:
        name = mask_path.relative_to(picture.folder.source).as_posix()
        mask_sha256 = _attempt(name, lambda: _check_mask(mask_path, read[0]), problems)
    if read is None or caption is None or problems:
        return problems
    return _Reading(*read, *caption, mask_sha256)


def _attempt(name: str, read: Callable[[], _T], problems: list[str]) -> _T | None:
    try:
        return read()
    except (UnusableImage, UnusableCaption) as error:
        problems.append(f"{name} {error}")
    except OSError as error:
        problems.append(f"{name} cannot be read ({error.strerror})")
    return None


def _check_picture(path: Path, mask: MaskKind) -> tuple[tuple[int, int], str]:
    """Size in px and digest."""
    data = path.read_bytes()
    size = check_image(data)
    if mask == "Alpha":
        check_transparency(data)
    return size, hashlib.sha256(data).hexdigest()


def _check_mask(path: Path, size: tuple[int, int]) -> str:
    """Digest of a mask for a picture of `size`."""
    data = path.read_bytes()
    check_mask(data, size)
    return hashlib.sha256(data).hexdigest()


def _caption(picture: PictureFile) -> tuple[tuple[str, ...], CaptionSource]:
    """Lines of the caption, and where they come from: `metadata.jsonl`, its file, its folder's name, or a model."""
    folder, rules = picture.folder, picture.folder.captions
    if picture.entry and picture.entry.caption:
        return caption_lines(picture.entry.caption, every_line=rules.wildcards), "metadata"
    if picture.caption_path is not None:
        return read_caption(picture.caption_path, every_line=rules.wildcards), "file"
    if rules.missing == "Generate":
        return ("",), "generated"
    wanted = picture.path.stem + rules.extension
    if rules.missing == "Fail":
        raise UnusableCaption(f"has no caption file {wanted}; write one or set spec.dataset.captions.missing")
    if not folder.text:
        raise UnusableCaption(f"has no caption file {wanted}, and {folder.without_text}")
    return (folder.text,), "folder"


def _example(index: int, picture: PictureFile, reading: _Reading, mask: MaskKind) -> Example:
    folder = picture.folder
    return Example(
        index=index,
        path=picture.path,
        key=picture.key,
        width_px=reading.size[0],
        height_px=reading.size[1],
        caption=reading.caption[0],
        caption_lines=reading.caption,
        caption_source=reading.caption_source,
        captions=folder.captions,
        augmentation=folder.augmentation,
        repeats=picture.repeats,
        is_regularization=picture.is_regularization,
        folder=folder.name,
        class_tokens=folder.text,
        sha256=reading.sha256,
        mask=mask,
        mask_path=picture.mask_path,
        mask_sha256=reading.mask_sha256,
    )


def _digests(examples: Sequence[Example], *, are_subsets: bool) -> dict[str, str]:
    digests: dict[str, str] = {}
    for example in examples:
        facts = (example.key, example.sha256, example.caption_lines, example.mask_sha256)
        # Two sources may each hold a picture of one name; then both stand behind it.
        same_name = digests.get(example.key)
        digests[example.key] = _digest_of([*facts, example.repeats, example.is_regularization, same_name])
    if are_subsets:
        # Pictures come in this order, which their names do not tell.
        digests[_ORDER] = _digest_of(list(dict.fromkeys(example.folder for example in examples)))
    return digests


def _digest_of(facts: list[Any]) -> str:
    return hashlib.sha256(json.dumps(facts, ensure_ascii=False).encode()).hexdigest()
