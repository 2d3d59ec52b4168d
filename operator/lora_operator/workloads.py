"""Reads Kueue's Workloads, at a bounded rate and only while Kueue is there. Used by `controller`."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from lora_operator import kueue
from lora_operator.cluster import Cluster, Resource
from lora_operator.errors import ClusterUnavailable, Refused
from lora_operator.kueue import QueueState
from lora_operator.observed import Job
from lora_operator.subject import Key
from lora_operator.timestamps import parse_time

LEAST_SECONDS = 0.25
WAITING_SECONDS = 10.0
RUNNING_SECONDS = 60.0
LOOKS_PER_SECOND = 10.0
"""Many waiting Jobs are looked at less often each."""
PROBE_SECONDS = 60.0
"""How often a missing Kueue is looked for again."""
YOUNG_SECONDS = 10.0
"""How long a Job that someone else suspended waits for a Workload before it is taken to be nobody's."""
_API_GROUP = Resource("apis", kueue.GROUP, "APIGroup", "v1")


def utc_now() -> datetime:
    """The time of day."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class _Look:
    uid: str
    suspend: bool
    pod: str
    since: float
    """When this state of the Job was first seen."""
    time: float
    state: QueueState | None


def _is_of(look: _Look, job: Job, pod: str) -> bool:
    """Whether nobody has started or stopped the Job since; one that was both meanwhile, unseen, has another pod."""
    return (look.uid, look.suspend) == (job.uid, job.suspend) and look.pod in {"", pod}


class WorkloadReader:
    """What queues say about Jobs. An answer is kept for a while: the longer nothing changed, the longer."""

    def __init__(
        self,
        cluster: Cluster,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._cluster = cluster
        self._clock = clock
        self._now = now
        self._looks: dict[Key, _Look] = {}
        self._version = ""
        self._probed: float | None = None
        self._asking = asyncio.Lock()

    async def read(self, key: Key, job: Job, *, pod: str = "") -> QueueState | None:
        """What the queue says about the Job, whose newest pod has this uid; None: it names no queue, and no queue has
        taken it."""
        look = self._looks.get(key)
        is_same = look is not None and _is_of(look, job, pod)
        if look is not None and is_same and self.seconds_left(key) > 0:
            self._looks[key] = replace(look, pod=pod)
            return look.state
        state = await self._read(key, job)
        now = self._clock()
        since = look.since if look and is_same else now
        self._looks[key] = _Look(job.uid, job.suspend, pod, since, now, state)
        return state

    def seconds_left(self, key: Key) -> float:
        """How long the last answer about the training's Job is good for."""
        look = self._looks[key]
        usual = WAITING_SECONDS if look.suspend else RUNNING_SECONDS
        longest = max(usual, len(self._looks) / LOOKS_PER_SECOND)
        patience = min(max(look.time - look.since, LEAST_SECONDS), longest)
        return max(0.0, look.time + patience - self._clock())

    def forget(self, key: Key) -> None:
        """Drops what is known of a training whose Job is over or gone."""
        self._looks.pop(key, None)

    async def _read(self, key: Key, job: Job) -> QueueState | None:
        try:
            if not await self._is_there():
                return kueue.absent(job.queue_name) if job.queue_name else None
            resource = Resource(f"apis/{kueue.GROUP}/{self._version}", "workloads", "Workload", "")
            found = await self._cluster.list(resource, key.namespace, labels=f"{kueue.LABEL_JOB_UID}={job.uid}")
        except Refused as error:
            return kueue.unreadable(job.queue_name, str(error)) if job.queue_name else None
        except ClusterUnavailable:
            # A kind that is gone is answered like an outage: look for it again.
            self._version, self._probed = "", None
            raise
        if found:
            return kueue.parse_workload(found[0])
        # Kueue may suspend Jobs of no queue as well; it makes their Workload a moment later.
        may_come = job.suspend and (self._now() - parse_time(job.created)).total_seconds() < YOUNG_SECONDS
        return kueue.without_workload(job.queue_name) if job.queue_name or may_come else None

    async def _is_there(self) -> bool:
        """Whether the API server knows Workloads, and in which version."""
        # Whoever comes while another one asks waits for the answer: not to know is not to have none.
        async with self._asking:
            now = self._clock()
            if not self._version and (self._probed is None or now - self._probed >= PROBE_SECONDS):
                group = await self._cluster.get(_API_GROUP, "", "") or {}
                served = {entry["version"] for entry in group.get("versions") or ()}
                self._version = next((version for version in kueue.VERSIONS if version in served), "")
                self._probed = now
            return bool(self._version)
