"""charts/lora_chart: tables and golden renderings are up to date, and say when they cannot be."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from lora_chart.__main__ import render
from lora_chart.readme import with_table
from lora_chart.values_table import UndescribedValue, Value, read_values, render_table
from tests.support.chart import CHART, of_kind

SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())


def test_tables_and_golden_renderings_are_up_to_date() -> None:
    stale = [path.name for path, text in render().items() if not path.exists() or path.read_text() != text]

    assert stale == [], "run: python -m lora_chart"


def test_a_comment_describes_the_key_below_it() -> None:
    text = "a:\n  # Not this.\n  # -- First line,\n  # second line.\n  b: [1]\n# -- A mapping.\nc: {d: x}\n"

    assert read_values(text) == [
        Value("a.b", [1], "First line, second line."),
        Value("c", {"d": "x"}, "A mapping."),
    ]


def test_a_value_without_a_comment_is_refused_by_name() -> None:
    with pytest.raises(UndescribedValue, match=r"a\.b has no comment"):
        read_values("a:\n  b: 1\n")


def test_bars_do_not_break_the_table() -> None:
    assert render_table([Value("a", "x|y", "z|")]).splitlines()[2] == '| `a` | string | `"x\\|y"` | z\\| |'


def test_a_table_goes_between_its_marks() -> None:
    begin = "<!-- t: made by `python -m lora_chart` -->"

    assert with_table(f"a\n{begin}\nold\n<!-- end of t -->\nb", "t", "new\n") == (
        f"a\n{begin}\n\nnew\n\n<!-- end of t -->\nb"
    )
    with pytest.raises(ValueError, match="lacks the marks"):
        with_table("a", "t", "new\n")


def fields(schema: dict[str, Any], described: set[str], path: str) -> set[str]:
    """The paths of all values that the schema knows, down to those that are described."""
    schema = SCHEMA["definitions"][schema["$ref"].rsplit("/", 1)[1]] if "$ref" in schema else schema
    if path in described or "properties" not in schema:
        return {path}
    return {
        leaf
        for key, part in schema["properties"].items()
        for leaf in fields(part, described, f"{path}.{key}".strip("."))
    }


def test_the_schema_knows_exactly_the_values_that_there_are() -> None:
    described = {value.path for value in read_values((CHART / "values.yaml").read_text())}

    assert fields(SCHEMA, described, "") == described | {"global"}


def test_every_link_of_the_readme_to_an_example_leads_to_one() -> None:
    readme = (CHART / "README.md").read_text()
    examples = sorted(path.name for path in Path(CHART, "examples").iterdir())

    assert [name for name in examples if f"(examples/{name})" not in readme] == []


def test_the_readme_lists_the_rights_that_the_role_gives() -> None:
    readme = (CHART / "README.md").read_text().split("## Rights")[1].split("##")[0]
    rows = [line.split("|")[1:3] for line in readme.splitlines() if line.startswith("| ")][1:]
    told = {what.split()[0]: set(re.split(r"[(;]", verbs)[0].replace(",", "").split()) for what, verbs in rows}
    [role] = [role for role in of_kind("ClusterRole") if role["metadata"]["name"] == "lora-lora-operator"]

    assert {name: verbs for name, verbs in told.items() if name != "leases"} == {
        resource: set(rule["verbs"]) for rule in role["rules"] for resource in rule["resources"]
    }
