"""Line charts as SVG."""

import json
from html import unescape
from xml.etree import ElementTree

import pytest

from lora_trainer.report.charts import HEIGHT, WIDTH, Marks, draw_chart, label, ticks
from lora_trainer.report.series import Series

CURVE = Series("line_held_out", ((0.0, 1.0), (1.0, 0.5), (4.0, 0.75)), errors=(0.0, 0.1, 0.1))


def drawn(*series: Series, marks: Marks | None = None) -> ElementTree.Element:
    return ElementTree.fromstring(draw_chart(series, x_word="epoch", marks=marks or Marks()))


def points(svg: ElementTree.Element, name: str) -> list[tuple[float, float]]:
    (shape,) = (one for one in svg if name in (one.get("class") or "").split() and one.get("points"))
    return [(float(x), float(y)) for x, y in (pair.split(",") for pair in (shape.get("points") or "").split())]


def test_a_curve_keeps_its_proportions() -> None:
    (x0, y0), (x1, y1), (x4, y4) = points(drawn(CURVE), "line")

    assert (x1 - x0) / (x4 - x0) == pytest.approx(0.25, abs=0.01)
    assert (y4 - y0) / (y1 - y0) == pytest.approx(0.5, abs=0.01)


def test_everything_lies_inside_the_drawing() -> None:
    svg = drawn(CURVE, marks=Marks(level=2.0))

    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in points(svg, "line") + points(svg, "band"))


def test_the_band_is_one_error_to_both_sides() -> None:
    svg = drawn(CURVE)
    (_, top), (_, low) = points(svg, "line")[:2]
    per_unit = (low - top) / 0.5

    upper, lower = points(svg, "band")[1][1], points(svg, "band")[4][1]

    assert (lower - upper) / per_unit == pytest.approx(0.2, abs=0.01)


def test_the_best_epoch_is_marked_where_it_is() -> None:
    svg = drawn(CURVE, marks=Marks(best=1))

    (line,) = (one for one in svg if one.get("class") == "best")

    assert float(line.get("x1") or 0) == pytest.approx(points(svg, "line")[1][0])


def test_a_usable_window_of_one_epoch_can_be_seen() -> None:
    svg = drawn(CURVE, marks=Marks(window=(1, 1)))

    (window,) = (one for one in svg if one.get("class") == "window")

    assert float(window.get("width") or 0) >= 8


def test_a_single_point_is_a_dot() -> None:
    assert [one.tag for one in drawn(Series("x", ((1.0, 0.0),))) if "line" in (one.get("class") or "").split()] == [
        "circle"
    ]


def test_the_script_finds_the_values_in_the_drawing() -> None:
    data = json.loads(unescape(drawn(CURVE).get("data-chart") or ""))

    assert data["lines"] == [{"points": [[0.0, 1.0], [1.0, 0.5], [4.0, 0.75]], "errors": [0.0, 0.1, 0.1]}]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 10, [0, 2, 4, 6, 8, 10]), (0.0012, 0.0031, [0.0015, 0.002, 0.0025, 0.003]), (-1, 1, [-1, -0.5, 0, 0.5, 1])],
)
def test_ticks_are_round_numbers(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("value", "shown"), [(0, "0"), (0.61234, "0.6123"), (2.5e-5, "2.5e-5"), (12000, "1.2e4"), (40, "40")]
)
def test_numbers_are_told_shortly(value: float, shown: str) -> None:
    assert label(value) == shown
