"""Argo CD's health and actions, by files in the format of its own tests (argo-cd/util/lua/*_test.go)."""

from typing import Any

import pytest
import yaml

from tests.support import argo
from tests.support.argocd_cm import COMMAND, FOLDER, IGNORED, LUA, render, scripts

HEALTH = yaml.safe_load((LUA / "health_test.yaml").read_text())["tests"]
ACTIONS = yaml.safe_load((LUA / "actions" / "action_test.yaml").read_text())


def load(path: str, *, of: str = "") -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((LUA / of / path).read_text())
    return found


@pytest.mark.parametrize("case", HEALTH, ids=lambda case: case["inputPath"])
def test_health_is_as_its_test_says(case: dict[str, Any]) -> None:
    wanted = case["healthStatus"]

    assert argo.health(LUA, load(case["inputPath"])) == (wanted["status"], wanted["message"])


def test_every_object_has_its_test() -> None:
    assert {case["inputPath"] for case in HEALTH} == {f"testdata/{path.name}" for path in LUA.glob("testdata/*.yaml")}


@pytest.mark.parametrize("status", [None, {}, {"observedGeneration": 0}, {"conditions": []}])
def test_an_unfinished_status_is_no_error(status: dict[str, Any] | None) -> None:
    body = load("testdata/new.yaml") | ({} if status is None else {"status": status})

    assert argo.health(LUA, body)[0] == "Progressing"


@pytest.mark.parametrize("case", ACTIONS["discoveryTests"], ids=lambda case: case["inputPath"])
def test_the_buttons_are_as_their_test_says(case: dict[str, Any]) -> None:
    found = argo.actions(LUA, load(case["inputPath"], of="actions"))

    assert found == {entry.pop("name"): entry for entry in [dict(action) for action in case["result"]]}


@pytest.mark.parametrize("case", ACTIONS["actionTests"], ids=lambda case: f"{case['action']} {case['inputPath']}")
def test_an_action_changes_what_its_test_says_and_nothing_else(case: dict[str, Any]) -> None:
    found = argo.act(LUA, case["action"], load(case["inputPath"], of="actions"))

    assert found == load(case["expectedOutputPath"], of="actions")


def test_every_action_has_its_test_and_its_button() -> None:
    tested = {case["action"] for case in ACTIONS["actionTests"]}
    offered = {entry["name"] for case in ACTIONS["discoveryTests"] for entry in case["result"]}

    assert tested == offered == {path.parent.name for path in LUA.glob("actions/*/action.lua")}


@pytest.mark.parametrize(
    "script", ["return io.open('/etc/passwd')", "return os.getenv('HOME')", "return require('io')"]
)
def test_what_argo_cd_keeps_from_scripts_is_kept_from_ours(script: str) -> None:
    with pytest.raises(argo.LuaError):
        argo.run(script, {"metadata": {}})


def test_the_configmap_is_made_of_the_files() -> None:
    assert (FOLDER / "argocd-cm.yaml").read_text() == render(), f"run: {COMMAND}"


def test_argo_cd_reads_the_same_scripts_out_of_the_configmap() -> None:
    files = {"health.lua": LUA / "health.lua", "discovery.lua": LUA / "actions" / "discovery.lua"}
    files |= {path.parent.name: path for path in LUA.glob("actions/*/action.lua")}

    assert scripts() == {name: path.read_text() for name, path in files.items()}


def test_what_people_change_by_hand_is_ignored_and_not_written_over() -> None:
    application = yaml.safe_load((FOLDER / "application.yaml").read_text())

    assert yaml.safe_load(IGNORED) == {"jsonPointers": ["/spec/suspend", "/spec/cancel"]}
    assert "RespectIgnoreDifferences=true" in application["spec"]["syncPolicy"]["syncOptions"]
