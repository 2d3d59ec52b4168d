"""Pictures of the dashboards, of made-up answers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle
from PIL import Image

from lora_monitoring.__main__ import dashboards
from lora_monitoring.canvas import Canvas
from lora_monitoring.grafana import Dashboard, Mark, Section
from lora_monitoring.panels import Bars, Json, Mapped, Override, Panel, Query, Scale, Stat, Step, Table, TimeSeries
from lora_monitoring.preview import Answers, Recording, draw
from lora_monitoring.shown import shown

PAGES = dashboards()
PICTURES = Path(__file__).parents[2] / "docs" / "images" / "dashboards"
GREEN, ORANGE = "#37872d", "#fa6400"


def answer(*values: float | str, name: str = "hina", **labels: str) -> Json:
    """A series with one value a minute."""
    metric = {"namespace": "ml", "name": name, **labels}
    return {"metric": metric, "values": [[60.0 * minute, str(value)] for minute, value in enumerate(values)]}


def picture(panel: Panel, answers: Answers, *marks: Mark) -> Canvas:
    page = Dashboard("x", "Page", "What it is about.", (Section("Row", (panel,)),), marks=marks)
    return draw(page.to_json(), Recording(0, 600, answers))


def words(canvas: Canvas) -> list[str]:
    return [text.get_text() for text in canvas.figure.texts]


def color_of(canvas: Canvas, text: str) -> str:
    [found] = [one for one in canvas.figure.texts if one.get_text() == text]
    return to_hex(found.get_color())


def lines(axes: Axes, coordinate: str = "y") -> list[list[float]]:
    return [np.asarray(line.get_data()["xy".index(coordinate)]).tolist() for line in axes.lines]


def graph(**fields: Any) -> TimeSeries:
    return TimeSeries("Loss", "", (Query("loss", "{{namespace}}/{{name}}"),), **fields)


@pytest.mark.parametrize(
    ("value", "unit", "decimals", "expected"),
    [
        (0, "none", None, "0"),
        (1234.5, "none", 1, "1234.5"),
        (0.01234, "short", None, "0.0123"),
        (12345, "short", None, "12.3 K"),
        (0.256, "percentunit", 0, "26%"),
        (0.0421, "s", None, "42.1 ms"),
        (90, "s", None, "1.5 mins"),
        (3725.9, "dtdhms", None, "01:02:05"),
        (90061, "dtdhms", None, "1 d 01:01:01"),
        (1536, "bytes", None, "1.5 KiB"),
        (1500, "Bps", None, "1.5 kB/s"),
        (0.5, "reqps", None, "0.5 req/s"),
        (1.5e-3, "sci", None, "1.5e-3"),
        (float("nan"), "none", None, "NaN"),
    ],
)
def test_a_number_is_shown_with_its_unit(value: float, unit: str, decimals: int | None, expected: str) -> None:
    assert shown(value, unit, decimals) == expected


@pytest.mark.parametrize("name", PAGES)
def test_every_dashboard_can_be_drawn(name: str, tmp_path: Path) -> None:
    two = [answer(1, 2, 3, phase="Running", reason="Training"), answer(4, "NaN", 6, name="rin", phase="Failed")]
    page = PAGES[name].to_json()
    answers = {target["expr"]: two for panel in page["panels"] for target in panel.get("targets", ())}
    file = tmp_path / "page.webp"

    canvas = draw(page, Recording(0, 180, answers))
    canvas.write(file)

    titles = {panel["title"] for panel in page["panels"] if panel["type"] != "row"}
    assert titles <= set(words(canvas))
    assert "No data" not in words(canvas)
    with Image.open(file) as drawn:
        assert (drawn.format, drawn.width) == ("WEBP", 1600)


def test_a_panel_without_an_answer_says_so() -> None:
    assert "No data" in words(picture(graph(), {"loss": []}))
    assert "No data" in words(picture(graph(), {"loss": [answer("NaN")]}))


def test_a_graph_has_a_line_and_an_entry_of_the_legend_for_each_series() -> None:
    loss = [answer(3, 1, 2), answer(5, 5, 4, name="rin")]

    canvas = picture(
        graph(calculations=("lastNotNull", "max", "mean"), scale=Scale("none", decimals=1)), {"loss": loss}
    )

    [axes] = canvas.figure.axes
    assert lines(axes) == [[3, 1, 2], [5, 5, 4]]
    assert axes.get_xlim() == (0, 600)
    shown_words = words(canvas)
    assert {"ml/hina", "ml/rin", "Last *", "Max", "Mean", "2.0", "3.0", "4.0", "5.0", "4.7"} <= set(shown_words)


def test_stacked_lines_lie_over_each_other() -> None:
    canvas = picture(graph(stacked=True), {"loss": [answer(3, 1), answer(5, 4, name="rin")]})

    [axes] = canvas.figure.axes
    assert lines(axes) == [[3, 1], [8, 5]]


def test_a_graph_of_zeros_lies_at_the_bottom() -> None:
    [axes] = picture(graph(scale=Scale(minimum=0)), {"loss": [answer(0, 0)]}).figure.axes

    assert axes.get_ylim() == (0, 1)


def test_a_mark_is_drawn_where_its_expression_begins_to_hold() -> None:
    mark = Mark("Best", "best", "", "green")
    best = {"metric": {"name": "hina"}, "values": [[60, "1"], [61, "1"], [300, "1"], [301, "1"]]}

    [axes] = picture(graph(), {"loss": [answer(1, 2)], "best": [best]}, mark).figure.axes

    assert lines(axes, "x")[1:] == [[60, 60], [300, 300]]


def test_a_number_has_the_colour_of_its_step() -> None:
    steps = (Step(None, "green"), Step(3, "orange"))
    stat = Stat("Failed", "", (Query("failed", "{{name}}"),), scale=Scale("none", decimals=0, steps=steps))

    canvas = picture(stat, {"failed": [answer(9, 2), answer(3, name="rin")]})

    assert (color_of(canvas, "2"), color_of(canvas, "3")) == (GREEN, ORANGE)
    assert {"hina", "rin"} <= set(words(canvas))


def test_the_longest_bar_is_full() -> None:
    bars = Bars("Time", "", (Query("time", "{{name}}"),), scale=Scale("none"))

    canvas = picture(bars, {"time": [answer(8), answer(2, name="rin")]})

    bars_drawn = [one for one in canvas.figure.findobj(Rectangle) if to_hex(one.get_facecolor()) == GREEN]
    filled = [one.get_width() for one in bars_drawn]
    assert filled[1] / filled[0] == pytest.approx(0.25)


def test_a_table_joins_its_answers_and_shows_values_as_they_are_mapped() -> None:
    running = Mapped("Running", "Runs", "green")
    table = Table(
        "Trainings",
        "",
        (Query("state", as_table=True), Query("done", as_table=True)),
        width=24,
        columns={"name": "Training", "phase": "Phase", "Value #B": "Done"},
        overrides=(
            Override("Phase", mapped=(running,), cell="color-background"),
            Override("Done", unit="percentunit", maximum=1, cell="gauge"),
        ),
    )

    canvas = picture(
        table, {"state": [answer(1, phase="Running"), answer(1, name="rin", phase="x")], "done": [answer(0.5)]}
    )

    assert words(canvas)[-8:] == ["Training", "hina", "rin", "Phase", "Runs", "x", "Done", "50%"]


def test_a_choice_is_told_as_it_was_asked() -> None:
    recording = Recording(
        0,
        60,
        {target.expression: [] for panel in PAGES["runs"].panels for target in panel.queries},
        {"smoothing": "5m"},
    )

    assert "Namespace: All     Training: All     Smoothing: 5m" in words(draw(PAGES["runs"].to_json(), recording))


@pytest.mark.parametrize("name", PAGES)
def test_the_documentation_has_a_small_picture_of_each_dashboard(name: str) -> None:
    file = PICTURES / f"{name}.webp"

    assert file.stat().st_size < 250_000
    with Image.open(file) as drawn:
        assert drawn.width == 1600
