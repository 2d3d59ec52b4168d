"""An alert of Prometheus as a typed value, and the groups of a rule file. Used by `alerts`."""

from dataclasses import dataclass
from typing import Any, Literal

Severity = Literal["critical", "warning", "info"]

RUNBOOKS = "docs/runbooks"
"""Where the pages lie in the repository; the chart puts an address in its place if it is given one."""


@dataclass(frozen=True)
class Alert:
    """One alert: what it looks at, for how long, and whom it wakes."""

    name: str
    expression: str
    severity: Severity
    summary: str
    """One line: what is wrong with what."""
    description: str
    """What it means and what to do first."""
    wait: str = "0m"
    """For how long the expression has to hold."""

    def to_json(self) -> dict[str, Any]:
        """The rule as Prometheus reads it."""
        return {
            "alert": self.name,
            "expr": self.expression,
            "for": self.wait,
            "labels": {"severity": self.severity},
            "annotations": {
                "summary": self.summary,
                "description": self.description,
                "runbook_url": f"{RUNBOOKS}/{self.name}.md",
            },
        }


@dataclass(frozen=True)
class Group:
    """Alerts that are looked at together."""

    name: str
    alerts: tuple[Alert, ...]

    def to_json(self) -> dict[str, Any]:
        """The group as Prometheus reads it."""
        return {"name": self.name, "rules": [alert.to_json() for alert in self.alerts]}
