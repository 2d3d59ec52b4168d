"""What the panels of the dashboards ask Prometheus, and what it answers."""

from collections.abc import Iterator
from dataclasses import dataclass

from lora_monitoring.grafana import Dashboard
from lora_monitoring.panels import Query
from tests.support.prometheus import query, query_range

CHOICES = {
    "$__rate_interval": "30s",
    "$__range": "10m",
    "$namespace": ".*",
    "$training": ".*",
    "$smoothing": "1m",
}
"""What Grafana puts in the place of its variables."""


@dataclass(frozen=True)
class Answer:
    """One query of a panel, and how many series came back."""

    dashboard: str
    panel: str
    expression: str
    series: int

    def __str__(self) -> str:
        return f"| {self.dashboard} | {self.panel} | {self.series} | `{self.expression}` |"


def filled_in(expression: str) -> str:
    """The expression as Grafana sends it."""
    for name, value in CHOICES.items():
        expression = expression.replace(name, value)
    return expression


def expressions(dashboard: Dashboard) -> Iterator[tuple[str, Query]]:
    """Every query with the title of its panel."""
    for panel in dashboard.panels:
        for asked in panel.queries:
            yield panel.title, asked


def ask(dashboard: Dashboard, url: str, *, seconds: float) -> list[Answer]:
    """What Prometheus answers to each query: now, or over the last seconds where a graph is drawn."""
    answers = []
    for panel, asked in expressions(dashboard):
        expression = filled_in(asked.expression)
        found = query(url, expression) if asked.instant else query_range(url, expression, seconds=seconds)
        told = [series for series in found if _has_number(series)]
        answers.append(Answer(dashboard.title, panel, expression, len(told)))
    return answers


def _has_number(series: dict[str, object]) -> bool:
    """Whether any of its values is a number: NaN draws nothing."""
    points = series.get("values") or [series["value"]]
    assert isinstance(points, list)
    return any(value != "NaN" for _, value in points)
