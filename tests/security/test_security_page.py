"""docs/security.md says what the chart and the samples say."""

import re
from pathlib import Path

from tests.support.chart import of_kind, rights

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text("utf-8")


def test_the_table_of_rights_is_that_of_the_chart() -> None:
    rows = re.findall(r"^\| (`[\w.-]+`|core) \| `([\w/]+)` \| ([\w ]+) \|", PAGE, flags=re.MULTILINE)
    told = {
        ("" if group == "core" else group.strip("`"), resource, verb)
        for group, resource, verbs in rows
        for verb in verbs.split()
    }
    role = next(role for role in of_kind("ClusterRole") if role["metadata"]["name"] == "lora-lora-operator")

    assert told == {right for right in rights(role) if right[1] != "customresourcedefinitions"}


def test_every_policy_is_told_of() -> None:
    files = {path.name for path in (ROOT / "examples" / "policies").glob("*.yaml")}

    assert set(re.findall(r"^\| `([\w-]+\.yaml)` \|", PAGE, flags=re.MULTILINE)) == files
