"""The operator's rights are what it uses: every verb that the chart grants is needed in the lives of some trainings.

That none is missing shows in every scenario of the suite, since its operator has the rights of the chart only.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from lora_devcluster.kueue import QueueSetting
from lora_devcluster.requests import RequestInfo
from tests.support.chart import render
from tests.support.operator_rights import LEASE, RBAC_KINDS, operator_user, values_for
from tests.support.scenario import Scenario

Grant = tuple[str, str, str, str, str]
"""Namespace ("" for all), API group, resource with subresource, name ("" for any), verb."""


@pytest.mark.parametrize("namespaces", [(), ("ml",)], ids=["cluster-wide", "namespaced"])
async def test_the_rights_that_are_granted_are_those_that_are_used(
    scenario: Scenario, namespaces: tuple[str, ...]
) -> None:
    scenario.cluster.install_queue(QueueSetting(quotas={"main": {"pods": "1"}}))
    await scenario.start_operator(namespaces=namespaces, election=LEASE)

    await live(scenario)

    user = operator_user(namespaces)
    used = [info for info in scenario.cluster.server.authorizer.checked if info.user == user]
    refused = [info for info in used if not scenario.cluster.server.authorizer.allows(info)]
    unused = {grant for grant in grants(namespaces) if not any(is_use(grant, info) for info in used)}
    assert (refused, unused) == ([], set())


async def live(scenario: Scenario) -> None:
    """Trainings that do, between them, all that trainings can do."""
    await pause_twice_and_evaluate(scenario, "paused")
    await lack_a_secret(scenario, "secretless")
    await check_fail_and_retry(scenario, "retried")
    await queue_pause_and_cancel(scenario, "queued")
    await train_on_two_nodes(scenario, "wide")


async def pause_twice_and_evaluate(scenario: Scenario, name: str) -> None:
    gate = scenario.folder / f"gate-{name}"
    await scenario.create(("limits.activeSeconds", 3600), name=name, env={"FAKE_GATE": gate})
    for _ in range(2):
        await scenario.until_phase("Running", name)
        await scenario.change({"spec": {"suspend": True}}, name=name)
        await scenario.until_phase("Suspended", name)
        await scenario.change({"spec": {"suspend": False}}, name=name)
    gate.touch()
    await scenario.until_phase("Succeeded", name)
    await scenario.change({"spec": {"evaluation": {}}}, name=name)
    await scenario.until_condition("Evaluated", "Completed", name)


async def lack_a_secret(scenario: Scenario, name: str) -> None:
    await scenario.create(("storage", {"credentialsSecretRef": {"name": "s3"}}), name=name)
    await scenario.until_condition("Scheduled", "SecretMissing", name)
    await scenario.create_secret("s3")
    await scenario.until_phase("Succeeded", name)


async def check_fail_and_retry(scenario: Scenario, name: str) -> None:
    env = {"FAKE_EXIT_ONCE": 1, "FAKE_MARKS": scenario.folder / f"marks-{name}"}
    await scenario.create(("parallelism.gpusPerNode", 1), ("ttlSecondsAfterFinished", 0), name=name, env=env)
    await scenario.until_phase("Succeeded", name)
    await scenario.until(lambda: not [job for job in scenario.jobs() if job.startswith(name)])


async def train_on_two_nodes(scenario: Scenario, name: str) -> None:
    nodes = {"nodes": 2, "gpusPerNode": 0}
    await scenario.create(("parallelism", nodes), ("ttlSecondsAfterFinished", 0), name=name)
    await scenario.until_phase("Succeeded", name)
    await scenario.until(lambda: not scenario.stored("", "services"))


async def queue_pause_and_cancel(scenario: Scenario, name: str) -> None:
    never = scenario.folder / f"never-{name}"
    await scenario.create(("scheduling.queueName", "main"), name=name, env={"FAKE_GATE": never})
    await scenario.until_phase("Running", name)
    await scenario.change({"spec": {"suspend": True}}, name=name)
    await scenario.until_phase("Suspended", name)
    await scenario.change({"spec": {"cancel": True}}, name=name)
    await scenario.until_phase("Failed", name)


def grants(namespaces: tuple[str, ...]) -> Iterator[Grant]:
    """Every right of the roles that the chart binds to the operator."""
    rendered = [manifest for manifest in render(values_for(namespaces)) if manifest["kind"] in RBAC_KINDS]
    bound = {place(m["roleRef"]["kind"], m["roleRef"]["name"], m) for m in rendered if m["kind"].endswith("Binding")}
    for manifest in rendered:
        here = place(manifest["kind"], manifest["metadata"]["name"], manifest)
        if here in bound:
            yield from (grant for rule in manifest["rules"] for grant in each_right(rule, here[2]))


def place(kind: str, name: str, manifest: dict[str, Any]) -> tuple[str, str, str]:
    return kind, name, manifest["metadata"].get("namespace", "")


def each_right(rule: dict[str, Any], namespace: str) -> Iterator[Grant]:
    for group in rule["apiGroups"]:
        for resource in rule["resources"]:
            for name in rule.get("resourceNames") or [""]:
                yield from ((namespace, group, resource, name, verb) for verb in rule["verbs"])


def is_use(grant: Grant, info: RequestInfo) -> bool:
    namespace, group, resource, name, verb = grant
    return (
        (group, resource, verb) == (info.group, info.target, info.verb)
        and namespace in ("", info.namespace)
        and name in ("", info.name)
    )
