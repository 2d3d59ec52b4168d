"""Operators that are killed, doubled or cut off from the API server."""

import asyncio
import os
import sys
from dataclasses import replace
from typing import Any

import pytest

from lora_api import names
from lora_devcluster import discovery
from lora_devcluster.errors import ApiError
from lora_devcluster.requests import RequestInfo
from lora_devcluster.server import Cut
from lora_operator import mirror
from lora_operator.application import Application
from lora_operator.errors import LeadershipLost, OperatorError
from tests.support.operator_rights import LEASE
from tests.support.scenario import DEFINITIONS, TIMEOUT_SECONDS, Scenario

NAMED = discovery.groups


async def test_two_operators_do_the_work_of_one(scenario: Scenario) -> None:
    await scenario.start_operator()
    await scenario.start_operator()

    for number in range(5):
        await scenario.create(name=f"hina-{number}")
    for number in range(5):
        await scenario.until_phase("Succeeded", name=f"hina-{number}")
    completed = await scenario.until(lambda: len(found := scenario.events_of("Completed")) == 5 and found)

    assert scenario.jobs() == [f"hina-{number}-a1" for number in range(5)]
    assert all(event["count"] == 1 for event in completed)


async def test_a_restarted_operator_writes_nothing_that_is_there(scenario: Scenario) -> None:
    await scenario.start_operator()
    await scenario.create()
    await scenario.until_phase("Succeeded")
    await scenario.until(lambda: "Completed" in scenario.events())
    await scenario.stop_operators()
    before = _writes(scenario)

    operator = await scenario.start_operator()
    await scenario.until_told(lambda: 'result="success"' in scenario.metrics(operator))
    await scenario.until_told(lambda: scenario.status_of(operator, "/readyz") == 200)

    assert _writes(scenario) == before


@pytest.mark.parametrize("namespaces", [(), ("ml",)], ids=["cluster-wide", "namespaced"])
async def test_an_operator_that_is_there_before_the_definition_waits_for_it(
    scenario: Scenario, namespaces: tuple[str, ...]
) -> None:
    await scenario.delete(f"{names.PLURAL}.{names.GROUP}", path=DEFINITIONS)
    operator = await scenario.start_operator(namespaces=namespaces)
    await scenario.until_told(lambda: 'kind="cluster_unavailable"' in scenario.metrics(operator))
    not_ready = scenario.status_of(operator, "/readyz")

    await scenario.define()
    await scenario.create()
    await scenario.until_phase("Succeeded")

    assert not_ready == 503
    assert (scenario.status_of(operator, "/readyz"), scenario.status_of(operator, "/healthz")) == (200, 200)


async def test_a_kind_that_the_server_did_not_name_yet_ends_the_process_for_the_next_to_find_it(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "WATCH_PATIENCE_SECONDS", 1.0)
    with monkeypatch.context() as patch:
        patch.setattr(discovery, "groups", lambda registry: _without_ours(NAMED(registry)))
        with pytest.raises(OperatorError, match=f"no watch of .*{names.PLURAL} began"):
            async with asyncio.timeout(TIMEOUT_SECONDS):
                await Application(scenario.settings()).run(asyncio.Event())

    await scenario.start_operator()
    await scenario.create()

    await scenario.until_phase("Succeeded")


def _without_ours(found: dict[str, Any]) -> dict[str, Any]:
    return {**found, "groups": [group for group in found["groups"] if group["name"] != names.GROUP]}


async def test_an_outage_of_the_api_server_is_survived(scenario: Scenario) -> None:
    scenario.cluster.faults.append(down := _Fault(503, "ServiceUnavailable"))
    await scenario.start_operator()
    await scenario.create()
    await scenario.until_told(lambda: down.hits > 2)

    scenario.cluster.faults.remove(down)

    await scenario.until_phase("Succeeded")


ELECTION = replace(LEASE, seconds=3)


async def test_of_two_candidates_one_acts_and_the_other_stands_by(scenario: Scenario) -> None:
    first = await scenario.start_operator(election=ELECTION)
    await scenario.until_told(lambda: _leads(scenario, first))
    second = await scenario.start_operator(election=ELECTION)
    await scenario.until_told(lambda: scenario.status_of(second, "/readyz") == 200)

    await scenario.create()
    await scenario.until_phase("Succeeded")

    assert _leads(scenario, first)
    assert not _leads(scenario, second)
    assert "reconciles_total{" not in scenario.metrics(second)
    assert "lora_operator_queue_depth 0.0" in scenario.metrics(second)


