"""Unit tests of alerts by `promtool test rules`."""

import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

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


def judge(case: Case, folder: Path) -> str:
    """What promtool finds wrong; nothing when the alert behaves as expected."""
    file = folder / "case.yaml"
    expected = [{"exp_labels": firing.labels, "exp_annotations": firing.annotations} for firing in case.expected]
    content = {
        "rule_files": [str(ALERTS)],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": values} for name, values in case.series.items()],
                "alert_rule_test": [{"eval_time": f"{case.minutes}m", "alertname": case.alert, "exp_alerts": expected}],
            }
        ],
    }
    file.write_text(json.dumps(content))
    command = [program("promtool"), "test", "rules", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr
