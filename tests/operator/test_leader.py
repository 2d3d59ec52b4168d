"""lora_operator.leader"""

import asyncio
import copy
from dataclasses import dataclass, field
from typing import Any

import pytest

from lora_operator.cluster import LEASES, Resource
from lora_operator.errors import ClusterUnavailable, Conflict, LeadershipLost
from lora_operator.leader import Leader, make_identity
from lora_operator.settings import Election

Manifest = dict[str, Any]
ELECTION = Election("lora-system", "lora-operator", 15)
OTHER = {"holderIdentity": "other", "leaseDurationSeconds": 15, "renewTime": "1999-01-01T00:00:00.000000Z"}


@dataclass
class Leases:
    """One Lease as an API server keeps it, and the time."""

    lease: Manifest | None = None
    now: float = 1000.0
    is_away: bool = False
    written: list[Manifest] = field(default_factory=list)
    slept: list[float] = field(default_factory=list)

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)

    def store(self, spec: Manifest) -> None:
        version = int(self.lease["metadata"]["resourceVersion"]) + 1 if self.lease else 1
        before = self.lease["spec"] if self.lease else {}
        self.lease = {"metadata": {"resourceVersion": str(version)}, "spec": {**before, **spec}}

    def _check(self, resource: Resource) -> None:
        assert resource is LEASES
        if self.is_away:
            raise ClusterUnavailable("away")

    async def get(self, resource: Resource, namespace: str, name: str) -> Manifest | None:
        self._check(resource)
        return copy.deepcopy(self.lease)

    async def create(self, resource: Resource, manifest: Manifest) -> Manifest | None:
        self._check(resource)
        if self.lease is not None:
            return None
        self.written.append(manifest["spec"])
        self.store(manifest["spec"])
        return copy.deepcopy(self.lease)

    async def patch(self, resource: Resource, namespace: str, name: str, body: Manifest) -> Manifest | None:
        self._check(resource)
        if self.lease is None:
            return None
        if body["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
            raise Conflict("the object has been modified")
        self.written.append(body["spec"])
        self.store(body["spec"])
        return copy.deepcopy(self.lease)


def candidate(leases: Leases, identity: str = "me") -> Leader:
    return Leader(leases, ELECTION, identity=identity, clock=leases.clock, sleep=leases.sleep)  # type: ignore[arg-type]


async def lead(leases: Leases) -> Leader:
    leader = candidate(leases)
    await leader.acquire()
    return leader


async def test_the_first_creates_the_lease_and_leads() -> None:
    leases = Leases()

    leader = await lead(leases)

    assert leader.leads()
    assert leases.lease is not None
    assert leases.lease["spec"]["holderIdentity"] == "me"
    assert leases.lease["spec"]["leaseDurationSeconds"] == 15


async def test_a_lease_that_is_renewed_is_never_taken() -> None:
    leases = Leases()
    leases.store(OTHER)
    second = candidate(leases)
    waiting = asyncio.create_task(second.acquire())

    for renewal in range(60):
        leases.store({"renewTime": f"renewal {renewal}"})
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    assert not waiting.done()
    assert leases.written == []
    assert leases.now > 1000 + 15
    waiting.cancel()


async def test_a_lease_without_renewals_is_taken_when_it_has_run_out_by_our_own_clock() -> None:
    leases = Leases()
    # Its time of renewal lies in the past by decades: another machine's clock is not believed.
    leases.store(OTHER)

    await lead(leases)

    assert leases.now >= 1000 + 15
    assert leases.lease is not None
    assert (leases.lease["spec"]["holderIdentity"], leases.lease["spec"]["leaseTransitions"]) == ("me", 1)


async def test_a_lease_that_promises_longer_is_waited_for_longer() -> None:
    leases = Leases()
    leases.store({**OTHER, "leaseDurationSeconds": 60})

    await lead(leases)

    assert leases.now >= 1000 + 60


async def test_a_released_lease_is_taken_at_once() -> None:
    leases = Leases()
    first = await lead(leases)
    await first.release()
    before = leases.now

    second = candidate(leases, "next")
    await second.acquire()

    assert leases.now == before
    assert (first.leads(), second.leads()) == (False, True)


async def test_the_leader_renews_three_times_in_a_lease() -> None:
    leases = Leases()
    leader = await lead(leases)
    keeping = asyncio.create_task(leader.keep())

    while len(leases.slept) < 30:
        await asyncio.sleep(0)

    assert not keeping.done()
    assert set(leases.slept) == {5.0}
    keeping.cancel()


async def test_a_leader_that_is_cut_off_stops_before_another_may_start() -> None:
    leases = Leases()
    leader = await lead(leases)
    started = leases.now
    leases.is_away = True

    with pytest.raises(LeadershipLost, match="lora-system/lora-operator was not renewed in time"):
        await leader.keep()

    assert not leader.leads()
    assert started + 10 <= leases.now < started + 15


async def test_a_short_outage_is_survived() -> None:
    leases = Leases()
    leader = await lead(leases)
    leases.is_away = True
    keeping = asyncio.create_task(leader.keep())
    while len(leases.slept) < 2:
        await asyncio.sleep(0)

    leases.is_away = False
    while len(leases.slept) < 10:
        await asyncio.sleep(0)

    assert leader.leads()
    assert not keeping.done()
    keeping.cancel()


async def test_a_leader_that_slept_past_its_deadline_may_not_write() -> None:
    leases = Leases()
    leader = await lead(leases)

    leases.now += 10

    assert not leader.leads()


async def test_a_leader_whose_lease_was_taken_stops_at_its_next_look() -> None:
    leases = Leases()
    leader = await lead(leases)
    leases.store(OTHER)

    with pytest.raises(LeadershipLost, match="its holder now is other"):
        await leader.keep()

    assert len(leases.slept) == 1


async def test_what_is_no_longer_ours_is_not_released() -> None:
    leases = Leases()
    leader = await lead(leases)
    leases.store(OTHER)

    await leader.release()

    assert leases.lease is not None
    assert leases.lease["spec"]["holderIdentity"] == "other"


async def test_of_two_that_see_a_free_lease_one_gets_it() -> None:
    leases = Leases()
    leases.store({"holderIdentity": ""})
    first, second = candidate(leases, "first"), candidate(leases, "second")
    waiting = [asyncio.create_task(leader.acquire()) for leader in (first, second)]

    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)

    assert first.leads() != second.leads()
    for task in waiting:
        task.cancel()


def test_a_restarted_container_is_another_holder() -> None:
    assert make_identity("lora-operator-0") != make_identity("lora-operator-0")
