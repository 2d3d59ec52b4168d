"""The pictures of a dataset with their captions, read once as an audit needs them: nothing ends it. Used by `audit`.

Which files are pictures and captions, and what a caption says, is decided by the same code as for a training.
"""

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from lora_api.dataset_spec import Dataset
from lora_trainer.curation.look import Look, look_of, sharpness
from lora_trainer.data.captions import UnusableCaption, caption_lines, read_caption
from lora_trainer.data.images import UnusableImage, to_rgb, upright
from lora_trainer.data.listing import DatasetSources, Listing, PictureFile, list_pictures


@dataclass(frozen=True)
class Seen:
    """What looking at a picture gave."""

    size: tuple[int, int]
    """(width, height) in px after the EXIF rotation."""
    sha256: str
    look: Look
    sharpness: float


@dataclass(frozen=True)
class Picture:
    """One picture and its caption."""

    file: PictureFile
    seen: Seen | None
    """None: it cannot be read."""
    captions: tuple[str, ...]
    """What its caption file or `metadata.jsonl` says; empty without any, or if that cannot be used."""
    problem: str = ""
    """Why the picture cannot be read; the end of a sentence that starts with its name."""
    caption_problem: str = ""
    """The same for its caption file."""

    @property
    def key(self) -> str:
        """Its name in messages."""
        return self.file.key

    @property
    def is_regularization(self) -> bool:
        """Whether it shows the ordinary class."""
        return self.file.is_regularization

    @property
    def has_caption(self) -> bool:
        """Whether there is a caption file or an entry, whatever it says."""
        return self.file.caption_path is not None or bool(self.file.entry and self.file.entry.caption)

    @property
    def caption_name(self) -> str:
        """Name of what holds its caption in messages."""
        path = self.file.caption_path
        return self.file.folder.prefix + path.name if path is not None and not self._is_listed else self.key

    @property
    def texts(self) -> tuple[str, ...]:
        """What it is trained with, prefix and suffix included: every caption, or its folder's text."""
        rules = self.file.folder.captions
        written = self.captions or ((self.file.folder.text,) if self._takes_folder_text else ())
        return tuple(" ".join(filter(None, (rules.prefix, text, rules.suffix))) for text in written if text)

    @property
    def _is_listed(self) -> bool:
        return bool(self.file.entry and self.file.entry.caption)

    @property
    def _takes_folder_text(self) -> bool:
        return not self.has_caption and self.file.folder.captions.missing == "UseFolderName"


@dataclass(frozen=True)
class Material:
    """A dataset, read."""

    listing: Listing
    pictures: tuple[Picture, ...]

    @property
    def ordinary(self) -> tuple[Picture, ...]:
        """Those that show what is to be learnt."""
        return tuple(picture for picture in self.pictures if not picture.is_regularization)


def read_material(sources: DatasetSources, spec: Dataset, *, on_picture: Callable[[], None]) -> Material:
    """Every picture of `sources`; `on_picture` is called after each. What cannot be read says so."""
    listing = list_pictures(sources, spec)
    return Material(listing, tuple(_read_all(listing, spec, on_picture)))


def _read_all(listing: Listing, spec: Dataset, on_picture: Callable[[], None]) -> Iterator[Picture]:
    width, height = spec.size_px
    pool = ThreadPoolExecutor(max_workers=max(1, spec.workers), thread_name_prefix="audit")
    try:
        for picture in pool.map(lambda file: _read(file, width * height), listing.pictures):
            yield picture
            on_picture()
    finally:
        pool.shutdown(cancel_futures=True)


def _read(file: PictureFile, area_px: int) -> Picture:
    seen, problem = _see(file, area_px)
    captions: tuple[str, ...] = ()
    caption_problem = ""
    try:
        captions = _captions(file)
    except UnusableCaption as error:
        caption_problem = str(error)
    except OSError as error:
        caption_problem = f"cannot be read ({error.strerror})"
    return Picture(file, seen, captions, problem, caption_problem)


def _see(file: PictureFile, area_px: int) -> tuple[Seen | None, str]:
    try:
        data = file.path.read_bytes()
        picture = to_rgb(upright(data))
    except UnusableImage as error:
        return None, str(error)
    except OSError as error:
        return None, f"cannot be read ({error.strerror})"
    digest = hashlib.sha256(data).hexdigest()
    return Seen(picture.size, digest, look_of(picture), sharpness(picture, area_px=area_px)), ""


def _captions(file: PictureFile) -> tuple[str, ...]:
    every_line = file.folder.captions.wildcards
    if file.entry and file.entry.caption:
        return caption_lines(file.entry.caption, every_line=every_line)
    if file.caption_path is None:
        return ()
    return read_caption(file.caption_path, every_line=every_line)
