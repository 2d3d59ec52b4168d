"""kopf as informer: watches trainings, Jobs and pods and hands every event on. Used by `application`.

Nothing is decided here, and kopf writes nothing: no finalizers, no annotations, no events.
"""

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import Any

import aiohttp
import kopf

from lora_api import names
from lora_operator.cache import Kind
from lora_operator.connection import Connection
from lora_operator.selectors import MANAGED
from lora_operator.subject import Manifest

log = logging.getLogger(__name__)

WATCHER = f"{names.MANAGER}-watch/{names.VERSION}"
Sink = Callable[[Kind, str | None, Manifest], None]
"""Takes one event: kind, type (None: was there when the watch began), object. Called on kopf's thread."""


Begun = Callable[[str], None]
"""Told the path of a collection whose watch has begun after a list: deletions before it were not told to anybody."""


def build_registry(sink: Sink, begun: Begun, connection: Connection) -> kopf.OperatorRegistry:
    """The handlers, for one operator."""
    registry = kopf.OperatorRegistry()
    trace = trace_watches(begun)

    @kopf.on.login(registry=registry, id="login")
    async def login(**_: Any) -> kopf.AiohttpSession:
        return await open_session(connection, trace)

    def forward(kind: Kind, event: Any) -> None:
        sink(kind, event["type"], dict(event["object"]))

    @kopf.on.event(names.GROUP, names.VERSION, names.PLURAL, registry=registry, id="training")
    async def on_training(event: Any, **_: Any) -> None:
        forward("training", event)

    @kopf.on.event("batch", "v1", "jobs", registry=registry, id="job", labels=_ours())
    async def on_job(event: Any, **_: Any) -> None:
        forward("job", event)

    @kopf.on.event("", "v1", "pods", registry=registry, id="pod", labels=_ours())
    async def on_pod(event: Any, **_: Any) -> None:
        forward("pod", event)

    return registry


def _ours() -> dict[str, Any]:
    return {names.LABEL_MANAGED_BY: names.MANAGER, names.LABEL_TRAINING: kopf.PRESENT}


async def open_session(connection: Connection, trace: aiohttp.TraceConfig) -> kopf.AiohttpSession:
    """Our connection in kopf's terms; asked again whenever the API server no longer accepts the token."""
    authorization = await connection.authorization()
    headers = {"User-Agent": WATCHER, **({"Authorization": authorization} if authorization else {})}
    connector = aiohttp.TCPConnector(limit=0, ssl=await connection.ssl_context() or True)
    session = aiohttp.ClientSession(connector=connector, headers=headers, trace_configs=[trace])
    return kopf.AiohttpSession(aiohttp_session=session, server=connection.url)


def trace_watches(begun: Begun) -> aiohttp.TraceConfig:
    """Sees kopf's requests: it lists a collection, and watches it from there on."""
    listed: set[str] = set()

    async def note(_session: aiohttp.ClientSession, _context: object, answered: aiohttp.TraceRequestEndParams) -> None:
        if answered.method != "GET" or answered.response.status != 200:
            return
        path = answered.url.path
        if answered.url.query.get("watch") != "true":
            listed.add(path)
        elif path in listed:
            listed.discard(path)
            begun(path)

    trace = aiohttp.TraceConfig()
    trace.on_request_end.append(note)
    return trace


def build_settings(namespaces: tuple[str, ...]) -> kopf.OperatorSettings:
    """kopf's settings: watch by label, post nothing, and ask for nothing that namespaced rights do not give."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.persistence.diffbase_storage = NoDiffs()
    settings.networking.connect_timeout = 10
    settings.networking.request_timeout = 60
    settings.watching.label_selectors["batch", "v1", "jobs"] = MANAGED
    settings.watching.label_selectors["v1", "pods"] = MANAGED
    settings.watching.chunk_size = 500
    # In a list of namespaces the rights to watch namespaces and definitions are missing on purpose.
    settings.scanning.disabled = bool(namespaces)
    return settings


class NoDiffs(kopf.DiffBaseStorage):
    """Compares nothing and stores nothing: copying every object to see what changed was half of kopf's time."""

    def build(self, **_: Any) -> Any:
        """Nothing of an object matters."""
        return {}

    def fetch(self, **_: Any) -> None:
        """Nothing was seen before."""

    def store(self, **_: Any) -> None:
        """Nothing is kept."""


class Watches:
    """kopf on a thread and event loop of its own: when it stops it cancels every task of its loop."""

    def __init__(self, registry: kopf.OperatorRegistry, namespaces: tuple[str, ...]) -> None:
        self._registry = registry
        self._namespaces = namespaces
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watches", daemon=True)

    def start(self) -> None:
        """Starts watching."""
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether kopf still runs."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Ends the watches and waits for them."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            asyncio.run(
                kopf.operator(
                    registry=self._registry,
                    settings=build_settings(self._namespaces),
                    standalone=True,
                    clusterwide=not self._namespaces,
                    namespaces=self._namespaces,
                    stop_flag=self._stop,
                )
            )
        except Exception:
            # The application sees that the thread has ended, and ends too.
            log.exception("the watches have ended")
