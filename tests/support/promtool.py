"""Unit tests of alerts and expressions by `promtool test rules`."""

import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.prometheus import program

ALERTS = Path(__file__).parents[2] / "charts" / "lora-operator" / "files" / "alerts.yaml"


@dataclass(frozen=True)
class Firing:
    """An alert as Alertmanager gets it."""

    labels: dict[str, str]
    annotations: dict[str, str]


@dataclass(frozen=True)
class Case:
    """What is exported, one value a minute, and what an alert makes of it at some minute."""

    alert: str
    series: dict[str, str]
    """Series -> values in promtool's notation, such as `1x60`."""
    minutes: int
    expected: tuple[Firing, ...] = field(default=())


def judge(case: Case, folder: Path, rules: Path = ALERTS) -> str:
    """What promtool finds wrong; nothing when the alert behaves as expected."""
    expected = [{"exp_labels": firing.labels, "exp_annotations": firing.annotations} for firing in case.expected]
    test = {"eval_time": f"{case.minutes}m", "alertname": case.alert, "exp_alerts": expected}
    return _run(folder, case.series, {"alert_rule_test": [test]}, rules=[str(rules)])


def evaluate(expression: str, series: dict[str, str], *, minutes: int, samples: dict[str, float], folder: Path) -> str:
    """What promtool finds wrong with the expression's result; `samples`: labels -> value."""
    expected = [{"labels": labels, "value": value} for labels, value in samples.items()]
    test = {"eval_time": f"{minutes}m", "expr": expression, "exp_samples": expected}
    return _run(folder, series, {"promql_expr_test": [test]}, rules=[])


def _run(folder: Path, series: dict[str, str], test: dict[str, Any], *, rules: list[str]) -> str:
    """One test by promtool, on series with one value a minute."""
    file = folder / "case.yaml"
    exported = [{"series": name, "values": values} for name, values in series.items()]
    tests = [{"interval": "1m", "input_series": exported, **test}]
    file.write_text(json.dumps({"rule_files": rules, "evaluation_interval": "1m", "tests": tests}))
    command = [program("promtool"), "test", "rules", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr
