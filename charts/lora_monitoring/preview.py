"""Draws a dashboard as a picture: its layout, units and legends, with recorded answers of Prometheus.

Close to what Grafana shows, and not Grafana: for a look at the pages where there is none. Used by
`benchmarks/dashboard_pictures.py`.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator

from lora_monitoring.canvas import INK, LINK, PALE, RULE, UNFILLED, Canvas, Place
from lora_monitoring.grafana import COLUMNS
from lora_monitoring.panels import Json
from lora_monitoring.shown import shown

Answers = dict[str, list[dict[str, Any]]]
"""Expression -> series, as Prometheus' HTTP interface gives them."""

WIDTH, HEAD, CELL, GAP = 1600, 64, 38, 8
"""Of the picture, its head, a row of the grid, and between panels, in pixels."""
LINE = 17
"""Height of a line of a legend, in pixels."""
LEGEND = 0.36
"""Width of a legend on the right, of the panel's."""
_COLORS = {
    "green": "#37872d", "yellow": "#e0b400", "orange": "#fa6400", "red": "#e02f44", "blue": "#1f60c4",
    "purple": "#8f3bb8", "gray": "#808080", "text": INK,
}  # fmt: skip
_PALETTE = ("#56a64b", "#e0b400", "#3274d9", "#ff780a", "#e02f44", "#a352cc", "#0097a7", "#7c6f64")
_CALCULATIONS: dict[str, tuple[str, Callable[[list[float]], float]]] = {
    "lastNotNull": ("Last *", lambda values: values[-1]),
    "max": ("Max", max),
    "mean": ("Mean", lambda values: sum(values) / len(values)),
    "sum": ("Total", sum),
}
_MINUTE = 60
_TIME_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)


@dataclass(frozen=True)
class Recording:
    """What a Prometheus answered to the queries of the dashboards, between two moments in seconds since the epoch."""

    start: float
    end: float
    answers: Answers
    choices: Mapping[str, str] = field(default_factory=dict)
    """Name of a variable -> the value that was asked with, where it is not its default."""


@dataclass(frozen=True)
class Series:
    """A line of a graph, or one value: moments and values without NaN."""

    name: str
    points: tuple[tuple[float, float], ...]

    @property
    def last(self) -> float:
        """The newest value."""
        return self.points[-1][1]


def draw(page: Json, recording: Recording) -> Canvas:
    """The picture of a dashboard's JSON."""
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in page["panels"])
    canvas = Canvas(WIDTH, HEAD + rows * CELL + GAP)
    _draw_head(canvas, page, recording)
    for panel in page["panels"]:
        grid, column = panel["gridPos"], (WIDTH - GAP) / COLUMNS
        place = Place(
            GAP + grid["x"] * column, HEAD + grid["y"] * CELL, grid["w"] * column - GAP, grid["h"] * CELL - GAP
        )
        if panel["type"] == "row":
            canvas.text(place.left + 4, place.top + 8, f"▾  {panel['title']}", size=15, weight="bold")
        else:
            _draw_panel(canvas, panel | {"marks": page["annotations"]["list"]}, place, recording)
    return canvas


def _draw_head(canvas: Canvas, page: Json, recording: Recording) -> None:
    canvas.text(12, 12, page["title"], size=19, weight="bold")
    words = []
    for one in page["templating"]["list"]:
        if one["type"] in ("query", "custom"):
            chosen = recording.choices.get(one["name"], one["current"]["text"])
            words.append(f"{one['label']}: {chosen if isinstance(chosen, str) else ', '.join(chosen)}")
    canvas.text(12, 40, "     ".join(words) or page["description"], color=PALE)
    canvas.text(WIDTH - 12, 16, f"{_time(recording.start)} to {_time(recording.end)} UTC", color=PALE, ha="right")


def _time(moment: float, style: str = "%H:%M") -> str:
    return datetime.fromtimestamp(moment, UTC).strftime(style)


def _draw_panel(canvas: Canvas, panel: Json, place: Place, recording: Recording) -> None:
    painters = {"timeseries": _draw_graph, "stat": _draw_stat, "bargauge": _draw_bars, "table": _draw_table}
    canvas.fill(place, "white", edgecolor=RULE, linewidth=1)
    canvas.text(place.left + 10, place.top + 8, panel["title"], size=13, weight="bold")
    inner = place.inside(10, 30, 10, 8)
    if _series(panel, recording):
        painters[panel["type"]](canvas, panel, inner, recording)
    else:
        canvas.text(inner.left + inner.width / 2, inner.top + inner.height / 2, "No data", color=PALE, ha="center")


def _series(panel: Json, recording: Recording) -> list[Series]:
    found = (
        Series(_legend(target["legendFormat"], answer["metric"]), _points(answer))
        for target in panel["targets"]
        for answer in recording.answers[target["expr"]]
    )
    return [one for one in found if one.points]


