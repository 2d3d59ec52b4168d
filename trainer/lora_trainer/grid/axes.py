"""What a grid shows: a row for each adapter, a column for each weight, a panel for every combination of the rest.

Pure; used by `evaluate` and `lora grid`.
"""

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from lora_api.evaluation_spec import MAX_GRID_PICTURES, Grid, Sampler
from lora_trainer.errors import InvalidConfiguration
from lora_trainer.lora.block_weights import BlockVector
from lora_trainer.lora.strength import Strength
from lora_trainer.samples import SAMPLER_NAMES, Picture, lora_tag

FOLDER = "evaluation/grid"
_SEED = 42
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_T = TypeVar("_T")


@dataclass(frozen=True)
class GridAdapter:
    """A row: the adapter of an epoch, or one of another tool."""

    name: str
    """Name in `<lora:name:weight>`: that of its file, without the extension."""
    sha256: str
    """Digest of the file."""
    epoch: int | None = None
    title: str = ""
    """What tells it from others of the same name; empty: its name."""

    @property
    def label(self) -> str:
        """What stands before the row."""
        return f"Adapter: {self.title or self.name}" if self.epoch is None else f"Epoch: {self.epoch}"


@dataclass(frozen=True)
class Panel:
    """A table of rows and columns in which all else is the same."""

    picture: Picture
    """What is drawn in each cell; its weight is that of the column."""
    block_weights: BlockVector | None
    labels: tuple[str, ...]
    """What tells it from other panels, and the prompt: `Seed: 42`."""
    marks: tuple[str, ...]
    """The same, short, for names of files."""


@dataclass(frozen=True)
class Cell:
    """One picture of the grid."""

    adapter: GridAdapter
    panel: Panel
    weight: float
    path: str
    """Name of its file in the grid's folder."""

    @property
    def picture(self) -> Picture:
        """What to draw."""
        return replace(self.panel.picture, weight=self.weight)

    @property
    def strength(self) -> Strength:
        """How strongly the adapter is drawn."""
        return Strength(self.weight, self.panel.block_weights)

    @property
    def tag(self) -> str:
        """What a user of the WebUI writes into the prompt for it."""
        blocks = self.panel.block_weights
        tag = lora_tag(self.adapter.name, self.weight)
        return tag if blocks is None else f"{tag.removesuffix('>')}:lbw={blocks.name}>"


@dataclass(frozen=True)
class Axes:
    """The whole grid."""

    adapters: tuple[GridAdapter, ...]
    weights: tuple[float, ...]
    panels: tuple[Panel, ...]

    def cells(self) -> Iterator[Cell]:
        """Every picture, adapter after adapter and there strength after strength, so that each is applied once."""
        for place, adapter in enumerate(self.adapters):
            row = f"r{place:02d}-{_UNSAFE.sub('_', adapter.name)}" if adapter.epoch is None else f"e{adapter.epoch:06d}"
            for panel, weight in sorted(itertools.product(self.panels, self.weights), key=self._order):
                yield Cell(adapter, panel, weight, "-".join((row, f"w{_short(weight)}", *panel.marks)) + ".png")

    def __len__(self) -> int:
        return len(self.adapters) * len(self.weights) * len(self.panels)

    def _order(self, pair: tuple[Panel, float]) -> tuple[str, int]:
        panel, weight = pair
        return panel.block_weights.name if panel.block_weights else "", self.weights.index(weight)


def make_axes(
    adapters: Sequence[GridAdapter], grid: Grid, pictures: Sequence[Picture], blocks: Sequence[BlockVector] = ()
) -> Axes:
    """The grid of `adapters` that `grid` asks for.

    Args:
        adapters: the rows.
        grid: weights, seeds, samplers and guidance scales.
        pictures: what to draw, one for each prompt, every default filled in.
        blocks: block weights to compare; none: every block at the column's weight.

    Raises:
        InvalidConfiguration: there are too many pictures.
    """
    lists: tuple[tuple[_Choice, ...], ...] = (
        tuple(_of_prompt(picture, place) for place, picture in enumerate(pictures)),
        tuple(_of_seed(seed) for seed in _once(grid.seeds or (_SEED if grid.seed is None else grid.seed,))),
        tuple(_of_blocks(vector, place) for place, vector in enumerate(blocks)),
        tuple(_of_sampler(sampler) for sampler in _once(grid.samplers)),
        tuple(_of_guidance(guidance) for guidance in _once(grid.guidances)),
    )
    several = {choice.axis for choices in lists if len(choices) > 1 for choice in choices}
    panels = tuple(_panel(choices, several) for choices in itertools.product(*(some for some in lists if some)))
    axes = Axes(tuple(adapters), _once(grid.weights), panels)
    if len(axes) > MAX_GRID_PICTURES:
        raise InvalidConfiguration(
            f"the grid (spec.evaluation.grid) has {len(adapters)} adapters × {len(axes.weights)} weights × "
            f"{len(panels)} combinations of the other lists = {len(axes)} pictures, but {MAX_GRID_PICTURES} is the "
            "most; shorten a list, or name some epochs"
        )
    return axes


@dataclass(frozen=True)
class _Choice:
    """One value of one list."""

    axis: str
    mark: str
    label: str
    picture: Picture | None = None
    changes: tuple[tuple[str, Any], ...] = ()
    """Fields of the picture that it decides."""
    block_weights: BlockVector | None = None


def _of_prompt(picture: Picture, place: int) -> _Choice:
    return _Choice("prompt", f"p{place:02d}", f"Prompt: {picture.prompt}", picture=picture)


def _of_seed(seed: int) -> _Choice:
    return _Choice("seed", f"s{seed}", f"Seed: {seed}", changes=(("seed", seed),))


def _of_blocks(vector: BlockVector, place: int) -> _Choice:
    mark = f"b{place:02d}-{_UNSAFE.sub('_', vector.name)}"
    return _Choice("blocks", mark, f"Block weights: {vector.name}", block_weights=vector)


def _of_sampler(sampler: Sampler) -> _Choice:
    return _Choice("sampler", sampler, f"Sampler: {SAMPLER_NAMES[sampler]}", changes=(("sampler", sampler),))


def _of_guidance(guidance: float) -> _Choice:
    return _Choice("guidance", f"g{guidance:g}", f"CFG scale: {guidance:g}", changes=(("guidance", guidance),))


def _panel(choices: Sequence[_Choice], several: Set[str]) -> Panel:
    picture = next(choice.picture for choice in choices if choice.picture)
    return Panel(
        picture=replace(picture, **dict(change for choice in choices for change in choice.changes)),
        block_weights=next((choice.block_weights for choice in choices if choice.block_weights), None),
        labels=tuple(choice.label for choice in choices),
        marks=tuple(choice.mark for choice in choices if choice.axis in several),
    )


def _once(values: Iterable[_T]) -> tuple[_T, ...]:
    return tuple(dict.fromkeys(values))


def _short(weight: float) -> str:
    """Two decimals, and more where they are needed."""
    return f"{weight:.2f}" if round(weight, 2) == weight else f"{weight:g}"
