"""An API server that refuses, fails, hangs or forgets: the training ends as it would without."""

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import aiohttp
import pytest

from benchmarks.operator_crashes import Watcher
from lora_devcluster.errors import ApiError, expired
from lora_devcluster.requests import RequestInfo
from lora_devcluster.server import Cut
from lora_devcluster.store import Change
from lora_operator import cluster
from tests.support.scenario import JOBS, Scenario

REASONS = {409: "Conflict", 410: "Expired", 422: "Invalid", 429: "TooManyRequests", 500: "InternalError"}


@dataclass
class OnceEach:
    """Strikes every kind of call of operators once: the first of each verb, resource and object."""

    struck: set[tuple[str, str, str]] = field(default_factory=set)

    def strikes(self, info: RequestInfo) -> bool:
        call = (info.verb, info.target, info.name)
        if not info.user_agent.startswith("lora-operator/") or call in self.struck:
            return False
        self.struck.add(call)
        return True


@pytest.fixture
def watcher(scenario: Scenario) -> Iterator[Watcher]:
    """Counts the Jobs and pods that are active at once."""
    found = Watcher(scenario.stored)
    unsubscribe = scenario.cluster.store.subscribe(found.look)
    yield found
    unsubscribe()


async def _live(scenario: Scenario) -> None:
    """A training with a check of its data, until its children are gone."""
    await scenario.create(("parallelism.gpusPerNode", 1), ("ttlSecondsAfterFinished", 0))
    body = await scenario.until_phase("Succeeded")
    await scenario.until(lambda: not scenario.jobs())

    assert body["status"]["artifacts"]["manifestUri"] == "s3://lora/runs/hina/manifest.json"
    assert body["status"]["attempts"]["number"] == 1
    assert body["status"]["attempts"]["failures"] == 0


CALLS = {
    ("list", "jobs"),
    ("create", "jobs"),
    ("delete", "jobs"),
    ("patch", "loratrainings/status"),
    ("create", "events"),
}


@pytest.mark.parametrize("code", REASONS)
async def test_an_error_at_every_call_changes_nothing(scenario: Scenario, watcher: Watcher, code: int) -> None:
    once = OnceEach()
    scenario.cluster.faults.append(
        lambda info: ApiError(code, REASONS[code], "injected by the test") if once.strikes(info) else None
    )
    await scenario.start_operator()

    await _live(scenario)

    assert {call[:2] for call in once.struck} >= CALLS
    assert (watcher.most_jobs, watcher.most_pods) == (1, 1)


@pytest.mark.parametrize("cut", Cut, ids=lambda cut: cut.name)
async def test_a_connection_cut_at_every_call_changes_nothing(
    scenario: Scenario, watcher: Watcher, cut: Cut, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "TIMEOUT", aiohttp.ClientTimeout(total=0.3))
    once = OnceEach()
    scenario.cluster.server.breaks.append(lambda info: cut if once.strikes(info) else None)
    await scenario.start_operator()

    await _live(scenario)

    assert {call[:2] for call in once.struck} >= CALLS
    assert (watcher.most_jobs, watcher.most_pods) == (1, 1)


@pytest.mark.parametrize("cut", [None, Cut.AFTER], ids=["error", "cut"])
async def test_an_evaluation_survives_an_error_or_a_cut_at_every_call(
    scenario: Scenario, watcher: Watcher, cut: Cut | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "TIMEOUT", aiohttp.ClientTimeout(total=0.3))
    await scenario.start_operator()
    await _live(scenario)
    once, error = OnceEach(), ApiError(500, "InternalError", "injected by the test")
    if cut is None:
        scenario.cluster.faults.append(lambda info: error if once.strikes(info) else None)
    else:
        scenario.cluster.server.breaks.append(lambda info: cut if once.strikes(info) else None)

    await scenario.change({"spec": {"evaluation": {}}})
    await scenario.until_condition("Evaluated", "Completed")
    await scenario.until(lambda: not scenario.jobs())

    calls = [(call.verb, call.target, call.code) for call in scenario.cluster.requests]
    assert {call[:2] for call in once.struck} >= CALLS - {("create", "events")}
    assert (watcher.most_jobs, watcher.most_pods) == (1, 1)
    assert calls.count(("create", "jobs", 201)) == 3


