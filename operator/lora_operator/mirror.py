"""Mirrors the cluster in the cache: kopf watches, our own lists follow. Run by `application`.

A watch that begins anew after a list says nothing of what was deleted in between; so each such beginning is followed by
a list of our own, whose absences count. Nothing is decided before every kind was listed so.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial

from lora_operator.cache import Kind
from lora_operator.cluster import TRAININGS, Cluster
from lora_operator.connection import Connection
from lora_operator.errors import OperatorError
from lora_operator.handlers import Watches, build_registry
from lora_operator.informer import RESOURCES, Informer
from lora_operator.queue import backoff_seconds
from lora_operator.subject import Manifest

log = logging.getLogger(__name__)

WATCH_PATIENCE_SECONDS = 60.0
"""Watches begin at once, or after some tries while the API server is away."""

OnError = Callable[[OperatorError], None]
"""Told of every list that failed; it is tried again."""


class Mirror:
    """The watches and lists of one operator, for some namespaces or (none given) for all."""

    def __init__(
        self,
        informer: Informer,
        cluster: Cluster,
        connection: Connection,
        *,
        namespaces: tuple[str, ...],
        on_error: OnError,
    ) -> None:
        self._informer = informer
        self._cluster = cluster
        self._namespaces = namespaces
        self._on_error = on_error
        self._begun: asyncio.Queue[str] = asyncio.Queue()
        self._arrived: deque[tuple[Kind, str | None, Manifest]] = deque()
        """Events on their way from kopf's thread."""
        self._places: dict[str, tuple[Kind, str | None]] = {
            resource.path(namespace): (kind, namespace)
            for kind, (resource, _) in RESOURCES.items()
            for namespace in namespaces or (None,)
        }
        self._unlisted = set(self._places)
        self._listed = asyncio.Event()
        self._watches: Watches | None = None
        self._connection = connection

    @property
    def has_ended(self) -> bool:
        """Whether the watches have stopped by themselves."""
        return self._watches is not None and not self._watches.is_alive

    @property
    def is_true(self) -> bool:
        """Whether everything was listed since its watch began."""
        return self._listed.is_set()

    async def until_true(self) -> None:
        """Waits until everything was listed."""
        await self._listed.wait()

    async def follow(self) -> None:
        """Starts the watches once the definition is there, and lists behind each of them for ever."""
        for namespace in self._namespaces or (None,):
            await self._insist("the definition", partial(self._cluster.probe, TRAININGS, namespace))
        self._start()
        while True:
            path = await self._next_begun()
            kind, namespace = self._places[path]
            await self._insist(path, partial(self._informer.relist, kind, namespace))
            self._unlisted.discard(path)
            if not self._unlisted:
                self._listed.set()

    async def _next_begun(self) -> str:
        """Raises OperatorError when watches that should have begun long ago have not, although the server answers.

        kopf asks the server once which kinds there are: one that was not named yet, as happens just after its
        definition was made, is never watched.
        """
        while True:
            try:
                async with asyncio.timeout(None if self.is_true else WATCH_PATIENCE_SECONDS):
                    return await self._begun.get()
            except TimeoutError:
                for namespace in self._namespaces or (None,):
                    await self._insist("the definition", partial(self._cluster.probe, TRAININGS, namespace))
                if self._begun.empty():
                    waiting = ", ".join(sorted(self._unlisted))
                    raise OperatorError(
                        f"no watch of {waiting} began within {WATCH_PATIENCE_SECONDS:.0f} s; starting anew helps when "
                        "the API server did not name the kind yet"
                    ) from None

    async def resync(self) -> None:
        """Lists everything again. Raises the errors of `cluster`."""
        await self._informer.resync(self._namespaces)

    def stop(self) -> None:
        """Ends the watches and waits for them; blocks."""
        if self._watches is not None:
            self._watches.stop()

    def _start(self) -> None:
        loop = asyncio.get_running_loop()

        def take_in() -> None:
            while self._arrived:
                loop.call_soon(self._informer.handle, *self._arrived.popleft())

        def sink(kind: Kind, change: str | None, body: Manifest) -> None:
            self._arrived.append((kind, change, body))
            if len(self._arrived) == 1:
                # One call wakes the loop for a whole burst: each is a write, and a turn at the interpreter's lock.
                loop.call_soon_threadsafe(take_in)

        def begun(path: str) -> None:
            if path in self._places:
                loop.call_soon_threadsafe(self._begun.put_nowait, path)

        self._watches = Watches(build_registry(sink, begun, self._connection), self._namespaces)
        self._watches.start()
        log.info("watching %s", ", ".join(self._namespaces) or "all namespaces")

    async def _insist(self, what: str, work: Callable[[], Awaitable[None]]) -> None:
        """Tries until it works."""
        failures = 0
        while True:
            try:
                return await work()
            except OperatorError as error:
                self._on_error(error)
                delay = backoff_seconds(failures)
                failures += 1
                log.warning("cannot list %s yet: %s; trying again in %.1f s", what, error, delay)
                await asyncio.sleep(delay)