async def test_a_leader_that_ends_well_hands_over_at_once(scenario: Scenario) -> None:
    await scenario.start_operator(election=replace(LEASE, seconds=3600))
    await scenario.until(lambda: _holder(scenario))
    await scenario.stop_operators()

    await scenario.start_operator(election=replace(LEASE, seconds=3600))
    await scenario.create()

    await scenario.until_phase("Succeeded")


async def test_a_killed_leader_is_followed_when_its_lease_has_run_out(scenario: Scenario) -> None:
    lease = {"LORA_LEASE_NAMESPACE": LEASE.namespace, "LORA_LEASE_NAME": LEASE.name, "LORA_LEASE_SECONDS": "3"}
    leader = await _start_process(scenario, LORA_LEADER_ELECTION="true", **lease)
    killed = await scenario.until(lambda: _holder(scenario))
    standby = await scenario.start_operator(election=ELECTION)
    await scenario.create(env={"FAKE_GATE": (gate := scenario.folder / "gate")})
    await scenario.until_phase("Running")

    leader.kill()
    await leader.wait()
    gate.touch()
    await scenario.until_phase("Succeeded")

    assert _leads(scenario, standby)
    assert _holder(scenario) != killed
    assert scenario.jobs() == ["hina-a1"]


async def test_a_leader_that_is_cut_off_stops_acting_before_the_next_one_starts(scenario: Scenario) -> None:
    cut_off = scenario.folder / "kubeconfig-of-the-first"
    cut_off.write_text(scenario.cluster.kubeconfig.read_text().replace("kubernetes-admin", "first"))
    task = asyncio.create_task(
        Application(scenario.settings(election=ELECTION, kubeconfig=str(cut_off))).run(asyncio.Event())
    )
    before = await scenario.until(lambda: _holder(scenario))
    await scenario.start_operator(election=ELECTION)

    scenario.cluster.server.breaks.append(lambda info: Cut.BEFORE if info.user == "first" else None)
    with pytest.raises(LeadershipLost, match="was not renewed in time"):
        await task

    assert _holder(scenario) == before
    await scenario.until(lambda: _holder(scenario) != before)


def _leads(scenario: Scenario, application: Application) -> bool:
    return "lora_operator_leader 1.0" in scenario.metrics(application)


def _holder(scenario: Scenario) -> str:
    leases = scenario.cluster.store.objects("coordination.k8s.io", "leases")
    return str(leases[0]["spec"]["holderIdentity"]) if leases else ""


@pytest.mark.parametrize("variable", ["LORA_PROFILES_FILE", "LORA_WORKERS"])
async def test_wrong_settings_end_the_process_with_a_word(scenario: Scenario, variable: str) -> None:
    process = await _start_process(scenario, **{variable: "/nowhere"})

    output = (await process.communicate())[0].decode()

    assert process.returncode == 1
    assert variable in output


class _Fault:
    """Answers requests of operators with an error."""

    def __init__(self, code: int, reason: str) -> None:
        self.error = ApiError(code, reason, "injected by the test")
        self.hits = 0

    def __call__(self, info: RequestInfo) -> ApiError | None:
        if not info.user_agent.startswith("lora-operator/"):
            return None
        self.hits += 1
        return self.error


async def _start_process(scenario: Scenario, **environment: str) -> asyncio.subprocess.Process:
    settings = {
        "LORA_PROFILES_FILE": str(scenario.profiles_file),
        "LORA_HTTP_ADDRESS": "127.0.0.1",
        "LORA_HTTP_PORT": "0",
        "LORA_PROGRESS_INTERVAL_SECONDS": "0.1",
        "KUBECONFIG": str(scenario.account()),
    }
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "lora_operator",
        env={**os.environ, **settings, **environment},
        stdout=asyncio.subprocess.PIPE if environment else None,
        stderr=asyncio.subprocess.STDOUT,
    )


def _writes(scenario: Scenario) -> int:
    return sum(scenario.writes(target) for target in ("jobs", "loratrainings/status"))
