"""Asks all running pods for their progress, and for states that somebody wants, round after round. Run by
`application`."""

import asyncio

from lora_api import ProgressReport, names
from lora_operator.cache import Cache
from lora_operator.metrics import Metrics
from lora_operator.observed import Pod
from lora_operator.progress import ProgressReader
from lora_operator.queue import WorkQueue
from lora_operator.subject import Key


class ProgressPoller:
    """Fills the cache with what pods say, and queues the trainings that have news."""

    def __init__(self, reader: ProgressReader, cache: Cache, queue: WorkQueue[Key], metrics: Metrics) -> None:
        self._reader = reader
        self._cache = cache
        self._queue = queue
        self._metrics = metrics

    async def poll(self) -> None:
        """Asks every running pod once."""
        await asyncio.gather(*(self._ask(key, pod) for key, pod in self._cache.running_pods()))

    async def _ask(self, key: Key, pod: Pod) -> None:
        report = await self._reader.read(pod.ip)
        if report is not None and pod.stage == names.STAGE_TRAINING and pod.is_running:
            await self._pass_on(key, pod, report)
        if report is None or not self._cache.put_report(key, pod.uid, report):
            return
        if pod.stage == names.STAGE_TRAINING:
            self._metrics.trainings.hear(key, report)
        self._queue.add(key)

    async def _pass_on(self, key: Key, pod: Pod, report: ProgressReport) -> None:
        """Asks for the state that somebody wants, round after round until the pod says that it is stored."""
        wish = self._cache.open_request(key)
        if wish and wish != report.checkpoint_request:
            await self._reader.request_state(pod.ip, wish)
