"""The Kubernetes API as the operator uses it; the only module that talks to it (kopf's watches aside)."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp

from lora_api import names
from lora_operator.connection import Connection
from lora_operator.errors import ClusterUnavailable, Conflict, LeadershipLost, OperatorError, Refused
from lora_operator.subject import Manifest

FIELD_MANAGER = names.MANAGER
USER_AGENT = f"{names.MANAGER}/{names.VERSION}"
TIMEOUT = aiohttp.ClientTimeout(total=30, connect=10)
PAGE_SIZE = 500
MERGE_PATCH = "application/merge-patch+json"
WORDS_CHARACTERS = 1000

OnRequest = Callable[[str, str, str], None]
"""Told of every request: verb, resource and status code (or `error`)."""
MayWrite = Callable[[], bool]
"""Asked before every write."""
READS = frozenset({"get", "list"})


@dataclass(frozen=True)
class Resource:
    """A kind of object and its place in the API."""

    api: str
    plural: str
    kind: str
    api_version: str

    def path(self, namespace: str | None, name: str | None = None, subresource: str = "") -> str:
        """Path of one object or of all; without namespace: of the whole cluster."""
        place = f"/namespaces/{namespace}" if namespace else ""
        tail = "".join(f"/{part}" for part in (name, subresource) if part)
        return f"/{self.api}{place}/{self.plural}{tail}"


TRAININGS = Resource(f"apis/{names.API_VERSION}", names.PLURAL, names.KIND, names.API_VERSION)
JOBS = Resource("apis/batch/v1", "jobs", "Job", "batch/v1")
PODS = Resource("api/v1", "pods", "Pod", "v1")
SERVICES = Resource("api/v1", "services", "Service", "v1")
EVENTS = Resource("api/v1", "events", "Event", "v1")
LEASES = Resource("apis/coordination.k8s.io/v1", "leases", "Lease", "coordination.k8s.io/v1")


@dataclass(frozen=True)
class _Answer:
    status: int
    document: Manifest
    retry_after_seconds: float


class Cluster:
    """Calls to the API server. Every method raises ClusterUnavailable, Conflict or Refused, and nothing else.

    Those that write raise LeadershipLost as well, and write nothing, unless `may_write` agrees.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        connection: Connection,
        on_request: OnRequest,
        *,
        may_write: MayWrite,
    ) -> None:
        self._session = session
        self._connection = connection
        self._on_request = on_request
        self._may_write = may_write

    async def get(self, resource: Resource, namespace: str, name: str) -> Manifest | None:
        """The object, or None when there is none."""
        answer = await self._call("get", resource, resource.path(namespace, name))
        return None if answer.status == 404 else _checked(answer)

    async def list(
        self, resource: Resource, namespace: str | None, *, labels: str = "", fields: str = ""
    ) -> list[Manifest]:
        """All objects, page by page; `labels` and `fields` are selectors."""
        query = {"limit": str(PAGE_SIZE), "labelSelector": labels, "fieldSelector": fields}
        found: list[Manifest] = []
        while True:
            wanted = {key: value for key, value in query.items() if value}
            answer = await self._call("list", resource, resource.path(namespace), query=wanted)
            if answer.status == 410 and found:
                # The pages read so far are too old to be continued: from the beginning.
                found, query["continue"] = [], ""
                continue
            page = _checked(answer)
            found.extend(page.get("items") or ())
            query["continue"] = page["metadata"].get("continue") or ""
            if not query["continue"]:
                return found

    async def probe(self, resource: Resource, namespace: str | None) -> None:
        """Raises ClusterUnavailable unless there is such a kind."""
        _checked(await self._call("list", resource, resource.path(namespace), query={"limit": "1"}))

    async def create(self, resource: Resource, manifest: Manifest) -> Manifest | None:
        """The created object, or None when one of that name is there already."""
        path = resource.path(manifest["metadata"]["namespace"])
        answer = await self._call("create", resource, path, body=manifest, query={"fieldManager": FIELD_MANAGER})
        return None if _is_there(answer) else _checked(answer)

    async def patch(
        self, resource: Resource, namespace: str, name: str, body: Manifest, *, subresource: str = ""
    ) -> Manifest | None:
        """The object after a merge patch, or None when there is none."""
        path = resource.path(namespace, name, subresource)
        answer = await self._call("patch", resource, path, body=body, query={"fieldManager": FIELD_MANAGER})
        return None if answer.status == 404 else _checked(answer)

    async def delete(self, resource: Resource, namespace: str, name: str, *, uid: str | None = None) -> None:
        """Deletes the object and, in the background, what it owns; one that is gone or another one is left alone."""
        options: Manifest = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        if uid:
            options["preconditions"] = {"uid": uid}
        answer = await self._call("delete", resource, resource.path(namespace, name), body=options)
        if answer.status == 409 and uid and await self._is_another(resource, namespace, name, uid=uid):
            return
        if answer.status != 404:
            _checked(answer)

    async def _is_another(self, resource: Resource, namespace: str, name: str, *, uid: str) -> bool:
        found = await self.get(resource, namespace, name)
        return found is None or found["metadata"]["uid"] != uid

    async def _call(
        self,
        verb: str,
        resource: Resource,
        path: str,
        *,
        body: Manifest | None = None,
        query: dict[str, str] | None = None,
    ) -> _Answer:
        if verb not in READS and not self._may_write():
            raise LeadershipLost(f"{verb} {path}: not sent, as another operator may lead by now")
        try:
            answer = await self._send(verb, path, body, query)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            self._on_request(verb, resource.plural, "error")
            raise ClusterUnavailable(f"{verb} {path}: {error or type(error).__name__}") from error
        self._on_request(verb, resource.plural, str(answer.status))
        return answer

    async def _send(self, verb: str, path: str, body: Manifest | None, query: dict[str, str] | None) -> _Answer:
        authorization = await self._connection.authorization()
        headers = {"Content-Type": _CONTENT_TYPES.get(verb, "application/json"), "Accept": "application/json"}
        if authorization:
            headers["Authorization"] = authorization
        data = None if body is None else json.dumps(body).encode()
        request = self._session.request(
            _METHODS[verb], self._connection.url + path, params=query, data=data, headers=headers
        )
        async with request as response:
            content = await response.read()
            return _Answer(response.status, _document(content), _retry_after(response.headers.get("Retry-After")))


