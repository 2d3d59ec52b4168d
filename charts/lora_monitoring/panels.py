"""The panels of Grafana that our dashboards are made of, as typed values. Put together by `grafana`.

Schema: https://grafana.com/docs/grafana/latest/dashboards/build-dashboards/view-dashboard-json-model/ ;
`benchmarks/dashboard_types.py` checks what comes out against the types of npm's @grafana/schema.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

Json = dict[str, Any]
Calculation = Literal["lastNotNull", "max", "mean", "sum"]
Color = Literal["green", "yellow", "orange", "red", "blue", "purple", "gray", "text"]

SOURCE: Json = {"type": "prometheus", "uid": "${datasource}"}
"""The data source that is chosen at the head of the dashboard."""


@dataclass(frozen=True)
class Query:
    """One PromQL expression of a panel."""

    expression: str
    legend: str = ""
    instant: bool = False
    """Only the newest value is asked for."""
    as_table: bool = False
    """Labels become columns."""

    def to_json(self, letter: str) -> Json:
        """A target; `letter` is its reference within the panel."""
        return {
            "refId": letter,
            "datasource": SOURCE,
            "editorMode": "code",
            "expr": self.expression,
            "legendFormat": self.legend,
            "instant": self.instant,
            "range": not self.instant,
            "format": "table" if self.as_table else "time_series",
        }


@dataclass(frozen=True)
class Step:
    """From this value on there is this colour; None: from the lowest."""

    value: float | None
    color: Color


@dataclass(frozen=True)
class Mapped:
    """How one value is shown."""

    value: str
    text: str
    color: Color


@dataclass(frozen=True)
class Override:
    """What differs for series of one name, or for one column of a table."""

    name: str
    unit: str | None = None
    color: Color | None = None
    width: int | None = None
    cell: Literal["gauge", "color-background"] | None = None
    mapped: tuple[Mapped, ...] = ()
    decimals: int | None = None
    maximum: float | None = None

    def to_json(self) -> Json:
        """One entry of `fieldConfig.overrides`."""
        properties: dict[str, Any] = {
            "unit": self.unit,
            "color": self.color and {"mode": "fixed", "fixedColor": self.color},
            "decimals": self.decimals,
            "max": self.maximum,
            "mappings": _mappings(self.mapped) or None,
            "custom.width": self.width,
            "custom.cellOptions": self.cell and _cell(self.cell),
        }
        return {
            "matcher": {"id": "byName", "options": self.name},
            "properties": [{"id": name, "value": value} for name, value in properties.items() if value is not None],
        }


def _cell(kind: str) -> Json:
    return {"type": "gauge", "mode": "gradient", "valueDisplayMode": "text"} if kind == "gauge" else {"type": kind}


def _mappings(mapped: tuple[Mapped, ...]) -> list[Json]:
    options = {entry.value: {"text": entry.text, "color": entry.color, "index": i} for i, entry in enumerate(mapped)}
    return [{"type": "value", "options": options}] if mapped else []


@dataclass(frozen=True)
class Scale:
    """What the numbers of a panel are and mean."""

    unit: str = "short"
    """Grafana's name of the unit, such as `s`, `bytes` or `percentunit`."""
    decimals: int | None = None
    minimum: float | None = None
    maximum: float | None = None
    steps: tuple[Step, ...] = (Step(None, "green"),)
    mapped: tuple[Mapped, ...] = ()


@dataclass(frozen=True)
class Panel(ABC):
    """What all panels have."""

    kind: ClassVar[str]
    """Name of the panel's plugin."""

    title: str
    description: str
    queries: tuple[Query, ...]
    width: int = 8
    """Of 24 columns."""
    height: int = 8
    scale: Scale = Scale()
    overrides: tuple[Override, ...] = ()

    @abstractmethod
    def options(self) -> Json:
        """Options of the panel's plugin."""

    def custom(self) -> Json:
        """Options of each series or column."""
        return {}

    def color_mode(self) -> str:
        """How a value gets its colour."""
        return "thresholds"

    def transformations(self) -> list[Json]:
        """What is done to the answers before they are shown."""
        return []

    def to_json(self, number: int, place: Json) -> Json:
        """The panel at `place` of the grid."""
        return {
            "id": number,
            "type": self.kind,
            "title": self.title,
            "description": self.description,
            "datasource": SOURCE,
            "gridPos": place,
            "targets": [query.to_json(chr(ord("A") + i)) for i, query in enumerate(self.queries)],
            "fieldConfig": {"defaults": self._defaults(), "overrides": [o.to_json() for o in self.overrides]},
            "options": self.options(),
            "transformations": self.transformations(),
        }

    def _defaults(self) -> Json:
        scale = self.scale
        numbers = {"decimals": scale.decimals, "min": scale.minimum, "max": scale.maximum}
        return {
            "unit": scale.unit,
            **{name: value for name, value in numbers.items() if value is not None},
            "color": {"mode": self.color_mode()},
            "mappings": _mappings(scale.mapped),
            "thresholds": {
                "mode": "absolute",
                "steps": [{"value": step.value, "color": step.color} for step in scale.steps],
            },
            "custom": self.custom(),
        }