def _points(answer: Json) -> tuple[tuple[float, float], ...]:
    found = ((float(moment), float(value)) for moment, value in answer.get("values") or [answer["value"]])
    return tuple(point for point in found if not math.isnan(point[1]))


def _legend(template: str, labels: Mapping[str, str]) -> str:
    for name, value in labels.items():
        template = template.replace(f"{{{{{name}}}}}", value)
    return template


def _settings(panel: Json, name: str) -> Json:
    """Those of one series or column: the panel's, and over them those for this name."""
    found = dict(panel["fieldConfig"]["defaults"])
    for override in panel["fieldConfig"]["overrides"]:
        if override["matcher"]["options"] == name:
            found |= {one["id"]: one["value"] for one in override["properties"]}
    return found


def _mapped(settings: Json, value: float | str) -> Json | None:
    return next((one["options"].get(str(value)) for one in settings["mappings"]), None)


def _words(settings: Json, value: float | str) -> str:
    if isinstance(value, str):
        return str((_mapped(settings, value) or {"text": value})["text"])
    return shown(value, settings["unit"], settings.get("decimals"))


def _step_color(settings: Json, value: float) -> str:
    reached = [step for step in settings["thresholds"]["steps"] if step["value"] is None or value >= step["value"]]
    return _COLORS[reached[-1]["color"]]


def _line_color(panel: Json, name: str, index: int) -> str:
    fixed = _settings(panel, name)["color"].get("fixedColor")
    return _COLORS[fixed] if fixed else _PALETTE[index % len(_PALETTE)]


def _draw_graph(canvas: Canvas, panel: Json, place: Place, recording: Recording) -> None:
    series, defaults = _series(panel, recording), panel["fieldConfig"]["defaults"]
    if panel["options"]["legend"]["placement"] == "right":
        lines, graph = int(place.height // LINE) - 1, place.inside(66, 2, place.width * LEGEND + 16, 24)
        legend = place.inside(place.width * (1 - LEGEND), 0, 0, 0)
    else:
        lines = min(len(series), int((place.height - 110) // LINE))
        graph = place.inside(66, 2, 8, (lines + 1) * LINE + 24)
        legend = place.inside(0, place.height - (lines + 1) * LINE, 0, 0)
    axes = canvas.axes(graph)
    bottoms: dict[float, float] = {}
    for index, one in enumerate(series):
        moments, values = zip(*one.points, strict=True)
        color = _line_color(panel, one.name, index)
        if defaults["custom"]["stacking"]["mode"] == "normal":
            below = [bottoms.get(moment, 0.0) for moment in moments]
            values = tuple(value + base for value, base in zip(values, below, strict=True))
            axes.fill_between(moments, below, values, color=color, alpha=0.3, linewidth=0)
            bottoms |= zip(moments, values, strict=True)
        axes.plot(moments, values, color=color, linewidth=1.5)
    _set_scales(axes, defaults, graph.width, recording)
    for mark in panel["marks"]:
        for moment in _begins(recording, mark["target"]["expr"]):
            axes.axvline(moment, color=_COLORS[mark["iconColor"]], linewidth=0.8, linestyle=(0, (2, 2)))
    _draw_legend(canvas, panel, legend, series[:lines])


def _set_scales(axes: Axes, defaults: Json, width: float, recording: Recording) -> None:
    low, high = axes.get_ylim()
    low = defaults.get("min", low)
    if axes.dataLim.ymax <= low:
        high = low + 1
    axes.set(xlim=(recording.start, recording.end), ylim=(low, defaults.get("max", high)))
    axes.yaxis.set_major_locator(_steps(defaults, (high - low) / 4))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: shown(value, defaults["unit"])))
    step = _time_step((recording.end - recording.start) * 90 / width)
    axes.xaxis.set_major_locator(MultipleLocator(step))
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda moment, _: _time(moment, "%H:%M" if step >= _MINUTE else "%H:%M:%S"))
    )
    axes.grid(color=RULE, linewidth=0.7)
    axes.set_axisbelow(True)
    if defaults["custom"]["thresholdsStyle"]["mode"] == "dashed":
        for mark in defaults["thresholds"]["steps"][1:]:
            if low <= mark["value"] <= axes.get_ylim()[1]:
                axes.axhline(mark["value"], color=_COLORS[mark["color"]], linewidth=1, linestyle="--")


def _steps(defaults: Json, least: float) -> MaxNLocator | MultipleLocator:
    """Where lines are drawn across: at round times, round numbers of bytes, or round numbers."""
    if defaults["unit"] == "dtdhms":
        return MultipleLocator(_time_step(least))
    if defaults["unit"] == "bytes":
        return MultipleLocator(2.0 ** math.ceil(math.log2(least)))
    return MaxNLocator(5, integer=defaults.get("decimals") == 0)


def _time_step(least: float) -> float:
    return next((step for step in _TIME_STEPS if step >= least), 86400.0 * math.ceil(least / 86400))


