"""Writes the dashboards and the alerts into the chart; `--check` only says which are not up to date."""

import argparse
import json
import sys
from pathlib import Path

import yaml

from lora_monitoring import control, fleet, runs
from lora_monitoring.alerts import GROUPS
from lora_monitoring.grafana import Dashboard

FILES = Path(__file__).parents[1] / "lora-operator" / "files"
_HEAD = "# Made by `python -m lora_monitoring` from charts/lora_monitoring/alerts.py; do not edit.\n"


def dashboards() -> dict[str, Dashboard]:
    """The dashboards by the name of their file."""
    return {"runs": runs.dashboard(), "fleet": fleet.dashboard(), "operator": control.dashboard()}


def render() -> dict[Path, str]:
    """Text of every file."""
    found = {
        FILES / "dashboards" / f"{name}.json": json.dumps(dashboard.to_json(), indent=2, ensure_ascii=False) + "\n"
        for name, dashboard in dashboards().items()
    }
    groups = {"groups": [group.to_json() for group in GROUPS]}
    text = yaml.safe_dump(groups, sort_keys=False, allow_unicode=True, width=120)
    return {**found, FILES / "alerts.yaml": _HEAD + text}


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 1 where `--check` finds a file that differs."""
    parser = argparse.ArgumentParser(prog="python -m lora_monitoring", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a file is not up to date")
    check = parser.parse_args(arguments).check
    stale = [path for path, text in render().items() if not path.exists() or path.read_text() != text]
    for path in stale:
        if check:
            print(f"{path.name} is not up to date; run `python -m lora_monitoring`", file=sys.stderr)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(render()[path])
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
