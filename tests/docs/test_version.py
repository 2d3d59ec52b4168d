"""One version: pyproject.toml has it, and whatever else names it agrees."""

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("charts/**/README.md")]
HISTORY = {"CHANGELOG.md", "upgrading.md"}
"""Pages that tell of other versions."""


def test_what_is_installed_is_what_the_project_says() -> None:
    assert version("lora-operator") == VERSION


def test_the_chart_has_the_version() -> None:
    chart = yaml.safe_load((ROOT / "charts" / "lora-operator" / "Chart.yaml").read_text())

    assert (chart["version"], str(chart["appVersion"])) == (VERSION, VERSION)


def test_the_images_are_built_with_the_version() -> None:
    named = re.findall(
        r"^ARG VERSION=(\S+)|--tag lora-\w+:(\S+)", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE
    )

    assert {first or second for first, second in named} == {VERSION}


def test_pages_name_images_of_the_version() -> None:
    pages = [page for page in PAGES if page.name not in HISTORY]
    named = {
        (page.name, tag)
        for page in pages
        for tag in re.findall(r"lora-(?:operator|trainer):(\d[\w.-]*)", page.read_text())
    }

    assert named
    assert {(page, tag) for page, tag in named if tag != VERSION} == set()


def test_the_changelog_tells_of_the_version_and_goes_back_in_time() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    sections = re.findall(r"^## \[(\d[^\]]*)\] - (\d{4}-\d\d-\d\d)$", text, flags=re.MULTILINE)
    versions = [tuple(int(part) for part in name.split(".")) for name, _ in sections]

    assert sections[0][0] == VERSION
    assert versions == sorted(versions, reverse=True)
    assert [date for _, date in sections] == sorted((date for _, date in sections), reverse=True)
