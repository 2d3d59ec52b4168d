"""The sheet shows every picture at its place, in both formats, whatever its size."""

import weakref
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from lora_api.evaluation_spec import Grid
from lora_trainer.grid import sheet
from lora_trainer.grid.axes import Axes, GridAdapter, make_axes
from lora_trainer.grid.labels import SIZE, wrapped
from lora_trainer.grid.png_stream import PngStream
from lora_trainer.grid.sheet import write_sheet
from lora_trainer.samples import Picture

ROWS = [GridAdapter(f"tiny-{epoch:06d}", str(epoch), epoch) for epoch in (1, 2)]


def make(folder: Path, *, side: int = 64, seeds: int = 1, weights: tuple[float, ...] = (0.5, 1.0)) -> Axes:
    """A grid whose pictures have a colour each."""
    picture = Picture("a red cat", "", width_px=side, height_px=side, steps=2, guidance=7.0, seed=5)
    axes = make_axes(ROWS, Grid(weights=weights, seeds=tuple(range(seeds))), [picture])
    for place, cell in enumerate(axes.cells()):
        Image.new("RGB", (side, side), colour(place)).save(folder / cell.path)
    return axes


def colour(place: int) -> tuple[int, int, int]:
    return 40 + 10 * place, 255 - 10 * place, 7


def write(axes: Axes, folder: Path) -> tuple[Image.Image, Image.Image]:
    write_sheet(axes, folder, folder / "sheet.png", folder / "sheet.webp")
    return Image.open(folder / "sheet.png").convert("RGB"), Image.open(folder / "sheet.webp").convert("RGB")


def area_of(image: Image.Image, place: int) -> tuple[int, int, int, int]:
    """Bounding box of a picture's colour: left, top, right, bottom."""
    ys, xs = np.nonzero((np.asarray(image) == colour(place)).all(axis=2))
    return int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1


def test_rows_are_adapters_and_columns_are_weights(tmp_path: Path) -> None:
    png, _ = write(make(tmp_path), tmp_path)

    areas = [area_of(png, place) for place in range(4)]

    lefts, tops = [area[0] for area in areas], [area[1] for area in areas]
    assert lefts[0] == lefts[2] < lefts[1] == lefts[3]
    assert tops[0] == tops[1] < tops[2] == tops[3]
    # Small pictures are doubled.
    assert all((right - left, bottom - top) == (128, 128) for left, top, right, bottom in areas)


def test_panels_lie_apart_and_show_all_pictures(tmp_path: Path) -> None:
    png, _ = write(make(tmp_path, seeds=3), tmp_path)

    areas = {area_of(png, place) for place in range(12)}

    assert len(areas) == 12 and all((right - left, bottom - top) == (128, 128) for left, top, right, bottom in areas)


def test_the_webp_is_the_same_picture_as_long_as_it_fits(tmp_path: Path) -> None:
    png, webp = write(make(tmp_path), tmp_path)

    difference = np.abs(np.asarray(png, dtype=int) - np.asarray(webp, dtype=int))

    assert png.size == webp.size and difference.mean() < 4


def test_a_sheet_that_a_webp_cannot_hold_is_scaled_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sheet, "_WEBP_SIDE", 200)

    png, webp = write(make(tmp_path), tmp_path)

    assert max(webp.size) == 200 and max(png.size) > 200
    assert abs(webp.width / webp.height - png.width / png.height) < 0.02
    left, top, *_ = area_of(png, 0)
    x, y = (round((side + 64) * 200 / max(png.size)) for side in (left, top))
    assert np.abs(np.asarray(webp, dtype=int)[y, x] - colour(0)).max() < 12


def test_cells_shrink_where_the_sheet_would_be_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sheet, "_MAX_AREA", 300_000)

    png, _ = write(make(tmp_path, side=256), tmp_path)

    left, _, right, _ = area_of(png, 0)
    assert 96 <= right - left < 256 and png.width * png.height <= 300_000


def test_in_memory_lie_two_rows_and_not_the_sheet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[weakref.ref[Image.Image]] = []
    alive: list[int] = []
    make_row = sheet._row

    def noted(*arguments: Any) -> Image.Image:
        row = make_row(*arguments)
        made.append(weakref.ref(row))
        alive.append(sum(one() is not None for one in made))
        return row

    monkeypatch.setattr(sheet, "_row", noted)

    write(make(tmp_path, seeds=9), tmp_path)

    assert len(made) >= 6 and max(alive) <= 2


def test_streamed_lines_are_the_picture(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (37, 23, 3), dtype=np.uint8)
    file = BytesIO()

    with PngStream(file, 23, 37) as stream:
        for start in range(0, 37, 10):
            stream.write(Image.fromarray(pixels[start : start + 10]))

    assert np.array_equal(np.asarray(Image.open(BytesIO(file.getvalue()))), pixels)


def test_words_are_wrapped_and_what_is_too_long_is_cut_visibly() -> None:
    font = ImageFont.load_default(SIZE)
    text = "a red cat " * 30 + "x" * 200

    lines = wrapped(text, 150, most_lines=5)

    assert len(lines) == 5 and lines[-1].endswith("…")
    assert all(ImageDraw.Draw(Image.new("L", (1, 1))).textlength(line, font=font) <= 150 for line in lines)
    assert "".join(wrapped("x" * 200, 150, most_lines=99)) == "x" * 200
