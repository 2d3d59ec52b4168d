"""Objects of trainings at each moment of their lives, recorded on the laptop-sized cluster, for tests."""

import re
from collections.abc import Awaitable, Callable
from typing import Any

from lora_api import names
from lora_devcluster.kueue import QueueSetting
from tests.support.faults import LONG_AGO
from tests.support.scenario import Scenario

Manifest = dict[str, Any]
Recorder = Callable[[Scenario, str, Manifest], Awaitable[Manifest]]
HOLD = "example.com/hold"
ON_GPU = (("parallelism.gpusPerNode", 1), ("profile", "other-gpu"))
STALLED = f'{{"activeTime": "{LONG_AGO}", "patienceSeconds": 1800}}'
VOLATILE = (
    (re.compile(r"(-(?:a\d+|e\d+|data)-0-)[a-z0-9]{5}\b"), r"\1xxxxx"),
    (re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z"), "2026-11-23T00:00:00Z"),
)


async def _reach(scenario: Scenario, name: str, holds: Callable[[Manifest], bool]) -> Manifest:
    def look() -> Manifest | None:
        body = scenario.training(name)
        return body if body is not None and holds(body) else None

    found: Manifest = await scenario.until(look)
    return found


def _reason(kind: str, reason: str) -> Callable[[Manifest], bool]:
    def holds(body: Manifest) -> bool:
        conditions = body.get("status", {}).get("conditions", ())
        return any((c["type"], c["reason"]) == (kind, reason) for c in conditions)

    return holds


def _starting(*changes: tuple[str, Any], until: Callable[[Manifest], bool], **env: str) -> Recorder:
    """Who creates such a training and waits for that."""

    async def record(scenario: Scenario, name: str, waits: Manifest) -> Manifest:
        await scenario.create(*changes, name=name, env={**waits, **env})
        return await _reach(scenario, name, until)

    return record


def _changing(then: Manifest, *, until: Callable[[Manifest], bool], **env: str) -> Recorder:
    """Who changes a running training so, and waits for that."""

    async def record(scenario: Scenario, name: str, waits: Manifest) -> Manifest:
        await scenario.create(name=name, env={**waits, **env})
        await scenario.until_phase("Running", name)
        await scenario.change(then, name=name)
        return await _reach(scenario, name, until)

    return record


async def _evaluated_again(scenario: Scenario, name: str, waits: Manifest) -> Manifest:
    await scenario.create(name=name, env={"FAKE_EVALUATION_GATE": waits["FAKE_GATE"]})
    await scenario.until_phase("Succeeded", name)
    await scenario.change({"spec": {"evaluation": {}}}, name=name)
    return await _reach(scenario, name, _reason("Evaluated", "Evaluating"))


async def _deleting(scenario: Scenario, name: str, waits: Manifest) -> Manifest:
    await scenario.create(name=name, env=waits)
    await scenario.until_phase("Running", name)
    await scenario.change({"metadata": {"finalizers": [HOLD]}}, name=name)
    await scenario.delete(name)
    body = await _reach(scenario, name, lambda found: "deletionTimestamp" in found["metadata"])
    await scenario.change({"metadata": {"finalizers": []}}, name=name)
    return body


MOMENTS: dict[str, tuple[str, Recorder]] = {
    "not-accepted": (
        "its profile does not exist",
        _starting(("profile", "nowhere"), until=_reason("Accepted", "ProfileNotFound")),
    ),
    "pending": ("no node has a GPU free", _starting(*ON_GPU, until=_reason("Scheduled", "Unschedulable"))),
    "queued": (
        "its queue has no room",
        _starting(("scheduling.queueName", "main"), until=_reason("Suspended", "Queued")),
    ),
    "running": ("steps are made", _starting(until=_reason("Running", "Training"))),
    "evaluating": (
        "its epochs are compared",
        _starting(until=_reason("Running", "Evaluating"), FAKE_REPORT='{"reason": "Evaluating"}'),
    ),
    "stalled": ("its pod hangs", _starting(until=_reason("Running", "Stalled"), FAKE_REPORT=STALLED)),
    "suspending": (
        "paused, and its pod still saves",
        _changing({"spec": {"suspend": True}}, until=_reason("Suspended", "Suspending"), FAKE_DEAF="1"),
    ),
    "suspended": (
        "paused",
        _changing({"spec": {"suspend": True}}, until=_reason("Suspended", "UserRequested")),
    ),
    "cancelling": (
        "cancelled, and its pod still saves",
        _changing({"spec": {"cancel": True}}, until=_reason("Succeeded", "Cancelling"), FAKE_DEAF="1"),
    ),
    "cancelled": ("cancelled", _changing({"spec": {"cancel": True}}, until=_reason("Succeeded", "Cancelled"))),
    "failed": (
        "its data are damaged",
        _starting(until=_reason("Succeeded", "InvalidDataset"), FAKE_GATE="", FAKE_EXIT="65"),
    ),
    "succeeded": ("trained", _starting(until=_reason("Succeeded", "Completed"), FAKE_GATE="")),
    "evaluated-again": ("trained, and evaluated once more", _evaluated_again),
    "deleting": ("deleted while it ran, and held by a finalizer", _deleting),
}
"""What is the matter by the name of the training, and who brings it there."""
NEW, CHANGED = "new", "changed"
OTHERS = {NEW: "no operator has seen it", CHANGED: "running, changed, and no operator has seen that"}


async def record_life(scenario: Scenario) -> dict[str, Manifest]:
    """The object at each moment, by name, in the order of a life."""
    waits = {"FAKE_GATE": str(scenario.folder / "never")}
    scenario.cluster.install_queue(QueueSetting(quotas={"main": {"pods": "0"}}))
    await scenario.create(name=NEW, env=waits)
    found = {NEW: scenario.training(NEW) or {}}
    await scenario.start_operator()
    for name, (_, record) in MOMENTS.items():
        found[name] = await record(scenario, name, waits)
    await scenario.create(name=CHANGED, env=waits)
    await scenario.until_phase("Running", CHANGED)
    await scenario.stop_operators()
    await scenario.change({"spec": {"limits": {"activeSeconds": 9000}}}, name=CHANGED)
    found[CHANGED] = scenario.training(CHANGED) or {}
    return {name: stable(body) for name, body in found.items()}


def stable(body: Manifest) -> Manifest:
    """What health is judged by, without what differs from run to run."""
    meta = {key: body["metadata"][key] for key in ("name", "namespace", "generation")}
    if "deletionTimestamp" in body["metadata"]:
        meta["deletionTimestamp"] = "2026-11-23T00:00:00Z"
    spec = {key: value for key, value in body["spec"].items() if key in {"suspend", "cancel", "profile"}}
    document: Manifest = {"apiVersion": names.API_VERSION, "kind": names.KIND, "metadata": meta, "spec": spec}
    status = body.get("status")
    if status is None:
        return document
    kept: Manifest = {key: status[key] for key in ("observedGeneration", "phase", "summary") if key in status}
    kept["conditions"] = [
        {key: _stable_text(c[key]) for key in ("type", "status", "reason", "message") if key in c}
        for c in status["conditions"]
    ]
    return {**document, "status": kept}


def _stable_text(text: str) -> str:
    for pattern, shown in VOLATILE:
        text = pattern.sub(shown, text)
    return text
