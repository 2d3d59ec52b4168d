"""Puts the operator together and runs it until it is told to stop. Used by `__main__` and the scenario tests."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

from lora_operator.cache import Cache, Kind
from lora_operator.cluster import open_cluster
from lora_operator.connection import Connection
from lora_operator.controller import Controller, World
from lora_operator.errors import OperatorError
from lora_operator.handlers import Watches, build_registry
from lora_operator.informer import Informer
from lora_operator.metrics import Metrics
from lora_operator.observed import Key, Manifest
from lora_operator.poller import ProgressPoller
from lora_operator.profiles import ProfileFile
from lora_operator.progress import open_progress_reader
from lora_operator.queue import WorkQueue, backoff_seconds
from lora_operator.recorder import EventRecorder
from lora_operator.server import Checks, Server
from lora_operator.settings import Settings

log = logging.getLogger(__name__)

PROFILES_SECONDS = 5.0
"""How often the profiles file is looked at; the kubelet itself takes up to a minute to change it."""
BEAT_SECONDS = 1.0
DEAD_AFTER_SECONDS = 60.0


class Application:
    """One operator process."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._metrics = Metrics()
        self._queue: WorkQueue[Key] = WorkQueue()
        self._cache = Cache()
        self._profiles = ProfileFile.open(settings.profiles_file)
        self._watches: Watches | None = None
        self._beat = time.monotonic()
        self.port = 0
        """Port of /metrics, once it runs."""
        self._metrics.loop.queue_length = self._queue.__len__

    async def run(self, stop: asyncio.Event) -> None:
        """Serves until `stop` is set. Raises OperatorError when the operator cannot go on."""
        settings = self._settings
        address = (settings.http_address, settings.http_port)
        server = Server(address, self._metrics.registry, Checks(self._health, self._readiness))
        self.port = server.port
        try:
            async with AsyncExitStack() as stack:
                await self._serve(stack, stop)
        finally:
            server.close()

    async def _serve(self, stack: AsyncExitStack, stop: asyncio.Event) -> None:
        connection = await Connection.open(self._settings.kubeconfig)
        cluster = await stack.enter_async_context(open_cluster(connection, self._metrics.count_request))
        reader = await stack.enter_async_context(open_progress_reader())
        informer = Informer(cluster, self._cache, self._queue, self._metrics)
        recorder = EventRecorder(cluster, self._settings.identity)
        world = World(cluster, self._cache, self._queue, self._profiles, self._metrics, recorder)
        controller = Controller(world, resync_seconds=self._settings.resync_seconds)
        poller = ProgressPoller(reader, self._cache, self._queue, self._metrics)
        tasks = [
            asyncio.create_task(self._keep_alive()),
            asyncio.create_task(self._every(self._settings.progress_interval_seconds, poller.poll)),
            asyncio.create_task(self._every(PROFILES_SECONDS, self._refresh_profiles)),
            asyncio.create_task(self._watch(informer, connection)),
            *(asyncio.create_task(controller.work()) for _ in range(self._settings.workers)),
        ]
        try:
            await self._wait(stop, tasks)
        finally:
            await self._end(tasks)

    async def _wait(self, stop: asyncio.Event, tasks: list[asyncio.Task[None]]) -> None:
        stopping = asyncio.create_task(stop.wait())
        try:
            done, _ = await asyncio.wait({stopping, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
        for task in done - {stopping}:
            await task

    async def _end(self, tasks: list[asyncio.Task[None]]) -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._watches is not None:
            await asyncio.to_thread(self._watches.stop)

    async def _watch(self, informer: Informer, connection: Connection) -> None:
        """Lists everything first, so that the watches begin on a kind that exists, then again and again."""
        await self._until_listed(informer)
        loop = asyncio.get_running_loop()

        def sink(kind: Kind, change: str | None, body: Manifest) -> None:
            loop.call_soon_threadsafe(informer.handle, kind, change, body)

        self._watches = Watches(build_registry(sink, connection), self._settings.namespaces)
        self._watches.start()
        log.info("watching %s", ", ".join(self._settings.namespaces) or "all namespaces")
        await self._every(self._settings.resync_seconds, lambda: informer.resync(self._settings.namespaces))

    async def _until_listed(self, informer: Informer) -> None:
        failures = 0
        while True:
            try:
                return await informer.resync(self._settings.namespaces)
            except OperatorError as error:
                self._metrics.errors.labels(error.kind).inc()
                delay = backoff_seconds(failures)
                failures += 1
                log.warning("cannot list yet: %s; trying again in %.1f s", error, delay)
                await asyncio.sleep(delay)

    async def _every(self, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        """Does the work now and then; what fails once is tried again at its next turn."""
        while True:
            await asyncio.sleep(seconds)
            try:
                await work()
            except OperatorError as error:
                self._metrics.errors.labels(error.kind).inc()
                log.warning("%s", error)

    async def _refresh_profiles(self) -> None:
        if await asyncio.to_thread(self._profiles.refresh):
            log.info("the profiles are now %s", ", ".join(sorted(self._profiles.current)))
            for key in self._cache:
                self._queue.add(key)

    async def _keep_alive(self) -> None:
        """Beats for the liveness probe, and ends when the watches have ended."""
        while self._watches is None or self._watches.is_alive:
            self._beat = time.monotonic()
            await asyncio.sleep(BEAT_SECONDS)
        raise OperatorError("the watches have ended")

    def _health(self) -> str:
        silent = time.monotonic() - self._beat
        return f"the event loop is stuck for {silent:.0f} s" if silent > DEAD_AFTER_SECONDS else ""

    def _readiness(self) -> str:
        ready = self._watches is not None and self._watches.is_ready
        return "" if ready else "the cluster was not listed yet"
