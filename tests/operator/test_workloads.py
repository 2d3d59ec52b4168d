"""How often Workloads are read, and what is said where there are none."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from lora_operator.cluster import Resource
from lora_operator.errors import ClusterUnavailable, Refused
from lora_operator.observed import Job, parse_job
from lora_operator.subject import Key
from lora_operator.timestamps import format_time
from lora_operator.workloads import WorkloadReader
from tests.support.observations import EARLIER, NOW, job_body

KEY = Key("ml", "hina")
WORKLOAD: dict[str, Any] = {
    "metadata": {"name": "job-hina-a1-4f2c1"},
    "spec": {"queueName": "main"},
    "status": {"conditions": [{"type": "QuotaReserved", "status": "False", "reason": "Pending", "message": "no room"}]},
}


@dataclass
class FakeCluster:
    """Answers as the API server does, and notes what it was asked."""

    versions: tuple[str, ...] = ("v1beta1", "v1beta2")
    workloads: list[dict[str, Any]] = field(default_factory=lambda: [WORKLOAD])
    error: Exception | None = None
    asked: list[str] = field(default_factory=list)
    unknown: Exception | None = None
    """Why it does not say which versions there are."""
    until: Callable[[], Awaitable[object]] | None = None
    """What it waits for before it says so."""

    async def get(self, resource: Resource, namespace: str, name: str) -> dict[str, Any] | None:
        self.asked.append(resource.path(namespace, name))
        if self.until:
            await self.until()
        if self.unknown:
            raise self.unknown
        return {"versions": [{"version": v} for v in self.versions]} if self.versions else None

    async def list(self, resource: Resource, namespace: str, *, labels: str) -> list[dict[str, Any]]:
        self.asked.append(f"{resource.path(namespace)}?{labels}")
        if self.error:
            raise self.error
        return self.workloads


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


def make_reader(cluster: FakeCluster) -> tuple[WorkloadReader, Clock]:
    clock = Clock()
    return WorkloadReader(cluster, clock=clock, now=lambda: NOW), clock  # type: ignore[arg-type]


def make_job(*, suspend: bool = True, queue: str = "main", created: str = EARLIER) -> Job:
    body = job_body(suspend=suspend)
    body["metadata"]["creationTimestamp"] = created
    body["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] = queue
    return parse_job(body)


QUEUED, PLAIN = make_job(), make_job(queue="")


async def test_the_workload_is_found_by_the_uid_of_its_job() -> None:
    reader, _ = make_reader(cluster := FakeCluster())

    state = await reader.read(KEY, QUEUED)

    assert state is not None
    assert (state.workload, state.message) == ("job-hina-a1-4f2c1", "no room")
    assert cluster.asked == [
        "/apis/kueue.x-k8s.io",
        f"/apis/kueue.x-k8s.io/v1beta2/namespaces/ml/workloads?kueue.x-k8s.io/job-uid={QUEUED.uid}",
    ]


async def test_an_older_kueue_is_read_in_its_own_version() -> None:
    reader, _ = make_reader(cluster := FakeCluster(versions=("v1beta1",)))

    await reader.read(KEY, QUEUED)

    assert "/v1beta1/" in cluster.asked[-1]


async def test_the_longer_nothing_changes_the_rarer_it_is_looked_at() -> None:
    reader, clock = make_reader(cluster := FakeCluster())
    times = []

    for _ in range(400):
        before = len(cluster.asked)
        await reader.read(KEY, QUEUED)
        if len(cluster.asked) > before:
            times.append(clock.now - 100)
        clock.now += 0.25

    assert times == [0, 0.25, 0.5, 1, 2, 4, 8, 16, 26, 36, 46, 56, 66, 76, 86, 96]


async def test_a_job_that_was_stopped_and_started_again_unseen_is_looked_at_at_once() -> None:
    reader, _ = make_reader(cluster := FakeCluster())
    asked = []

    for pod in ("", "first", "first", "second", ""):
        await reader.read(KEY, make_job(suspend=False), pod=pod)
        asked.append(len(cluster.asked))

    assert asked == [2, 2, 2, 3, 4]


async def test_a_job_that_was_started_or_stopped_is_looked_at_at_once() -> None:
    reader, _ = make_reader(cluster := FakeCluster())
    await reader.read(KEY, QUEUED)

    await reader.read(KEY, make_job(suspend=False))

    assert len(cluster.asked) == 3


async def test_ten_thousand_waiting_jobs_do_not_ask_more_than_ten_times_a_second() -> None:
    reader, clock = make_reader(FakeCluster())
    keys = [Key("ml", f"hina-{n}") for n in range(1000)]
    for _ in range(12):
        for key in keys:
            await reader.read(key, QUEUED)
        clock.now += 100

    assert reader.seconds_left(keys[0]) == 0
    await reader.read(keys[0], QUEUED)
    assert reader.seconds_left(keys[0]) == 100


async def test_without_kueue_a_queued_job_says_so_and_kueue_is_looked_for_again() -> None:
    reader, clock = make_reader(cluster := FakeCluster(versions=()))
    missing = await reader.read(KEY, QUEUED)
    cluster.versions = ("v1beta2",)
    clock.now += 30
    still = await reader.read(KEY, QUEUED)

    clock.now += 30
    found = await reader.read(KEY, QUEUED)

    assert missing is not None and missing.is_absent
    assert still is not None and still.is_absent
    assert found is not None and found.workload


@pytest.mark.parametrize("cluster", [FakeCluster(versions=()), FakeCluster(workloads=[])], ids=["absent", "none"])
async def test_a_job_without_queue_has_none(cluster: FakeCluster) -> None:
    reader, _ = make_reader(cluster)

    assert await reader.read(KEY, PLAIN) is None


async def test_a_job_without_queue_that_kueue_has_taken_is_seen() -> None:
    reader, _ = make_reader(FakeCluster())

    state = await reader.read(KEY, PLAIN)

    assert state is not None and state.workload


async def test_a_new_job_that_someone_suspended_may_be_kueues_for_a_while() -> None:
    reader, _ = make_reader(FakeCluster(workloads=[]))

    state = await reader.read(KEY, make_job(queue="", created=format_time(NOW - timedelta(seconds=5))))

    assert state is not None and (state.reason, state.queue) == ("NoWorkload", "")


async def test_a_workload_that_is_not_made_yet_is_awaited() -> None:
    reader, _ = make_reader(FakeCluster(workloads=[]))

    state = await reader.read(KEY, QUEUED)

    assert state is not None and state.reason == "NoWorkload"


async def test_missing_rights_are_told_and_hold_nothing_up() -> None:
    reader, _ = make_reader(FakeCluster(error=Refused("workloads is forbidden")))

    state = await reader.read(KEY, QUEUED)

    assert state is not None and state.reason == "WorkloadUnreadable"
    assert "workloads is forbidden" in state.message


async def test_a_kueue_that_was_removed_is_looked_for_again() -> None:
    reader, clock = make_reader(cluster := FakeCluster())
    await reader.read(KEY, QUEUED)
    cluster.error, cluster.versions = ClusterUnavailable("the server could not find it"), ()
    clock.now += 60
    with pytest.raises(ClusterUnavailable):
        await reader.read(KEY, QUEUED)

    state = await reader.read(KEY, QUEUED)

    assert state is not None and state.is_absent


async def test_what_is_forgotten_is_read_anew() -> None:
    reader, _ = make_reader(cluster := FakeCluster())
    await reader.read(KEY, QUEUED)

    reader.forget(KEY)
    await reader.read(KEY, QUEUED)

    assert len(cluster.asked) == 3


async def test_who_asks_while_kueue_is_looked_for_waits_for_the_answer() -> None:
    reader, _ = make_reader(cluster := FakeCluster())
    arrived = asyncio.Event()
    cluster.until = arrived.wait

    looks = [asyncio.create_task(reader.read(Key("ml", name), QUEUED)) for name in ("one", "two")]
    await asyncio.sleep(0)
    arrived.set()
    found = await asyncio.gather(*looks)

    assert [state and state.workload for state in found] == ["job-hina-a1-4f2c1"] * 2
    assert cluster.asked.count("/apis/kueue.x-k8s.io") == 1


async def test_a_look_for_kueue_that_failed_is_no_proof_that_it_is_not_there() -> None:
    reader, _ = make_reader(cluster := FakeCluster())
    cluster.unknown = ClusterUnavailable("the server does not answer")
    with pytest.raises(ClusterUnavailable):
        await reader.read(KEY, QUEUED)

    cluster.unknown = None
    state = await reader.read(KEY, QUEUED)

    assert state is not None
    assert state.workload == "job-hina-a1-4f2c1"


async def test_an_operator_that_may_not_look_for_kueue_says_so() -> None:
    reader, _ = make_reader(cluster := FakeCluster())
    cluster.unknown = Refused("apis is forbidden")

    state = await reader.read(KEY, QUEUED)

    assert state is not None
    assert "apis is forbidden" in state.message
