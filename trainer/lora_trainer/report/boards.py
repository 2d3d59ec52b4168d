"""Sample pictures and block weights as boards: what stands in each row and column, embedded within a budget of bytes.

Used by `writing`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from lora_api.run_manifest import ManifestFile
from lora_trainer.report.pictures import Embedded, affordable, embed
from lora_trainer.report.record import GridPicture, RunReader, RunRecord

BLOCKS_BYTES = 1_500_000
_FEWEST_BYTES = 12_000
"""Of a picture: with less it is no longer worth looking at."""
_BLOCK_SIDE = 192
_ADAPTER = re.compile(r"<lora:[^<>]*>")
_PLACE = re.compile(r"^(?P<drawing>.*)-(?P<place>[0-9]+)\.png$")


class Moment(NamedTuple):
    """When pictures were drawn; orders by time."""

    step: int
    epoch: int
    drawing: str
    """Common beginning of their paths."""

    @property
    def is_epoch(self) -> bool:
        """Whether it is the end of an epoch; else it is between two."""
        return self.drawing.endswith(f"-e{self.epoch:06d}")


@dataclass(frozen=True)
class Row:
    """One prompt."""

    pictures: tuple[Embedded | None, ...]
    """Of each moment."""

    @property
    def prompt(self) -> str:
        """What was drawn, without the adapter that every moment has another of."""
        parameters = next((one.parameters for one in self.pictures if one and one.parameters), "")
        return _ADAPTER.sub("", parameters.partition("\n")[0]).strip(" ,")


@dataclass(frozen=True)
class Board:
    """Rows of pictures over the same moments."""

    moments: tuple[Moment, ...]
    rows: tuple[Row, ...]
    all_moments: int
    """How many there are; those that are not on the board would make the page too large."""

    def place_of(self, epoch: int | None) -> int:
        """The column of an epoch; the last one if it is not there."""
        places = [place for place, moment in enumerate(self.moments) if moment.epoch == epoch]
        return places[-1] if places else len(self.moments) - 1


@dataclass(frozen=True)
class BlockBoard:
    """One picture under several presets of block weights."""

    epoch: int
    presets: tuple[str, ...]
    weights: tuple[float, ...]
    pictures: Mapping[tuple[str, float], Embedded]


def sample_board(run: RunRecord, reader: RunReader, *, size_bytes: int, epochs_only: bool = False) -> Board | None:
    """The sample pictures of a run; None where there are none that can be shown."""
    drawn = _drawn(run.of_kind("sample"))
    moments = sorted(moment for moment in drawn if not epochs_only or moment.is_epoch)
    if not moments:
        return None
    places = sorted({place for moment in moments for place in drawn[moment]})
    most = max(2, size_bytes // (_FEWEST_BYTES * len(places)))
    best = [place for place, moment in enumerate(moments) if moment.epoch == run.best_epoch]
    shown = [moments[place] for place in affordable(range(len(moments)), wanted=best, most=most)]
    each = size_bytes // (len(shown) * len(places))
    rows = tuple(Row(tuple(_embedded(drawn[moment].get(place), reader, each) for moment in shown)) for place in places)
    kept = tuple(row for row in rows if any(row.pictures))
    return Board(tuple(shown), kept, len(moments)) if kept else None


def block_board(run: RunRecord, reader: RunReader) -> BlockBoard | None:
    """The grid's pictures of one epoch, prompt and seed under every preset; None unless presets were compared."""
    compared = [one for one in run.grid if one.block_weights is not None]
    if not compared:
        return None
    epochs = sorted({one.epoch for one in compared})
    epoch = run.best_epoch if run.best_epoch in epochs else epochs[-1]
    first = next(one for one in compared if one.epoch == epoch)
    shown = [one for one in compared if one.epoch == epoch and _alike(one, first)]
    each = BLOCKS_BYTES // len(shown)
    pictures = {}
    for one in shown:
        embedded = _embedded(run.files.get(one.path), reader, each, longest=_BLOCK_SIDE)
        if embedded is not None:
            pictures[one.block_weights or "", one.weight] = embedded
    presets = tuple(dict.fromkeys(preset for preset, _ in pictures))
    return BlockBoard(epoch, presets, tuple(sorted({weight for _, weight in pictures})), pictures) if pictures else None


def _alike(one: GridPicture, other: GridPicture) -> bool:
    """Whether only epoch, weight and preset differ."""
    return (one.prompt, one.seed, one.sampler, one.guidance) == (
        other.prompt,
        other.seed,
        other.sampler,
        other.guidance,
    )


def _drawn(files: Sequence[ManifestFile]) -> dict[Moment, dict[int, ManifestFile]]:
    """Moment -> place of the prompt -> file."""
    drawn: dict[Moment, dict[int, ManifestFile]] = {}
    for file in files:
        found = _PLACE.match(file.path)
        if found is not None:
            moment = Moment(file.step or 0, file.epoch or 0, found["drawing"])
            drawn.setdefault(moment, {})[int(found["place"])] = file
    return drawn


def _embedded(file: ManifestFile | None, reader: RunReader, size_bytes: int, *, longest: int = 512) -> Embedded | None:
    path: Path | None = reader.fetch(file)
    if path is None or file is None:
        return None
    picture = embed(path, size_bytes=size_bytes, longest=longest)
    if picture is None:
        reader.note("unreadable", file.path)
    path.unlink(missing_ok=True)
    return picture
