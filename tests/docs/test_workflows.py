""".github/workflows: few rights, fixed versions, and only scripts and targets that there are."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / ".github" / "workflows").glob("*.yaml"))
NOTES = ROOT / ".ci" / "release_notes"
Manifest = dict[Any, Any]

each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)


def read(path: Path) -> Manifest:
    found: Manifest = yaml.safe_load(path.read_text())
    return found


def steps(workflow: Manifest) -> Iterator[Manifest]:
    for job in workflow["jobs"].values():
        yield from job.get("steps", ())


def test_the_three_workflows_are_there() -> None:
    assert [path.name for path in FILES] == ["ci.yaml", "docs.yaml", "release.yaml"]


@each_file
def test_a_job_may_only_read_unless_it_says_more(path: Path) -> None:
    workflow = read(path)

    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        assert "write-all" not in str(job.get("permissions"))
        assert "uses" in job or job["timeout-minutes"] <= 120


@each_file
def test_actions_have_a_version_and_checkouts_leave_no_token(path: Path) -> None:
    used = [step for step in steps(read(path)) if "uses" in step]

    assert all(re.fullmatch(r"[\w.-]+/[\w./-]+@(v\d[\w.]*|[0-9a-f]{40})", step["uses"]) for step in used)
    for step in used:
        if step["uses"].startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False


@each_file
def test_commands_name_files_and_targets_that_there_are(path: Path) -> None:
    commands = "\n".join(step["run"] for step in steps(read(path)) if "run" in step)
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))

    assert set(re.findall(r"\bmake ([\w-]+)", commands)) <= targets
    for named in re.findall(r"(?<![\w/])((?:\.ci|charts|crds)/[\w./-]*\w)", commands):
        assert (ROOT / named).exists(), named


@each_file
def test_what_others_write_is_never_put_into_a_command(path: Path) -> None:
    """Expressions in `run` would let a branch's name be executed; commands read environment variables instead."""
    assert [step["run"] for step in steps(read(path)) if "${{" in step.get("run", "")] == []


def test_needs_name_jobs_and_outputs_that_there_are() -> None:
    jobs = read(ROOT / ".github" / "workflows" / "release.yaml")["jobs"]
    text = (ROOT / ".github" / "workflows" / "release.yaml").read_text()

    for job in jobs.values():
        needed = job.get("needs", [])
        assert ({needed} if isinstance(needed, str) else set(needed)) <= jobs.keys()
    for job, output in re.findall(r"needs\.(\w+)\.outputs\.(\w+)", text):
        assert output in jobs[job]["outputs"]


def test_a_release_runs_every_check_before_it_pushes() -> None:
    jobs = read(ROOT / ".github" / "workflows" / "release.yaml")["jobs"]

    assert jobs["ci"]["uses"] == "./.github/workflows/ci.yaml"
    assert (
        "ci" in jobs["images"]["needs"] and "images" in jobs["chart"]["needs"] and "chart" in jobs["release"]["needs"]
    )
    assert [
        step["run"] for step in steps(read(ROOT / ".github" / "workflows" / "ci.yaml")) if step.get("run") == ".ci/run"
    ]


def test_a_release_leaves_the_records_of_builds_alone_which_cannot_be_downloaded() -> None:
    [download] = [
        step
        for step in steps(read(ROOT / ".github" / "workflows" / "release.yaml"))
        if step.get("uses", "").startswith("actions/download-artifact@")
    ]

    assert "name" in download["with"] or download["with"]["pattern"] == "!*.dockerbuild"


def notes(tag: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(NOTES), tag], capture_output=True, text=True, check=False)


def test_the_notes_of_a_release_are_the_section_of_its_version() -> None:
    name = re.search(r"^## \[(\d[^\]]*)\]", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert name is not None

    done = notes(f"v{name[1]}")

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("### Added") and "\n## " not in done.stdout


def test_a_tag_of_another_version_is_refused() -> None:
    done = notes("v99.0.0")

    assert done.returncode == 1
    assert "the tag is v99.0.0, but pyproject.toml has version" in done.stderr
