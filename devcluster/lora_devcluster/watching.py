"""Watch streams: changes since a version, then live ones, as the client's selector and format want them."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from lora_devcluster.errors import ApiError, Json, bad_request
from lora_devcluster.resources import Resource
from lora_devcluster.selectors import Predicate
from lora_devcluster.store import Change, Store

BOOKMARK_SECONDS = 10.0
_END_OF_LIST = {"k8s.io/initial-events-end": "true"}


@dataclass(frozen=True)
class WatchRequest:
    """What a client wants to see, and from where on."""

    resource: Resource
    namespace: str
    selects: Predicate
    version: int | None = None
    initial_events: bool = False
    bookmarks: bool = False
    timeout_seconds: float = 1800.0

    @classmethod
    def from_query(
        cls, resource: Resource, namespace: str, selects: Predicate, query: Mapping[str, str]
    ) -> "WatchRequest":
        """Raises ApiError 400 for a version that is no number."""
        version = _digits(query, "resourceVersion")
        initial = query.get("sendInitialEvents") == "true" or version in ("", "0")
        return cls(
            resource,
            namespace,
            selects,
            version=None if initial else int(version),
            initial_events=query.get("sendInitialEvents") == "true",
            bookmarks=query.get("allowWatchBookmarks") == "true",
            timeout_seconds=float(_digits(query, "timeoutSeconds") or 1800),
        )


def _digits(query: Mapping[str, str], name: str) -> str:
    text = query.get(name, "")
    if text and not text.isdigit():
        raise bad_request(f"{name}: Invalid value: {text!r}: must be a whole number")
    return text


class Watches:
    """All open watches of a server; `drop` ends them as a lost connection would, `losses` lose single events."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.losses: list[Callable[[Json], bool]] = []
        self._open: set[asyncio.Queue[Change | None]] = set()

    def drop(self) -> None:
        for queue in tuple(self._open):
            queue.put_nowait(None)

    async def events(self, request: WatchRequest) -> AsyncIterator[Json]:
        """Watch events until the timeout, the end of the server, or an expired version (an ERROR event)."""
        queue: asyncio.Queue[Change | None] = asyncio.Queue()
        collection = (request.resource.group, request.resource.plural)

        def listen(change: Change) -> None:
            if change.key.collection == collection:
                queue.put_nowait(change)

        unsubscribe = self._store.subscribe(listen)
        self._open.add(queue)
        try:
            for event in self._first(request):
                yield event
            async for event in self._live(request, queue):
                if not any(loses(event) for loses in self.losses):
                    yield event
        except ApiError as error:
            yield {"type": "ERROR", "object": error.status()}
        finally:
            self._open.discard(queue)
            unsubscribe()

    def _first(self, request: WatchRequest) -> list[Json]:
        resource = request.resource
        if request.version is not None:
            past = self._store.changes_since(resource.group, resource.plural, request.version)
            return [event for change in past if (event := _event(request, change))]
        objects = self._store.objects(resource.group, resource.plural, request.namespace)
        events = [{"type": "ADDED", "object": obj} for obj in objects if request.selects(obj)]
        if request.initial_events and request.bookmarks:
            events.append(_bookmark(resource, self._store.version, _END_OF_LIST))
        return events

    async def _live(self, request: WatchRequest, queue: asyncio.Queue[Change | None]) -> AsyncIterator[Json]:
        loop = asyncio.get_running_loop()
        end, bookmark_due = loop.time() + request.timeout_seconds, loop.time() + BOOKMARK_SECONDS
        while (now := loop.time()) < end:
            with suppress(TimeoutError):
                # What lies there already goes out at once: a turn of the loop for each would make busy watches late.
                patience = max(min(end, bookmark_due) - now, 0.001)
                change = await asyncio.wait_for(queue.get(), patience) if queue.empty() else queue.get_nowait()
                if change is None:
                    return
                if event := _event(request, change):
                    yield event
            if queue.empty() and loop.time() >= bookmark_due:
                bookmark_due = loop.time() + BOOKMARK_SECONDS
                if request.bookmarks:
                    yield _bookmark(request.resource, self._store.version, {})


def _bookmark(resource: Resource, version: int, annotations: Mapping[str, str]) -> Json:
    meta: Json = {"resourceVersion": str(version), "creationTimestamp": None}
    if annotations:
        meta["annotations"] = dict(annotations)
    return {"type": "BOOKMARK", "object": {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": meta}}


def _event(request: WatchRequest, change: Change) -> Json | None:
    """The change as the selector sees it: an object that stops matching is deleted for this watcher."""
    if request.namespace and change.key.namespace != request.namespace:
        return None
    before = change.previous is not None and request.selects(change.previous)
    after = change.type != "DELETED" and request.selects(change.object)
    if not before and not after:
        return None
    kind = "MODIFIED" if before and after else "ADDED" if after else "DELETED"
    return {"type": kind, "object": change.object}


def transformed(events: AsyncIterator[Json], convert: Callable[[Json], Json]) -> AsyncIterator[Json]:
    """The events with their objects converted; errors and bookmarks stay as they are."""

    async def convert_all() -> AsyncIterator[Json]:
        async for event in events:
            plain = event["type"] in ("ERROR", "BOOKMARK")
            yield event if plain else {**event, "object": convert(event["object"])}

    return convert_all()
