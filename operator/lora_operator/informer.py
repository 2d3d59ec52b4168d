"""Keeps the cache true: takes in what the watches deliver, and lists everything now and then. Used by `application`.

A watch may lose deletions (an expired one starts again without them), so the lists have the last word.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence

from lora_operator.cache import KINDS, Cache, Kind
from lora_operator.cluster import JOBS, PODS, TRAININGS, Cluster, Resource
from lora_operator.metrics import Metrics
from lora_operator.queue import WorkQueue
from lora_operator.selectors import MANAGED
from lora_operator.subject import Key, Manifest

log = logging.getLogger(__name__)

SETTLE_SECONDS = 0.1
"""Changes of Jobs and pods come in bursts: one look after the burst is enough."""
RESOURCES: dict[Kind, tuple[Resource, str]] = {
    "training": (TRAININGS, ""),
    "job": (JOBS, MANAGED),
    "pod": (PODS, MANAGED),
}


class Informer:
    """Fills the cache and queues the trainings that need a look."""

    def __init__(self, cluster: Cluster, cache: Cache, queue: WorkQueue[Key], metrics: Metrics) -> None:
        self._cluster = cluster
        self._cache = cache
        self._queue = queue
        self._metrics = metrics
        self._dropped: set[str] = set()
        self._turn = asyncio.Lock()

    def handle(self, kind: Kind, change: str | None, body: Manifest) -> None:
        """Takes in one event of a watch; `change` is None for what was there when the watch began."""
        self._metrics.loop.note_event(kind)
        take = self._cache.put
        if change == "DELETED":
            self._dropped.add(body["metadata"]["uid"])
            take = self._cache.drop
        key = self._try(take, kind, body)
        if key is None:
            return
        if kind == "training":
            self._add(key)
        else:
            self._queue.add_after(key, SETTLE_SECONDS)

    async def resync(self, namespaces: tuple[str, ...]) -> None:
        """Lists everything, forgets what is gone and queues all trainings. Raises the errors of `cluster`."""
        try:
            for kind in KINDS:
                await self._list(kind, namespaces or (None,))
        finally:
            # What one list brought is no news when its watch tells it, so nobody else would look.
            self.add_all()

    async def relist(self, kind: Kind, namespace: str | None) -> None:
        """Lists one kind, of one namespace or of all, forgets what is gone and queues all trainings."""
        await self._list(kind, (namespace,))
        self.add_all()

    def add_all(self) -> None:
        """Queues all trainings."""
        for key in self._cache:
            self._add(key)

    def _add(self, key: Key) -> None:
        # Thousands that ended long ago must not keep a new one waiting.
        self._queue.add(key, can_wait=self._cache.is_settled(key))

    async def _list(self, kind: Kind, namespaces: Sequence[str | None]) -> None:
        # One at a time: what was deleted meanwhile is remembered for one list only.
        async with self._turn:
            await self._take_in(kind, namespaces)

    async def _take_in(self, kind: Kind, namespaces: Sequence[str | None]) -> None:
        resource, labels = RESOURCES[kind]
        known = {uid for namespace in namespaces for uid in self._cache.uids(kind, namespace)}
        self._dropped.clear()
        found: list[Manifest] = []
        for namespace in namespaces:
            found += await self._cluster.list(resource, namespace, labels=labels)
        listed = {body["metadata"]["uid"] for body in found}
        for body in found:
            # Deleted while the list was on its way: the list is older than that.
            if body["metadata"]["uid"] not in self._dropped:
                self._try(self._cache.put, kind, _typed(body, resource))
        gone = known - listed
        if gone:
            log.info("%d objects of kind %s are gone without notice", len(gone), resource.kind)
            self._cache.prune(kind, gone)

    def _try(self, take: Callable[[Kind, Manifest], Key | None], kind: Kind, body: Manifest) -> Key | None:
        try:
            return take(kind, body)
        except Exception:
            # A bug that one object triggers must not hide the others.
            self._metrics.errors.labels("bug").inc()
            meta = body["metadata"]
            log.exception("%s %s/%s cannot be understood", kind, meta["namespace"], meta["name"])
            return None


def _typed(body: Manifest, resource: Resource) -> Manifest:
    """Items of a list come without their type."""
    return {"apiVersion": resource.api_version, "kind": resource.kind, **body}
