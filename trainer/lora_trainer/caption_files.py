"""Caption files beside the pictures of a folder or bucket: which are missing, and how they are written. Used by
`lora caption`."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from PIL import Image

from lora_trainer.data.captions import by_name, find_caption
from lora_trainer.data.folders import MASKS, REGULARIZATION
from lora_trainer.data.images import UnusableImage, is_image, to_rgb, upright
from lora_trainer.storage import MissingFile, Store
from lora_trainer.storage.store import ABSENT, Changed

Describe = Callable[[Sequence[Image.Image]], Sequence[str]]
"""RGB pictures -> what each shows."""
Caption = Callable[[str], str]
"""What a picture shows -> its caption."""


@dataclass(frozen=True)
class Task:
    """A picture and the caption file that it is to get, by their keys."""

    picture: str
    target: str


@dataclass(frozen=True)
class Found:
    """What a folder holds."""

    tasks: tuple[Task, ...]
    """Ascending by picture; no two have the same target."""
    captioned: int
    """Pictures that have a caption file, which is left as it is."""
    regularization: int
    """Pictures in `reg/`, which are left out."""


@dataclass(frozen=True)
class Outcome:
    """What became of a task."""

    task: Task
    state: Literal["written", "kept", "failed"]
    """kept: somebody else has written the file meanwhile."""
    caption: str = ""
    problem: str = ""
    """Why it failed; the end of a sentence that starts with the picture's name."""


def find_tasks(keys: Iterable[str], *, extension: str, overwrite: bool) -> Found:
    """The pictures among `keys` that are to get a caption, at any depth.

    Hidden files and masks are no pictures here, and neither are regularisation pictures, whose captions must not name
    what is learnt. With `overwrite` pictures with a caption get a new one, but not where several share a file.
    """
    visible = [key for key in sorted(keys) if not any(part.startswith(".") for part in key.split("/"))]
    pictures = [key for key in visible if is_image(PurePosixPath(key)) and not key.startswith(f"{MASKS}/")]
    wanted = [key for key in pictures if not key.startswith(f"{REGULARIZATION}/")]
    files = _by_folder(visible)
    tasks: dict[str, Task] = {}
    for key in wanted:
        path = PurePosixPath(key)
        caption = find_caption(path.stem, extension, files[path.parent])
        own = caption is None or caption.stem.casefold() == path.stem.casefold()
        if caption is None or (overwrite and own):
            target = (caption or path.with_suffix(extension)).as_posix()
            tasks.setdefault(target, Task(key, target))
    return Found(tuple(tasks.values()), len(wanted) - len(tasks), len(pictures) - len(wanted))


def _by_folder(keys: Sequence[str]) -> dict[PurePosixPath, dict[str, PurePosixPath]]:
    folders: dict[PurePosixPath, list[PurePosixPath]] = {}
    for path in map(PurePosixPath, keys):
        folders.setdefault(path.parent, []).append(path)
    return {folder: by_name(paths) for folder, paths in folders.items()}


@dataclass(frozen=True)
class CaptionWriter:
    """Writes caption files below a store, whole or not at all."""

    store: Store
    overwrite: bool
    is_shared: bool
    """Others may write there at the same moment, as into a bucket: the store itself then watches over it."""

    def write(self, target: str, caption: str) -> bool:
        """Whether it was written; without `overwrite` never in the place of a file."""
        data = f"{caption}\n".encode()
        if self.overwrite:
            self.store.put_bytes(data, target)
            return True
        if not self.is_shared:
            if target in self.store.list(target):
                return False
            self.store.put_bytes(data, target)
            return True
        try:
            self.store.put_bytes(data, target, only_if=ABSENT)
        except Changed:
            return False
        return True


def caption_pictures(
    tasks: Sequence[Task], writer: CaptionWriter, describe: Describe, caption: Caption, *, batch: int
) -> Iterator[Outcome]:
    """Carries `tasks` out, `batch` pictures at a time; gives each outcome when its file is there.

    A picture that cannot be read fails alone. Raises what the store raises.
    """
    with ThreadPoolExecutor(batch, thread_name_prefix="read") as pool:
        for start in range(0, len(tasks), batch):
            some = tasks[start : start + batch]
            read = list(pool.map(lambda task: _read(writer.store, task.picture), some))
            images = [image for image in read if not isinstance(image, str)]
            said = iter(describe(images) if images else ())
            for task, image in zip(some, read, strict=True):
                yield _failed(task, image) if isinstance(image, str) else _write(writer, task, caption(next(said)))


def _read(store: Store, picture: str) -> Image.Image | str:
    """The picture, or why it cannot be read."""
    try:
        return to_rgb(upright(store.get_bytes(picture)))
    except UnusableImage as error:
        return str(error)
    except MissingFile:
        return "was removed meanwhile"


def _write(writer: CaptionWriter, task: Task, caption: str) -> Outcome:
    if not caption:
        return _failed(task, "shows nothing that the model has words for; write its caption")
    return Outcome(task, "written" if writer.write(task.target, caption) else "kept", caption)


def _failed(task: Task, problem: str) -> Outcome:
    return Outcome(task, "failed", problem=problem)