@dataclass(frozen=True)
class TimeSeries(Panel):
    """Lines over time."""

    stacked: bool = False
    log_scale: bool = False
    points: bool = False
    calculations: tuple[Calculation, ...] = ("lastNotNull",)
    legend: Literal["bottom", "right"] = "bottom"
    """On the right many names leave the graph its height."""

    kind = "timeseries"

    def color_mode(self) -> str:
        """Each line has a colour of its own."""
        return "palette-classic"

    def custom(self) -> Json:
        """How lines are drawn."""
        distribution: Json = {"type": "log", "log": 10} if self.log_scale else {"type": "linear"}
        marked = len(self.scale.steps) > 1
        return {
            "drawStyle": "line",
            "lineWidth": 2,
            "lineInterpolation": "linear",
            "fillOpacity": 25 if self.stacked else 8,
            "gradientMode": "opacity",
            "showPoints": "auto" if self.points else "never",
            "pointSize": 6,
            "spanNulls": True,
            "scaleDistribution": distribution,
            "stacking": {"mode": "normal" if self.stacked else "none", "group": "A"},
            "thresholdsStyle": {"mode": "dashed" if marked else "off"},
        }

    def options(self) -> Json:
        """A legend with numbers, one tooltip for all lines."""
        return {
            "legend": {
                "showLegend": True,
                "displayMode": "table",
                "placement": self.legend,
                "calcs": list(self.calculations),
            },
            "tooltip": {"mode": "multi", "sort": "desc"},
        }


@dataclass(frozen=True)
class Stat(Panel):
    """One large number."""

    kind = "stat"

    def options(self) -> Json:
        """The newest value, coloured as its steps say."""
        return {
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "orientation": "auto",
            "textMode": "auto",
            "colorMode": "value",
            "graphMode": "area",
            "justifyMode": "auto",
            "wideLayout": True,
            "showPercentChange": False,
            "percentChangeColorMode": "standard",
        }


@dataclass(frozen=True)
class Bars(Panel):
    """A bar for each series, longest first as the query sorts them."""

    kind = "bargauge"

    def options(self) -> Json:
        """Bars that lie, with their names and values."""
        return {
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "orientation": "horizontal",
            "displayMode": "gradient",
            "valueMode": "color",
            "namePlacement": "auto",
            "showUnfilled": True,
            "sizing": "auto",
            "minVizWidth": 8,
            "minVizHeight": 16,
            "maxVizHeight": 300,
            "legend": {"showLegend": False, "displayMode": "list", "placement": "bottom", "calcs": []},
        }


@dataclass(frozen=True)
class Table(Panel):
    """One line for each training: the queries are joined by namespace and name."""

    columns: Mapping[str, str] = field(default_factory=dict)
    """Field of the joined answers -> title, in the order in which they are shown; all others are hidden."""
    sort_by: str = ""

    kind = "table"

    def custom(self) -> Json:
        """Columns that can be filtered."""
        return {"align": "auto", "filterable": True, "cellOptions": {"type": "auto"}, "inspect": False}

    def options(self) -> Json:
        """A head, and one line after the other."""
        sort = [{"displayName": self.sort_by, "desc": True}] if self.sort_by else []
        return {"frameIndex": 0, "showHeader": True, "cellHeight": "sm", "sortBy": sort}

    def transformations(self) -> list[Json]:
        """Joins the answers by an outer join on the training, and gives columns names and order."""
        order = {name: index for index, name in enumerate(self.columns)}
        keep = {"include": {"names": list(self.columns)}}
        return [
            {"id": "merge", "options": {}},
            {"id": "filterFieldsByName", "options": keep},
            {
                "id": "organize",
                "options": {"indexByName": order, "renameByName": dict(self.columns), "excludeByName": {}},
            },
        ]
