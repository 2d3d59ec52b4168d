"""Asks all running pods for their progress, and for states that somebody wants, round after round. Run by
`application`."""

import asyncio
import logging

from lora_api import ProgressReport, names
from lora_operator.cache import Cache
from lora_operator.metrics import Metrics
from lora_operator.observed import Pod
from lora_operator.progress import ProgressReader
from lora_operator.queue import WorkQueue
from lora_operator.subject import Key

log = logging.getLogger(__name__)


def goes_on(before: ProgressReport | None, after: ProgressReport) -> bool:
    """Whether all that is new is a step more: nothing that a decision depends on."""
    if before is None or before.progress is None or after.progress is None:
        return False
    moved = {"progress": after.progress, "active_time": after.active_time}
    return before.model_copy(update=moved) == after


class ProgressPoller:
    """Fills the cache with what pods say, and queues the trainings that have news.

    A training that merely goes on has its look within `status_interval_seconds`: no status would be written earlier.
    """

    def __init__(
        self,
        reader: ProgressReader,
        cache: Cache,
        queue: WorkQueue[Key],
        metrics: Metrics,
        *,
        status_interval_seconds: float = 0.0,
    ) -> None:
        self._reader = reader
        self._cache = cache
        self._queue = queue
        self._metrics = metrics
        self._status_interval_seconds = status_interval_seconds

    async def poll(self) -> None:
        """Asks every running pod once."""
        await asyncio.gather(*(self._try(key, pod) for key, pod in self._cache.running_pods()))

    async def _try(self, key: Key, pod: Pod) -> None:
        try:
            await self._ask(key, pod)
        except Exception:
            # A bug that one pod triggers must not stop the others.
            self._metrics.errors.labels("bug").inc()
            log.exception("%s: asking pod %s", key, pod.name)

    async def _ask(self, key: Key, pod: Pod) -> None:
        report = await self._reader.read(pod.ip)
        if report is not None and pod.stage == names.STAGE_TRAINING and pod.is_running:
            await self._pass_on(key, pod, report)
        before = self._cache.report(key, pod.uid)
        if report is None or not self._cache.put_report(key, pod.uid, report):
            return
        # Queued first: what is kept is no news the next time.
        if goes_on(before, report):
            self._queue.add_after(key, self._status_interval_seconds)
        else:
            self._queue.add(key)
        if pod.stage == names.STAGE_TRAINING:
            self._metrics.trainings.hear(key, report)

    async def _pass_on(self, key: Key, pod: Pod, report: ProgressReport) -> None:
        """Asks for the state that somebody wants, round after round until the pod says that it is stored."""
        wish = self._cache.open_request(key)
        if wish and wish != report.checkpoint_request:
            await self._reader.request_state(pod.ip, wish)
