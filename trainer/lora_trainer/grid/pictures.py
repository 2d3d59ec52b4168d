"""The pictures of a grid, one by one: those that lie there already are kept, the others are drawn.

Used by `evaluate` and `lora grid`; how a picture is drawn is passed in. Each picture carries a digest of everything
that decides it, by which a later start knows whether it is the same.
"""

import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from PIL import Image

from lora_trainer.grid.axes import Axes, Cell, GridAdapter
from lora_trainer.lora.strength import Strength
from lora_trainer.samples import Picture, write_picture

_DIGEST = "lora-operator digest"
"""Key of the PNG's text."""
_FORMAT_VERSION = 1
_AT_ONCE = 4
"""Pictures that are drawn between two that are written: what a stop can cost."""

Draw = Callable[[GridAdapter, Strength, Sequence[Picture]], Sequence[Image.Image]]
"""Draws pictures with an adapter at a strength, without regard to the pictures' own weights."""


@dataclass(frozen=True)
class Base:
    """What draws."""

    name: str
    """The model's name, as the pictures tell it."""
    digest: str
    """Digest of everything that decides a picture beside adapter and settings: the model's files, and how it reads."""


@dataclass(frozen=True)
class Listener:
    """Who is told."""

    on_picture: Callable[[Cell, bool], None] = lambda cell, is_new: None
    """Called when a picture lies in the folder: whether it was drawn now."""
    on_progress: Callable[[int, int], None] = lambda done, total: None
    """Called with the number of pictures that are there, and of all; may raise to stop."""


def draw_grid(axes: Axes, folder: Path, base: Base, draw: Draw, *, listener: Listener) -> None:
    """Makes sure that every picture of the grid lies in `folder`. What `draw` raises ends it; what is there stays."""
    done, missing = 0, []
    for cell in axes.cells():
        if stored_digest(folder / cell.path) == digest_of(cell, base):
            done += 1
            listener.on_picture(cell, False)
        else:
            missing.append(cell)
    for cells in _alike(missing):
        listener.on_progress(done, len(axes))
        images = draw(cells[0].adapter, cells[0].strength, [cell.picture for cell in cells])
        for cell, image in zip(cells, images, strict=True):
            _write(cell, image, folder, base)
            done += 1
            listener.on_picture(cell, True)
    listener.on_progress(done, len(axes))


def digest_of(cell: Cell, base: Base) -> str:
    """SHA-256 over everything that decides the picture and the text in it."""
    blocks = cell.panel.block_weights
    content = {
        "version": _FORMAT_VERSION,
        "base": [base.name, base.digest],
        "adapter": [cell.adapter.name, cell.adapter.sha256],
        "picture": asdict(cell.picture),
        "blocks": blocks and [blocks.name, *blocks.values],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def stored_digest(path: Path) -> str | None:
    """The digest that a picture carries; None: there is none, or it is damaged."""
    try:
        with Image.open(path) as image:
            digest = image.info.get(_DIGEST)
            image.verify()
    except (OSError, SyntaxError, ValueError):
        return None
    return digest if isinstance(digest, str) else None


def _alike(cells: Iterable[Cell]) -> Iterable[Sequence[Cell]]:
    """Cells of one adapter at one strength, a few at a time."""
    for _, group in itertools.groupby(cells, key=lambda cell: (cell.adapter, cell.strength)):
        same = list(group)
        yield from (same[start : start + _AT_ONCE] for start in range(0, len(same), _AT_ONCE))


def _write(cell: Cell, image: Image.Image, folder: Path, base: Base) -> None:
    """All or nothing: what is half written is no picture for the next start."""
    path = folder / cell.path
    partial = path.with_name(f".partial-{path.name}")
    parameters = cell.picture.parameters(model=base.name, lora=cell.tag)
    write_picture(image, partial, parameters, **{_DIGEST: digest_of(cell, base)})
    partial.replace(path)


def index_of(axes: Axes, folder: str) -> str:
    """JSON that says what each picture shows, for the report: `{"pictures": [{"path": …, "epoch": …}]}`."""
    pictures = [_described(cell, f"{folder}/{cell.path}") for cell in axes.cells()]
    return json.dumps({"pictures": pictures}, indent=1, ensure_ascii=False) + "\n"


def _described(cell: Cell, path: str) -> dict[str, object]:
    picture, blocks = cell.picture, cell.panel.block_weights
    return {
        "path": path,
        "epoch": cell.adapter.epoch,
        "adapter": cell.adapter.title or cell.adapter.name,
        "weight": cell.weight,
        "prompt": picture.prompt,
        "negativePrompt": picture.negative_prompt,
        "seed": picture.seed,
        "sampler": picture.sampler,
        "guidance": picture.guidance,
        "steps": picture.steps,
        "blockWeights": blocks and blocks.name,
    }
