"""A dashboard of Grafana as a typed value: sections of panels, variables, marks. Used by the dashboards' modules."""

from dataclasses import dataclass

from lora_monitoring.panels import SOURCE, Color, Json, Panel

SCHEMA_VERSION = 39
COLUMNS = 24


@dataclass(frozen=True)
class Section:
    """Panels under a headline, from left to right as they fit."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Variable:
    """A choice at the head of a dashboard."""

    name: str
    label: str
    query: str
    """PromQL `label_values(…)`."""
    description: str

    def to_json(self) -> Json:
        """A query variable; several values or all of them may be chosen."""
        return {
            "name": self.name,
            "label": self.label,
            "description": self.description,
            "type": "query",
            "datasource": SOURCE,
            "query": {"query": self.query, "refId": f"{self.name}-values"},
            "refresh": 2,
            "regex": "",
            "sort": 1,
            "multi": True,
            "includeAll": True,
            "allValue": ".*",
            "current": {"text": ["All"], "value": ["$__all"]},
            "options": [],
            "hide": 0,
            "skipUrlSync": False,
        }


@dataclass(frozen=True)
class Choice:
    """A variable with a few fixed values; the first is the default."""

    name: str
    label: str
    values: tuple[str, ...]
    description: str

    def to_json(self) -> Json:
        """A custom variable."""
        options = [{"text": v, "value": v, "selected": v == self.values[0]} for v in self.values]
        return {
            "name": self.name,
            "label": self.label,
            "description": self.description,
            "type": "custom",
            "query": ",".join(self.values),
            "multi": False,
            "includeAll": False,
            "current": options[0],
            "options": options,
            "hide": 0,
            "skipUrlSync": False,
        }


@dataclass(frozen=True)
class Mark:
    """Moments that are marked in every graph: when the expression has a result."""

    name: str
    expression: str
    text: str
    color: Color

    def to_json(self) -> Json:
        """An annotation from Prometheus."""
        return {
            "name": self.name,
            "datasource": SOURCE,
            "enable": True,
            "hide": False,
            "iconColor": self.color,
            "target": {"refId": "Anno", "expr": self.expression, "interval": "30s"},
            "titleFormat": self.name,
            "textFormat": self.text,
            "tagKeys": "name",
            "useValueForTime": False,
        }


@dataclass(frozen=True)
class Dashboard:
    """A page of Grafana."""

    uid: str
    title: str
    description: str
    sections: tuple[Section, ...]
    variables: tuple[Variable | Choice, ...] = ()
    marks: tuple[Mark, ...] = ()
    range: str = "now-6h"

    @property
    def panels(self) -> tuple[Panel, ...]:
        """All panels, top to bottom."""
        return tuple(panel for section in self.sections for panel in section.panels)

    def to_json(self) -> Json:
        """The JSON that Grafana imports."""
        return {
            "uid": self.uid,
            "title": self.title,
            "description": self.description,
            "tags": ["lora-operator"],
            "schemaVersion": SCHEMA_VERSION,
            "version": 1,
            "editable": True,
            "graphTooltip": 1,
            "fiscalYearStartMonth": 0,
            "weekStart": "",
            "timezone": "browser",
            "refresh": "30s",
            "time": {"from": self.range, "to": "now"},
            "timepicker": {},
            "links": [_link_to_others()],
            "annotations": {"list": [mark.to_json() for mark in self.marks]},
            "templating": {"list": [_source_variable(), *(variable.to_json() for variable in self.variables)]},
            "panels": _laid_out(self.sections),
        }


def _link_to_others() -> Json:
    return {
        "title": "LoRA dashboards",
        "type": "dashboards",
        "tags": ["lora-operator"],
        "asDropdown": True,
        "includeVars": True,
        "keepTime": True,
        "icon": "external link",
        "targetBlank": False,
        "tooltip": "",
        "url": "",
    }


def _source_variable() -> Json:
    return {
        "name": "datasource",
        "label": "Data source",
        "description": "The Prometheus that scrapes operator and training pods.",
        "type": "datasource",
        "query": "prometheus",
        "refresh": 1,
        "regex": "",
        "multi": False,
        "includeAll": False,
        "options": [],
        "hide": 0,
        "skipUrlSync": False,
    }


def _laid_out(sections: tuple[Section, ...]) -> list[Json]:
    """Panels in a grid of 24 columns, each section under a line of its own."""
    found: list[Json] = []
    top = 0
    for section in sections:
        place = {"x": 0, "y": top, "w": COLUMNS, "h": 1}
        found.append(
            {"id": len(found) + 1, "type": "row", "title": section.title, "collapsed": False, "gridPos": place}
            | {"panels": []}
        )
        top, left, height = top + 1, 0, 0
        for panel in section.panels:
            if left + panel.width > COLUMNS:
                top, left, height = top + height, 0, 0
            place = {"x": left, "y": top, "w": panel.width, "h": panel.height}
            found.append(panel.to_json(len(found) + 1, place))
            left, height = left + panel.width, max(height, panel.height)
        top += height
    return found