def _begins(recording: Recording, expression: str) -> Iterator[float]:
    """When the expression began to have a result."""
    pause = (recording.end - recording.start) / 100
    for answer in recording.answers.get(expression, ()):
        before = -math.inf
        for moment, _ in _points(answer):
            if moment - before > pause:
                yield moment
            before = moment


def _draw_legend(canvas: Canvas, panel: Json, place: Place, series: list[Series]) -> None:
    right = place.left + place.width
    for index, one in enumerate(series):
        top = place.top + (index + 1) * LINE
        canvas.fill(Place(place.left, top + 5, 14, 4), _line_color(panel, one.name, index))
        canvas.text(place.left + 20, top, one.name, size=11)
    for calculation in reversed(panel["options"]["legend"]["calcs"]):
        title, calculate = _CALCULATIONS[calculation]
        canvas.text(right, place.top, title, size=11, color=LINK, ha="right")
        for index, one in enumerate(series):
            words = _words(_settings(panel, one.name), calculate([value for _, value in one.points]))
            canvas.text(right, place.top + (index + 1) * LINE, words, size=11, ha="right")
        right -= 110


def _draw_stat(canvas: Canvas, panel: Json, place: Place, recording: Recording) -> None:
    series = _series(panel, recording)
    width = place.width / len(series)
    longest = max(4, *(len(_words(_settings(panel, one.name), one.last)) for one in series))
    for index, one in enumerate(series):
        settings, left = _settings(panel, one.name), place.left + index * width
        color = _step_color(settings, one.last)
        if len(one.points) > 1:
            axes = canvas.axes(Place(left, place.top + place.height * 0.65, width - 6, place.height * 0.35))
            axes.set_axis_off()
            moments, values = zip(*one.points, strict=True)
            axes.fill_between(moments, values, color=color, alpha=0.15, linewidth=0)
        if len(series) > 1:
            canvas.text(left, place.top, one.name, size=min(12, 1.5 * width / len(one.name)), color=PALE)
        size = min(34, 1.35 * width / longest)
        middle = place.top + place.height * 0.4
        canvas.text(left, middle, _words(settings, one.last), size=size, color=color, va="center", weight="bold")


def _draw_bars(canvas: Canvas, panel: Json, place: Place, recording: Recording) -> None:
    series = _series(panel, recording)
    largest = max(one.last for one in series) or 1
    height = min(48.0, place.height / len(series))
    for index, one in enumerate(series):
        settings, top = _settings(panel, one.name), place.top + index * height
        color, bar = _step_color(settings, one.last), Place(place.left, top + 18, place.width - 90, height - 24)
        canvas.text(place.left, top, one.name, size=11)
        canvas.fill(bar, UNFILLED)
        canvas.fill(bar.share(one.last / largest), color)
        canvas.text(place.left + place.width, bar.top, _words(settings, one.last), color=color, ha="right")


def _draw_table(canvas: Canvas, panel: Json, place: Place, recording: Recording) -> None:
    titles: dict[str, str] = panel["transformations"][-1]["options"]["renameByName"]
    given = {title: _settings(panel, title).get("custom.width") for title in titles.values()}
    spare = (place.width - sum(filter(None, given.values()))) / sum(width is None for width in given.values())
    rows, left = _rows(panel, recording), place.left
    for name, title in titles.items():
        width = given[title] or spare
        canvas.text(left + 6, place.top, title, color=LINK)
        for index, row in enumerate(rows):
            if name in row:
                cell = Place(left, place.top + 26 + index * 30, width - 4, 26)
                _draw_cell(canvas, _settings(panel, title), cell, row[name])
        left += width


def _rows(panel: Json, recording: Recording) -> list[dict[str, float | str]]:
    """The answers joined by namespace and name."""
    rows: dict[tuple[str, str], dict[str, float | str]] = {}
    for target in panel["targets"]:
        for answer in recording.answers[target["expr"]]:
            labels = answer["metric"]
            row = rows.setdefault((labels["namespace"], labels["name"]), {})
            row |= {**labels, f"Value #{target['refId']}": _points(answer)[-1][1]}
    return [rows[key] for key in sorted(rows)]


def _draw_cell(canvas: Canvas, settings: Json, place: Place, value: float | str) -> None:
    kind, mapped = settings.get("custom.cellOptions", {}).get("type"), _mapped(settings, value)
    words, left, color = _words(settings, value), place.left + 6, INK
    if kind == "color-background" and mapped and mapped["color"] != "text":
        canvas.fill(place, _COLORS[mapped["color"]])
        color = "white"
    if kind == "gauge" and isinstance(value, float):
        bar = place.inside(6, 6, 60, 6)
        canvas.fill(bar, UNFILLED)
        canvas.fill(bar.share(value / settings["max"]), _step_color(settings, value))
        left = bar.left + bar.width + 8
    canvas.text(left, place.top + 6, words, color=color)
