"""What Argo CD, Flux and kstatus make of a training at each moment of its life, as a table in docs/gitops.md.

The objects are recorded on the laptop-sized cluster; Argo CD's own test data are the same.
`WRITE_GITOPS=1 python -m pytest tests/gitops/test_life_cycle.py` writes table and data anew.
"""

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import argo
from tests.support.flux import HealthChecks
from tests.support.kstatus import kstatus
from tests.support.life_cycle import MOMENTS, OTHERS, record_life
from tests.support.scenario import open_scenario

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "gitops.md"
BEGIN, END = "<!-- life cycle: begin -->\n", "<!-- life cycle: end -->\n"
GITOPS = ROOT / "examples" / "gitops"
LUA = GITOPS / "argo-cd" / "resource_customizations" / "lora-operator.io" / "LoraTraining"
COMMAND = "WRITE_GITOPS=1 python -m pytest tests/gitops/test_life_cycle.py"
ACCEPTED = HealthChecks.of_file(GITOPS / "flux" / "trainings-accepted.yaml", "LoraTraining")
COMPLETED = HealthChecks.of_file(GITOPS / "flux" / "trainings.yaml", "LoraTraining")
ORDER = (
    "new", "not-accepted", "pending", "queued", "running", "changed", "stalled", "evaluating", "suspending",
    "suspended", "cancelling", "cancelled", "failed", "succeeded", "evaluated-again", "deleting",
)  # fmt: skip
DONE, BAD = {"succeeded", "evaluated-again"}, {"failed", "cancelled"}


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The objects, recorded once."""

    async def record() -> dict[str, dict[str, Any]]:
        async with open_scenario(tmp_path_factory.mktemp("life")) as scenario:
            return await record_life(scenario)

    found = asyncio.run(record())
    return {name: found[name] for name in ORDER}


def test_flux_takes_for_done_what_is_trained_and_for_failed_what_has_failed(life: dict[str, dict[str, Any]]) -> None:
    said = {name: COMPLETED.judge(body) for name, body in life.items()}

    assert {name for name, word in said.items() if word == "Current"} == DONE
    assert {name for name, word in said.items() if word == "Failed"} == BAD | {"not-accepted"}


def test_flux_takes_for_accepted_what_goes_on_by_itself(life: dict[str, dict[str, Any]]) -> None:
    said = {name: ACCEPTED.judge(body) for name, body in life.items()}

    assert {name for name, word in said.items() if word == "Failed"} == BAD | {"not-accepted"}
    assert {name for name, word in said.items() if word == "InProgress"} == {"new", "changed", "deleting"}


def test_kstatus_tells_what_needs_help_from_what_goes_on(life: dict[str, dict[str, Any]]) -> None:
    said = {name: kstatus(body) for name, body in life.items()}

    assert {name for name, word in said.items() if word == "Failed"} == BAD | {"not-accepted"}
    assert {name for name, word in said.items() if word == "InProgress"} == {"new", "changed"}
    assert said["deleting"] == "Terminating"


def test_argo_cd_goes_on_to_the_next_wave_after_what_is_trained_only(life: dict[str, dict[str, Any]]) -> None:
    said = {name: argo.health(LUA, body)[0] for name, body in life.items()}

    assert {name for name, word in said.items() if word == "Healthy"} == DONE
    assert {name for name, word in said.items() if word == "Degraded"} == BAD | {"not-accepted"}
    assert {name for name, word in said.items() if word == "Suspended"} == {"suspended"}


def test_the_page_and_the_data_of_argo_cd_are_as_recorded(life: dict[str, dict[str, Any]]) -> None:
    page = PAGE.read_text()
    before, after = page.partition(BEGIN)[0], page.partition(END)[2]
    wanted = {PAGE: before + BEGIN + _table(life) + END + after, **_argo_data(life)}
    if os.environ.get("WRITE_GITOPS"):
        for path, text in wanted.items():
            path.write_text(text)

    stale = [
        str(path.relative_to(ROOT)) for path, text in wanted.items() if not path.exists() or path.read_text() != text
    ]
    assert stale == [], f"not as recorded; run: {COMMAND}"


def _table(life: dict[str, dict[str, Any]]) -> str:
    titles = ("the training", "phase", "Argo CD", "Flux, accepted", "Flux, completed", "kstatus")
    rows = [titles, ("---",) * len(titles), *(_row(name, body) for name, body in life.items())]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _row(name: str, body: dict[str, Any]) -> tuple[str, ...]:
    words = OTHERS.get(name) or MOMENTS[name][0]
    judged = (argo.health(LUA, body)[0], ACCEPTED.judge(body), COMPLETED.judge(body), kstatus(body))
    return words, body.get("status", {}).get("phase", ""), *judged


def _argo_data(life: dict[str, dict[str, Any]]) -> dict[Path, str]:
    """The files of Argo CD's own tests; it judges what is being deleted itself."""
    bodies = {name: body for name, body in life.items() if name != "deleting"}
    tests = []
    for name, body in bodies.items():
        status, message = argo.health(LUA, body)
        tests.append({"healthStatus": {"status": status, "message": message}, "inputPath": f"testdata/{name}.yaml"})
    found = {LUA / "testdata" / f"{name}.yaml": _yaml(body) for name, body in bodies.items()}
    return {LUA / "health_test.yaml": _yaml({"tests": tests}), **found}


def _yaml(document: dict[str, Any]) -> str:
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=110)
