"""The pictures of a grid are drawn once, and again only when something that decides them changed."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from lora_api.evaluation_spec import Grid
from lora_trainer.grid.axes import Axes, GridAdapter, make_axes
from lora_trainer.grid.pictures import Base, Listener, digest_of, draw_grid, index_of
from lora_trainer.lora.block_weights import block_vector
from lora_trainer.lora.strength import Strength
from lora_trainer.samples import Picture

CAT = Picture("a red cat", "", width_px=64, height_px=64, steps=2, guidance=7.0, seed=5)
ROWS = [GridAdapter("tiny-000001", "one", 1), GridAdapter("tiny-000002", "two", 2)]
GRID = Grid(weights=(0.5, 1.0), seeds=(1, 2, 3, 4, 5))
BASE = Base("base", "digest")


class Hand:
    """Draws plain pictures, and notes what it was asked for."""

    def __init__(self, *, fails_after: int | None = None) -> None:
        self.asked: list[tuple[GridAdapter, Strength, int]] = []
        self._fails_after = fails_after

    def draw(self, adapter: GridAdapter, strength: Strength, pictures: Sequence[Picture]) -> list[Image.Image]:
        if self._fails_after is not None and len(self.asked) >= self._fails_after:
            raise InterruptedError
        self.asked.append((adapter, strength, len(pictures)))
        return [Image.new("RGB", (64, 64), (picture.seed, 0, 0)) for picture in pictures]


def make(grid: Grid = GRID) -> Axes:
    return make_axes(ROWS, grid, [CAT])


def drawn_again(axes: Axes, folder: Path, base: Base = BASE) -> int:
    hand = Hand()
    draw_grid(axes, folder, base, hand.draw, listener=Listener())
    return sum(count for _, _, count in hand.asked)


def test_each_adapter_is_asked_for_once_in_a_row_and_each_strength_within_it(tmp_path: Path) -> None:
    hand = Hand()

    draw_grid(make(), tmp_path, BASE, hand.draw, listener=Listener())

    order = [(adapter.epoch, strength.weight, count) for adapter, strength, count in hand.asked]
    assert order == [(epoch, weight, count) for epoch in (1, 2) for weight in (0.5, 1.0) for count in (4, 1)]


def test_a_picture_carries_how_it_was_made_for_the_web_ui(tmp_path: Path) -> None:
    draw_grid(make(Grid(weights=(0.5,))), tmp_path, BASE, Hand().draw, listener=Listener())

    with Image.open(tmp_path / "e000002-w0.50.png") as image:
        text = image.info["parameters"]

    assert text.startswith("a red cat <lora:tiny-000002:0.5>\nSteps: 2, Sampler: Euler a")
    assert "Seed: 42" in text and "Model: base" in text


def test_what_lies_there_is_not_drawn_again(tmp_path: Path) -> None:
    hand, kept = Hand(fails_after=3), []
    with pytest.raises(InterruptedError):
        draw_grid(make(), tmp_path, BASE, hand.draw, listener=Listener())

    again = Hand()
    draw_grid(make(), tmp_path, BASE, again.draw, listener=Listener(lambda cell, is_new: kept.append(is_new)))

    assert sum(count for _, _, count in again.asked) == 20 - 9
    assert sorted(kept) == [False] * 9 + [True] * 11


@pytest.mark.parametrize(
    "other",
    [
        make_axes([replace(ROWS[0], sha256="other"), ROWS[1]], GRID, [CAT]),
        make_axes([replace(ROWS[0], name="other"), ROWS[1]], GRID, [CAT]),
        make_axes(ROWS, GRID, [replace(CAT, prompt="a dog")]),
        make_axes(ROWS, GRID, [replace(CAT, clip_skip=2)]),
        make_axes(ROWS, GRID, [CAT], [block_vector("ALL", None, "sd15")]),
    ],
    ids=["weights of the adapter", "its name", "prompt", "clip skip", "block weights"],
)
def test_every_setting_is_part_of_the_digest(other: Axes) -> None:
    known = {digest_of(cell, BASE) for cell in make().cells()}

    assert any(digest_of(cell, BASE) not in known for cell in other.cells())


def test_another_base_model_draws_everything_again(tmp_path: Path) -> None:
    assert drawn_again(make(), tmp_path) == 20

    assert drawn_again(make(), tmp_path, Base("base", "another")) == 20


def test_a_damaged_picture_is_drawn_again(tmp_path: Path) -> None:
    drawn_again(make(), tmp_path)
    broken = tmp_path / "e000001-w0.50-s3.png"
    broken.write_bytes(broken.read_bytes()[:-30])

    assert drawn_again(make(), tmp_path) == 1


def test_progress_counts_what_was_there(tmp_path: Path) -> None:
    drawn_again(make(Grid(weights=(0.5,), seeds=(1, 2, 3, 4, 5))), tmp_path)
    told: list[tuple[int, int]] = []

    draw_grid(make(), tmp_path, BASE, Hand().draw, listener=Listener(on_progress=lambda *counts: told.append(counts)))

    assert told[0] == (10, 20) and told[-1] == (20, 20)


def test_the_index_says_what_each_picture_shows() -> None:
    axes = make_axes(ROWS[:1], Grid(weights=(0.5,)), [CAT], [block_vector("MIDD", None, "sd15")])

    pictures = json.loads(index_of(axes, "evaluation/grid"))["pictures"]

    wanted = {
        "path": "evaluation/grid/e000001-w0.50.png",
        "epoch": 1,
        "weight": 0.5,
        "seed": 42,
        "blockWeights": "MIDD",
    }
    assert len(pictures) == 1 and wanted.items() <= pictures[0].items()
