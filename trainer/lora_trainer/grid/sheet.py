"""The whole grid as one picture: a large PNG and a WebP that browsers show. Used by `evaluate` and `lora grid`.

It is built in bands, a row of cells at a time: in memory lie one band, one picture and the canvas of the WebP.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from PIL import Image

from lora_trainer.grid.axes import Axes, GridAdapter, Panel
from lora_trainer.grid.labels import LINE_HEIGHT, draw_lines, wrapped
from lora_trainer.grid.png_stream import PngStream

_MARGIN = 8
_LABEL_WIDTH = 136
_MAX_CELL = 384
_MIN_CELL = 96
_MAX_AREA = 80_000_000
"""Pixels of the PNG: more, and many programs refuse to open it."""
_WEBP_SIDE = 16383
"""The longest side that WebP knows."""
_WEBP_AREA = 24_000_000
"""Pixels of the WebP, which has to lie in memory whole."""
_TITLE_LINES = 3
_LABEL_LINES = 6
_BACKGROUND = "white"


@dataclass(frozen=True)
class _Layout:
    """Where everything lies, in px."""

    axes: Axes
    cell: int
    """Longest side of a picture."""
    across: int
    """Panels beside each other."""

    def cell_size(self, panel: Panel) -> tuple[int, int]:
        """Size of the panel's pictures: their own, shrunk to the largest cell; small ones as large as fit."""
        width, height = panel.picture.width_px, panel.picture.height_px
        factor = self.cell / max(width, height)
        factor = factor if factor <= 1 else max(1, math.floor(min(factor, 2)))
        return max(1, round(width * factor)), max(1, round(height * factor))

    @cached_property
    def slot(self) -> tuple[int, int]:
        """Room of one picture, the same in all panels."""
        sizes = [self.cell_size(panel) for panel in self.axes.panels]
        return max(width for width, _ in sizes), max(height for _, height in sizes)

    @cached_property
    def panel_width(self) -> int:
        return _LABEL_WIDTH + len(self.axes.weights) * (self.slot[0] + _MARGIN) + _MARGIN

    def title(self, panel: Panel) -> tuple[str, ...]:
        """The panel's labels, one below the other."""
        room = self.panel_width - 2 * _MARGIN
        return tuple(line for label in panel.labels for line in wrapped(label, room, most_lines=_TITLE_LINES))

    @cached_property
    def head_height(self) -> int:
        """Of a panel's title and its weights, the same in all panels."""
        return _MARGIN + (1 + max(len(self.title(panel)) for panel in self.axes.panels)) * LINE_HEIGHT + _MARGIN

    @cached_property
    def row_height(self) -> int:
        return max(self.slot[1], LINE_HEIGHT * 2) + _MARGIN

    @cached_property
    def panel_height(self) -> int:
        return self.head_height + len(self.axes.adapters) * self.row_height

    @cached_property
    def panel_rows(self) -> list[Sequence[Panel]]:
        """The panels that lie beside each other."""
        panels = self.axes.panels
        return [panels[start : start + self.across] for start in range(0, len(panels), self.across)]

    @cached_property
    def size(self) -> tuple[int, int]:
        return self.across * self.panel_width, len(self.panel_rows) * self.panel_height


def write_sheet(axes: Axes, folder: Path, png: Path, webp: Path, *, on_row: Callable[[], None] = lambda: None) -> None:
    """Writes the sheet of the pictures in `folder` twice. `on_row` is called before each row and may raise to stop."""
    layout = _layout(axes)
    small = _Small(layout.size)
    with png.open("wb") as file, PngStream(file, *layout.size) as stream:
        for band in _bands(layout, folder):
            on_row()
            stream.write(band)
            small.add(band)
    small.canvas.save(webp, quality=85, method=4)


def _layout(axes: Axes) -> _Layout:
    """The largest cells with which the sheet stays within its area; panels beside each other to make it square."""
    for cell in range(_MAX_CELL, _MIN_CELL, -32):
        layout = _in_a_square(axes, cell)
        if math.prod(layout.size) <= _MAX_AREA:
            return layout
    return _in_a_square(axes, _MIN_CELL)


def _in_a_square(axes: Axes, cell: int) -> _Layout:
    one = _Layout(axes, cell, 1)
    across = round(math.sqrt(len(axes.panels) * one.panel_height / one.panel_width))
    return _Layout(axes, cell, min(max(across, 1), len(axes.panels)))


def _bands(layout: _Layout, folder: Path) -> Iterator[Image.Image]:
    files = {(cell.adapter, cell.panel, cell.weight): folder / cell.path for cell in layout.axes.cells()}
    for panels in layout.panel_rows:
        yield _head(layout, panels)
        for adapter in layout.axes.adapters:
            yield _row(layout, panels, adapter, files)


def _head(layout: _Layout, panels: Sequence[Panel]) -> Image.Image:
    band = Image.new("RGB", (layout.size[0], layout.head_height), _BACKGROUND)
    for place, panel in enumerate(panels):
        left = place * layout.panel_width
        draw_lines(band, layout.title(panel), left + _MARGIN, _MARGIN)
        for column, weight in enumerate(layout.axes.weights):
            top = layout.head_height - LINE_HEIGHT - _MARGIN // 2
            draw_lines(band, [f"Weight: {weight:g}"], left + _column(layout, column), top)
    return band


def _row(
    layout: _Layout,
    panels: Sequence[Panel],
    adapter: GridAdapter,
    files: Mapping[tuple[GridAdapter, Panel, float], Path],
) -> Image.Image:
    band = Image.new("RGB", (layout.size[0], layout.row_height), _BACKGROUND)
    label = wrapped(adapter.label, _LABEL_WIDTH - 2 * _MARGIN, most_lines=_LABEL_LINES)
    for place, panel in enumerate(panels):
        left = place * layout.panel_width
        draw_lines(band, label[: max(2, layout.slot[1] // LINE_HEIGHT)], left + _MARGIN, 0)
        for column, weight in enumerate(layout.axes.weights):
            with Image.open(files[adapter, panel, weight]) as image:
                cell = image.convert("RGB").resize(layout.cell_size(panel), Image.Resampling.LANCZOS)
            band.paste(cell, (left + _column(layout, column), 0))
    return band


def _column(layout: _Layout, column: int) -> int:
    return _LABEL_WIDTH + column * (layout.slot[0] + _MARGIN)


class _Small:
    """The sheet scaled down to what a WebP can be, filled band by band."""

    def __init__(self, size: tuple[int, int]) -> None:
        width, height = size
        self._factor = min(1.0, _WEBP_SIDE / max(size), math.sqrt(_WEBP_AREA / (width * height)))
        self.canvas = Image.new("RGB", (self._scaled(width), self._scaled(height)), _BACKGROUND)
        self._top = 0

    def add(self, band: Image.Image) -> None:
        """Adds the next band of the sheet."""
        top, self._top = self._scaled(self._top), self._top + band.height
        height = self._scaled(self._top) - top
        if height > 0:
            small = band if self._factor == 1 else band.resize((self.canvas.width, height), Image.Resampling.LANCZOS)
            self.canvas.paste(small, (0, top))

    def _scaled(self, length: int) -> int:
        return max(1, math.floor(length * self._factor)) if length else 0