_METHODS = {
    "get": "GET",
    "list": "GET",
    "create": "POST",
    "patch": "PATCH",
    "delete": "DELETE",
}
_CONTENT_TYPES = {"patch": MERGE_PATCH}


@asynccontextmanager
async def open_cluster(
    connection: Connection, on_request: OnRequest, *, may_write: MayWrite = lambda: True
) -> AsyncIterator[Cluster]:
    """A cluster whose connections are closed at the end."""
    connector = aiohttp.TCPConnector(ssl=await connection.ssl_context() or True, limit=32)
    headers = {"User-Agent": USER_AGENT}
    async with aiohttp.ClientSession(connector=connector, timeout=TIMEOUT, headers=headers) as session:
        yield Cluster(session, connection, on_request, may_write=may_write)


def _document(content: bytes) -> Manifest:
    try:
        document = json.loads(content)
    except ValueError:
        # A proxy in between answers in prose.
        return {"message": content.decode(errors="replace")}
    return document if isinstance(document, dict) else {"message": str(document)}


def _retry_after(text: str | None) -> float:
    return float(text) if text and text.isdecimal() else 0.0


def _is_there(answer: _Answer) -> bool:
    return answer.status == 409 and answer.document.get("reason") == "AlreadyExists"


def _checked(answer: _Answer) -> Manifest:
    """The document of a good answer; the error of a bad one, in the server's words."""
    if answer.status < 300:
        return answer.document
    words = f"{answer.document.get('message') or 'no message'}"[:WORDS_CHARACTERS]
    raise _error(answer, f"{words} (HTTP {answer.status})")


def _error(answer: _Answer, words: str) -> OperatorError:
    # 404 is a missing kind here: of missing objects the callers know. 410 is a page asked for too late.
    if answer.status in {401, 404, 408, 410, 429} or answer.status >= 500:
        return ClusterUnavailable(words, retry_after_seconds=answer.retry_after_seconds)
    return Conflict(words) if answer.status == 409 else Refused(words)


def merge_diff(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """The merge patch (RFC 7386) that turns one document into the other."""
    patch: dict[str, Any] = {key: None for key in before if key not in after}
    for key, value in after.items():
        old = before.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            if changes := merge_diff(old, value):
                patch[key] = changes
        elif key not in before or old != value:
            patch[key] = value
    return patch
