"""Line charts as SVG, drawn by hand so that a report needs no library. Used by `writing`.

Shapes only: colours come from the style sheet by class, words from the page, and the values under the pointer from
the numbers in `data-chart`, which the page's script reads.
"""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from lora_trainer.report.series import Point, Series

WIDTH, HEIGHT = 480, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 12, 30
_TICKS = 5
COLOURS = 6
"""Classes `c0` to `c5`."""


@dataclass(frozen=True)
class Marks:
    """What is marked along the x axis."""

    best: float | None = None
    window: tuple[float, float] | None = None
    """The usable epochs."""
    late: tuple[float, float] | None = None
    """The over-trained ones."""
    level: float | None = None
    """A horizontal line."""


@dataclass(frozen=True)
class Frame:
    """The ranges of both axes."""

    x: tuple[float, float]
    y: tuple[float, float]

    def at(self, point: Point) -> str:
        """`x,y` in the drawing."""
        return f"{self.across(point[0]):.1f},{self.down(point[1]):.1f}"

    def across(self, x: float) -> float:
        """Distance from the left."""
        return _LEFT + (x - self.x[0]) / (self.x[1] - self.x[0]) * (WIDTH - _LEFT - _RIGHT)

    def down(self, y: float) -> float:
        """Distance from the top."""
        return HEIGHT - _BOTTOM - (y - self.y[0]) / (self.y[1] - self.y[0]) * (HEIGHT - _TOP - _BOTTOM)


def draw_chart(series: Sequence[Series], *, x_word: str, marks: Marks = Marks()) -> Markup:
    """The chart of at least one curve; `x_word` is the word under which the script tells x."""
    frame = _frame(series, marks)
    parts = [*_axes(frame), *_marked(frame, marks)]
    for place, one in enumerate(series):
        parts += _band(one, place, frame)
        parts.append(_line(one, place, frame))
    data = json.dumps(
        {
            "x": x_word,
            "frame": {"x": frame.x, "left": _LEFT, "right": WIDTH - _RIGHT, "width": WIDTH},
            "lines": [
                {"points": [[x, _short(y)] for x, y in one.points], "errors": [_short(e) for e in one.errors]}
                for one in series
            ],
        }
    )
    cursor = f'<line class="cursor" y1="{_TOP}" y2="{HEIGHT - _BOTTOM}" x1="-9" x2="-9"/>'
    return Markup(
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" data-chart="{escape(data)}" aria-hidden="true" focusable="false">'
        f"{''.join(parts)}{cursor}</svg>"
    )


def ticks(low: float, high: float) -> list[float]:
    """About five round numbers from `low` to `high`, which must be larger."""
    rough = (high - low) / _TICKS
    unit = 10.0 ** math.floor(math.log10(rough))
    step = unit * next(factor for factor in (1, 2, 2.5, 5, 10) if factor * unit >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def label(value: float) -> str:
    """A number as short as it can be told."""
    if value == 0:
        return "0"
    if abs(value) >= 10_000 or abs(value) < 1e-3:
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:.4g}"


def _frame(series: Sequence[Series], marks: Marks) -> Frame:
    xs = [x for one in series for x, _ in one.points]
    ys = [y for one in series for _, y in one.points]
    for one in series:
        ys += [y + sign * error for (_, y), error in zip(one.points, one.errors, strict=False) for sign in (-1, 1)]
    ys += [marks.level] if marks.level is not None else []
    return Frame(_widened(min(xs), max(xs), share=0.0), _widened(min(ys), max(ys), share=0.06))


def _widened(low: float, high: float, *, share: float) -> tuple[float, float]:
    if high - low <= 1e-12 * max(1.0, abs(high)):
        room = abs(high) * 0.1 or 1.0
        return low - room, high + room
    room = (high - low) * share
    # A curve of positive numbers never shows a negative axis.
    return max(low - room, 0.0) if low >= 0 else low - room, high + room


def _axes(frame: Frame) -> Iterator[str]:
    bottom = HEIGHT - _BOTTOM
    for value in ticks(*frame.y):
        y = f"{frame.down(value):.1f}"
        yield f'<line class="rule" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y}" y2="{y}"/>'
        yield f'<text class="tick end" x="{_LEFT - 6}" y="{float(y) + 4:.1f}">{label(value)}</text>'
    for value in _whole(ticks(*frame.x)):
        yield f'<text class="tick middle" x="{frame.across(value):.1f}" y="{bottom + 18}">{label(value)}</text>'
    yield f'<line class="axis" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{bottom}" y2="{bottom}"/>'


def _whole(values: Sequence[float]) -> list[float]:
    """There are no half steps or epochs."""
    return [value for value in values if abs(value - round(value)) < 1e-9]


def _marked(frame: Frame, marks: Marks) -> Iterator[str]:
    top, bottom = _TOP, HEIGHT - _BOTTOM
    for name, ends in (("window", marks.window), ("late", marks.late)):
        if ends is not None:
            left, right = (frame.across(x) for x in ends)
            # Of one epoch alone a sliver, so that it is seen.
            left, right = (left - 4, right + 4) if right - left < 8 else (left, right)
            yield f'<rect class="{name}" x="{left:.1f}" y="{top}" width="{right - left:.1f}" height="{bottom - top}"/>'
    if marks.level is not None:
        y = f"{frame.down(marks.level):.1f}"
        yield f'<line class="level" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y}" y2="{y}"/>'
    if marks.best is not None and frame.x[0] <= marks.best <= frame.x[1]:
        x = frame.across(marks.best)
        yield f'<line class="best" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}"/>'
        yield f'<text class="star middle" x="{x:.1f}" y="{top + 10}">★</text>'


def _band(series: Series, place: int, frame: Frame) -> Iterator[str]:
    if not any(series.errors):
        return
    pairs = list(zip(series.points, series.errors, strict=True))
    upper = [frame.at((x, y + error)) for (x, y), error in pairs]
    lower = [frame.at((x, y - error)) for (x, y), error in reversed(pairs)]
    yield f'<polygon class="band c{place % COLOURS}" points="{" ".join((*upper, *lower))}"/>'


def _line(series: Series, place: int, frame: Frame) -> str:
    style = f"line c{place % COLOURS}{' faint' if series.is_faint else ''}{' dashed' if series.is_dashed else ''}"
    if len(series.points) == 1:
        x, y = frame.at(series.points[0]).split(",")
        return f'<circle class="{style}" cx="{x}" cy="{y}" r="3"/>'
    return f'<polyline class="{style}" points="{" ".join(frame.at(point) for point in series.points)}"/>'


def _short(value: float) -> float:
    return float(f"{value:.5g}")
