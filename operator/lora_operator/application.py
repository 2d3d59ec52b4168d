"""Puts the operator together and runs it until it is told to stop. Used by `__main__` and the scenario tests."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any

from lora_operator.cache import Cache
from lora_operator.cluster import open_cluster
from lora_operator.connection import Connection
from lora_operator.controller import Controller, World
from lora_operator.errors import OperatorError
from lora_operator.informer import Informer
from lora_operator.leader import Leader, make_identity
from lora_operator.metrics import Metrics
from lora_operator.mirror import Mirror
from lora_operator.poller import ProgressPoller
from lora_operator.profiles import ProfileFile
from lora_operator.progress import open_progress_reader
from lora_operator.queue import WorkQueue
from lora_operator.recorder import EventRecorder
from lora_operator.server import Checks, Server
from lora_operator.settings import Settings
from lora_operator.subject import Key

log = logging.getLogger(__name__)

PROFILES_SECONDS = 5.0
"""How often the profiles file is looked at; the kubelet itself takes up to a minute to change it."""
BEAT_SECONDS = 1.0
DEAD_AFTER_SECONDS = 60.0


Work = list[Callable[[], Coroutine[Any, Any, None]]]
"""What runs for ever while this operator acts."""


def always() -> bool:
    """An operator without election may write at any time."""
    return True


async def until_first(*work: Coroutine[Any, Any, Any]) -> None:
    """Runs everything side by side until one ends, and ends the others. Raises what that one raised."""
    tasks = [asyncio.create_task(coroutine) for coroutine in work]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


class Application:
    """One operator process."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._metrics = Metrics()
        self._queue: WorkQueue[Key] = WorkQueue(is_open=False)
        self._metrics.loop.queue_length = self._queue.__len__
        self._cache = Cache()
        self._profiles = ProfileFile.open(settings.profiles_file)
        self._mirror: Mirror | None = None
        self._beat = time.monotonic()
        self.port = 0
        """Port of /metrics, once it runs."""

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
        leader = await self._candidate(stack, connection)
        may_write = leader.leads if leader else always
        cluster = await stack.enter_async_context(
            open_cluster(connection, self._metrics.count_request, may_write=may_write)
        )
        reader = await stack.enter_async_context(open_progress_reader())
        informer = Informer(cluster, self._cache, self._queue, self._metrics)
        self._mirror = mirror = Mirror(
            informer, cluster, connection, namespaces=self._settings.namespaces, on_error=self._count_error
        )
        recorder = EventRecorder(cluster, self._settings.identity)
        world = World(cluster, self._cache, self._queue, self._profiles, self._metrics, recorder)
        settings = self._settings
        controller = Controller(
            world,
            resync_seconds=settings.resync_seconds,
            status_interval_seconds=settings.status_interval_seconds,
        )
        poller = ProgressPoller(
            reader,
            self._cache,
            self._queue,
            self._metrics,
            status_interval_seconds=settings.status_interval_seconds,
        )
        work = [
            lambda: self._every(self._settings.progress_interval_seconds, poller.poll),
            *(controller.work for _ in range(self._settings.workers)),
        ]
        try:
            await until_first(
                stop.wait(),
                self._keep_alive(),
                self._every(PROFILES_SECONDS, self._refresh_profiles),
                mirror.follow(),
                self._every(settings.resync_seconds, mirror.resync),
                self._act(leader, mirror, work),
            )
        finally:
            await asyncio.to_thread(mirror.stop)

    async def _candidate(self, stack: AsyncExitStack, connection: Connection) -> Leader | None:
        """This process in the election, with connections of its own: a renewal must not queue behind work."""
        election = self._settings.election
        if election is None:
            return None
        cluster = await stack.enter_async_context(open_cluster(connection, self._metrics.count_request))
        return Leader(cluster, election, identity=make_identity(self._settings.identity))

    async def _act(self, leader: Leader | None, mirror: Mirror, work: Work) -> None:
        """Works while it is this operator's turn; until then its cache only keeps warm."""
        await mirror.until_true()
        if leader is not None:
            await leader.acquire()
        self._metrics.leader.set(1)
        # Whoever stood by has kept no keys: in months they would be those of all trainings that ever were.
        self._queue.open()
        self._add_all()
        if leader is None:
            return await until_first(*(start() for start in work))
        try:
            await until_first(leader.keep(), *(start() for start in work))
        finally:
            # All work has ended by now: the next one may start.
            self._metrics.leader.set(0)
            await leader.release()

    async def _every(self, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        """Does the work now and then; what fails once is tried again at its next turn."""
        while True:
            await asyncio.sleep(seconds)
            try:
                await work()
            except OperatorError as error:
                self._count_error(error)
                log.warning("%s", error)

    def _count_error(self, error: OperatorError) -> None:
        self._metrics.errors.labels(error.kind).inc()

    async def _refresh_profiles(self) -> None:
        if await asyncio.to_thread(self._profiles.refresh):
            log.info("the profiles are now %s", ", ".join(sorted(self._profiles.current)))
            self._add_all()

    def _add_all(self) -> None:
        for key in self._cache:
            self._queue.add(key, can_wait=self._cache.is_settled(key))

    async def _keep_alive(self) -> None:
        """Beats for the liveness probe, and ends when the watches have ended."""
        while self._mirror is None or not self._mirror.has_ended:
            self._beat = time.monotonic()
            await asyncio.sleep(BEAT_SECONDS)
        raise OperatorError("the watches have ended")

    def _health(self) -> str:
        silent = time.monotonic() - self._beat
        return f"the event loop is stuck for {silent:.0f} s" if silent > DEAD_AFTER_SECONDS else ""

    def _readiness(self) -> str:
        ready = self._mirror is not None and self._mirror.is_true
        return "" if ready else "the cluster was not listed yet"
