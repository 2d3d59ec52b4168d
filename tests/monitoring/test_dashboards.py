"""The dashboards: every panel explained, on metrics that exist, in JSON that Grafana understands."""

import json
import re
import subprocess
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from lora_monitoring.__main__ import dashboards, main, render
from lora_monitoring.grafana import COLUMNS, Dashboard
from lora_operator.metrics import Metrics
from lora_trainer.metrics import TrainingMetrics
from tests.support.grafana_schema import problems
from tests.support.panels import expressions, filled_in
from tests.support.prometheus import program

PAGES = dashboards()
PANELS = [(name, panel) for name, page in PAGES.items() for panel in page.panels]
each_page = pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)


def exported() -> set[str]:
    """Names of all series that operator and trainer export."""
    trainer = CollectorRegistry()
    TrainingMetrics(trainer)
    families = [*Metrics().registry.collect(), *trainer.collect()]
    endings = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum")}
    return {family.name + ending for family in families for ending in endings.get(family.type, ("",))}


def panels_of(page: Dashboard) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = page.to_json()["panels"]
    return found


def test_the_files_are_those_that_the_code_makes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check"]) == 0, capsys.readouterr().err


def test_a_file_that_was_edited_is_told_with_the_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("lora_monitoring.__main__.FILES", tmp_path)
    main([])
    (tmp_path / "dashboards" / "runs.json").write_text("{}")

    assert main(["--check"]) == 1
    assert capsys.readouterr().err == "runs.json is not up to date; run `python -m lora_monitoring`\n"


@pytest.mark.parametrize(("name", "panel"), PANELS, ids=lambda value: getattr(value, "title", value))
def test_every_panel_says_what_it_shows(name: str, panel: Any) -> None:
    assert len(panel.description) > 20
    assert panel.description.endswith(".")
    assert panel.queries


@each_page
def test_titles_are_told_apart(page: Dashboard) -> None:
    titles = [(section.title, panel.title) for section in page.sections for panel in section.panels]

    assert len(set(titles)) == len(titles)


@each_page
def test_every_query_is_promql(page: Dashboard, tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{number}", "expr": filled_in(query.expression)}
        for number, (_, query) in enumerate(expressions(page))
    ] + [{"record": f"mark:{number}", "expr": filled_in(mark.expression)} for number, mark in enumerate(page.marks)]
    file = tmp_path / "rules.yaml"
    file.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))

    done = subprocess.run([program("promtool"), "check", "rules", str(file)], capture_output=True, text=True)

    assert done.returncode == 0, done.stdout + done.stderr


@each_page
def test_every_metric_is_one_that_we_export(page: Dashboard) -> None:
    asked = [query.expression for _, query in expressions(page)] + [mark.expression for mark in page.marks]
    asked += [variable.query for variable in page.variables if hasattr(variable, "query")]
    named = {name for text in asked for name in re.findall(r"\b(?:lora|process)_\w+", text)}

    assert named
    assert named - exported() == set()


@each_page
def test_every_variable_that_is_asked_for_is_offered(page: Dashboard) -> None:
    asked = " ".join(query.expression for _, query in expressions(page))
    builtin = {"__rate_interval", "__range"}

    assert set(re.findall(r"\$(\w+)", asked)) - builtin <= {variable.name for variable in page.variables}


@each_page
def test_no_two_panels_lie_over_each_other(page: Dashboard) -> None:
    places = [panel["gridPos"] for panel in panels_of(page)]

    assert all(place["x"] + place["w"] <= COLUMNS for place in places)
    assert [pair for pair in combinations(places, 2) if overlap(*pair)] == []


def overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
    above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
    return not (beside or above)


@each_page
def test_the_json_is_what_grafana_understands(page: Dashboard) -> None:
    assert problems(json.loads(json.dumps(page.to_json()))) == []


def test_the_schema_tells_what_is_wrong() -> None:
    page = next(iter(PAGES.values())).to_json()
    page["refresh"] = 5
    page["panels"][1]["fieldConfig"]["defaults"]["unitt"] = "s"

    assert problems(page) == [
        "refresh: 5 is not of type 'string'",
        "panels.1.fieldConfig.defaults: Additional properties are not allowed ('unitt' was unexpected)",
    ]


def test_a_config_map_holds_each_dashboard() -> None:
    assert all(len(text.encode()) < 500_000 for text in render().values())
