"""Leader election by a Lease: of several operators one acts. Used by `application`.

The rules are those of client-go's leaderelection package: an operator trusts no clock but its own, so a lease has run
out when it has seen no change of it for as long as the lease says; the leader stops well before others may start.
"""

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from lora_operator.cluster import LEASES, Cluster
from lora_operator.errors import LeadershipLost, OperatorError
from lora_operator.settings import Election
from lora_operator.subject import Manifest

log = logging.getLogger(__name__)

RENEW = 1 / 3
"""Parts of the lease's duration: between renewals, …"""
DEADLINE = 2 / 3
"""… after which the leader stops if no renewal succeeded, …"""
RETRY = 1 / 10
"""… between attempts, …"""
PATIENCE = 1 / 5
"""… and how long one attempt may take."""


def make_identity(name: str) -> str:
    """Who holds a lease: a process, not a pod, whose container may have been restarted."""
    return f"{name}_{uuid.uuid4().hex[:8]}"


class Leader:
    """This process as a candidate for one Lease."""

    def __init__(
        self,
        cluster: Cluster,
        election: Election,
        *,
        identity: str,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._cluster = cluster
        self._election = election
        self._identity = identity
        self._clock = clock
        self._sleep_seconds = sleep
        self._leads_until = -1.0
        self._lease: Manifest = {}
        self._seen_at = 0.0

    def leads(self) -> bool:
        """Whether this process may act now; asked before every write, as it may have slept past its deadline."""
        return self._clock() < self._leads_until

    async def acquire(self) -> None:
        """Waits until this process leads."""
        while not await self._try():
            await self._sleep(RETRY)
        log.info("%s leads by Lease %s/%s", self._identity, self._election.namespace, self._election.name)

    async def keep(self) -> None:
        """Renews the lease for ever. Raises LeadershipLost when that fails for too long, or another took it."""
        renewed = True
        while self.leads():
            await self._sleep(RENEW if renewed else RETRY)
            renewed = await self._try()
        raise LeadershipLost(
            f"the Lease {self._election.namespace}/{self._election.name} was not renewed in time, or was taken; "
            f"its holder now is {self._holder or 'unknown'}"
        )

    async def release(self) -> None:
        """Gives the lease away at once, if it is still ours; as well as can be."""
        if not self.leads():
            return
        self._leads_until = -1.0
        try:
            async with asyncio.timeout(self._election.seconds * PATIENCE):
                await self._write({"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": _now()})
        except (OperatorError, TimeoutError) as error:
            log.warning("the Lease could not be given away, and runs out: %s", error or "no answer")

    async def _sleep(self, part: float) -> None:
        await self._sleep_seconds(self._election.seconds * part)

    async def _try(self) -> bool:
        """One attempt to take or renew the lease."""
        # Others count from the moment at which they see the renewal, which is later than this one.
        asked = self._clock()
        try:
            async with asyncio.timeout(self._election.seconds * PATIENCE):
                held = await self._claim()
        except (OperatorError, TimeoutError) as error:
            log.warning("no answer about the Lease: %s", error or "it took too long")
            return False
        if held:
            self._leads_until = asked + self._election.seconds * DEADLINE
        elif self._holder != self._identity:
            self._leads_until = -1.0
        return held

    async def _claim(self) -> bool:
        namespace, name = self._election.namespace, self._election.name
        found = await self._cluster.get(LEASES, namespace, name)
        if found is None:
            created = await self._cluster.create(LEASES, self._build())
            self._remember(created or {})
            return created is not None
        self._remember(found)
        return self._is_free() and await self._write(self._renewal())

    def _remember(self, lease: Manifest) -> None:
        if lease.get("spec") != self._lease.get("spec"):
            self._seen_at = self._clock()
        self._lease = lease

    @property
    def _holder(self) -> str:
        return str((self._lease.get("spec") or {}).get("holderIdentity") or "")

    def _is_free(self) -> bool:
        promised = (self._lease.get("spec") or {}).get("leaseDurationSeconds") or 0
        ran_out = self._clock() >= self._seen_at + max(promised, self._election.seconds)
        return self._holder in {"", self._identity} or ran_out

    def _renewal(self) -> Manifest:
        spec = {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": self._election.seconds,
            "renewTime": _now(),
        }
        if self._holder == self._identity:
            return spec
        changes = (self._lease.get("spec") or {}).get("leaseTransitions") or 0
        return {**spec, "acquireTime": spec["renewTime"], "leaseTransitions": changes + 1}

    def _build(self) -> Manifest:
        return {
            "apiVersion": LEASES.api_version,
            "kind": LEASES.kind,
            "metadata": {"namespace": self._election.namespace, "name": self._election.name},
            "spec": {**self._renewal(), "leaseTransitions": 0, "acquireTime": _now()},
        }

    async def _write(self, spec: Manifest) -> bool:
        """Raises Conflict when somebody wrote since the lease was read."""
        body = {"metadata": {"resourceVersion": self._lease["metadata"]["resourceVersion"]}, "spec": spec}
        written = await self._cluster.patch(LEASES, self._election.namespace, self._election.name, body)
        self._remember(written or {})
        return written is not None


def _now() -> str:
    """A Kubernetes timestamp of microseconds, as Leases have it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