async def test_two_operators_and_a_server_that_fails_now_and_then_do_the_work_of_one(
    scenario: Scenario, watcher: Watcher
) -> None:
    turn = itertools.count()
    scenario.cluster.faults.append(
        lambda info: ApiError(500, "InternalError", "every fourth") if _is_ours(info) and next(turn) % 4 == 3 else None
    )
    await scenario.start_operator()
    await scenario.start_operator()

    await _live(scenario)

    assert (watcher.most_jobs, watcher.most_pods) == (1, 1)


async def test_a_status_that_is_refused_is_not_lost(scenario: Scenario) -> None:
    gate = scenario.folder / "gate"
    await scenario.start_operator()
    await scenario.create(env={"FAKE_GATE": gate})
    await scenario.until_phase("Running")
    left = iter(range(3))

    def refuse(info: RequestInfo) -> ApiError | None:
        is_refused = info.target == "loratrainings/status" and next(left, None) is not None
        return ApiError(422, "Invalid", "status.progress: not today") if is_refused else None

    scenario.cluster.faults.append(refuse)
    gate.touch()
    body = await scenario.until_phase("Succeeded")

    assert next(left, None) is None
    assert body["status"]["artifacts"]["manifestUri"] == "s3://lora/runs/hina/manifest.json"
    assert body["status"]["progress"]["step"] == 10


async def test_an_operator_that_was_cut_off_tells_what_happened_meanwhile(scenario: Scenario) -> None:
    gate = scenario.folder / "gate"
    operator = await scenario.start_operator()
    await scenario.create(env={"FAKE_GATE": gate})
    await scenario.until_phase("Running")

    scenario.cluster.server.breaks.append(cut := lambda info: Cut.BEFORE if _is_ours(info) else None)
    scenario.cluster.server.watches.drop()
    gate.touch()
    await scenario.until(lambda: any(pod["status"]["phase"] == "Succeeded" for pod in scenario.stored("", "pods")))
    before = (scenario.training() or {})["status"]["phase"]
    scenario.cluster.server.breaks.remove(cut)
    await scenario.until_phase("Succeeded")

    assert before == "Running"
    assert scenario.status_of(operator, "/healthz") == 200


async def test_a_deletion_that_no_watch_tells_is_found_by_the_next_list(scenario: Scenario) -> None:
    scenario.cluster.server.watches.losses.append(lambda event: event["type"] == "DELETED")
    await scenario.start_operator(resync_seconds=1.0)
    await scenario.create(env={"FAKE_GATE": (gate := scenario.folder / "gate")})
    await scenario.until_phase("Running")

    await scenario.delete("hina-a1", path=JOBS)
    await scenario.until(lambda: scenario.jobs() == ["hina-a2"])
    gate.touch()

    await scenario.until_phase("Succeeded")


async def test_what_was_deleted_before_a_watch_began_anew_is_found_at_once(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The next full list is five minutes away.
    await scenario.start_operator()
    await scenario.create(env={"FAKE_GATE": scenario.folder / "gate"})
    await scenario.until_phase("Running")
    asked = Counter[str]()

    def expire(group: str, plural: str, version: int) -> list[Change]:
        asked[plural] += 1
        if asked[plural] == 1:
            raise expired(version + 1, version)
        return []

    monkeypatch.setattr(scenario.cluster.store, "changes_since", expire)
    scenario.cluster.server.watches.losses.append(lambda event: event["type"] == "DELETED")
    await scenario.delete("hina-a1", path=JOBS)
    await scenario.until(lambda: not scenario.jobs() and not scenario.pod_count())
    scenario.cluster.server.watches.losses.clear()
    scenario.cluster.server.watches.drop()

    await scenario.until(lambda: scenario.jobs() == ["hina-a2"])
    assert asked["jobs"] > 1


async def test_watches_that_tell_nothing_only_make_the_operator_slow(scenario: Scenario) -> None:
    scenario.cluster.server.watches.losses.append(lambda event: event["type"] != "BOOKMARK")
    await scenario.start_operator(resync_seconds=0.5)

    await scenario.create()

    await scenario.until_phase("Succeeded")


def _is_ours(info: RequestInfo) -> bool:
    return info.user_agent.startswith("lora-operator")
