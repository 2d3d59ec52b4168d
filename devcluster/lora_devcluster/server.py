"""The API server on aiohttp: routing, faults for tests, the record of requests, pods' logs and evictions."""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Protocol

from aiohttp import web

from lora_devcluster import discovery, openapi, proto
from lora_devcluster.api import Api, DeleteOptions
from lora_devcluster.authorization import Authorizer
from lora_devcluster.conditions import set_condition
from lora_devcluster.documents import copied
from lora_devcluster.errors import ApiError, Json, bad_request, method_not_allowed
from lora_devcluster.requests import RequestInfo, parse_request, reviewed_request
from lora_devcluster.resources import Resource
from lora_devcluster.routes import ResourceRoutes, json_response, read_body, whole_number
from lora_devcluster.store import Key
from lora_devcluster.watching import Watches

log = logging.getLogger(__name__)

Fault = Callable[[RequestInfo], ApiError | None]


class Cut(Enum):
    """How the connection of one request ends without an answer."""

    BEFORE = "nothing was done"
    AFTER = "all was done"
    STALL = "all was done, and the client waits until it gives up"


Break = Callable[[RequestInfo], Cut | None]
_REVIEWS = ("authorization.k8s.io", "authentication.k8s.io")
_RECORDED_REQUESTS = 200_000
_FOLLOW_SECONDS = 0.05


class LogSource(Protocol):
    """Where the server finds what a container printed."""

    def log_file(self, pod: Json, container: str, previous: bool) -> Path | None: ...

    def is_running(self, pod: Json, container: str) -> bool: ...


class ApiServer:
    """Serves one API.

    `faults` may answer a request with an error, `breaks` may cut its connection; `requests` remembers what was asked.
    """

    def __init__(self, api: Api, logs: LogSource) -> None:
        self.api = api
        self.watches = Watches(api.store)
        self.requests: deque[RequestInfo] = deque(maxlen=_RECORDED_REQUESTS)
        self.faults: list[Fault] = []
        self.breaks: list[Break] = []
        self.authorizer = Authorizer(api.store, api.registry)
        self._logs = logs
        self._resources = ResourceRoutes(api, self.watches)
        self._runner: web.AppRunner | None = None

    async def start(self, host: str, port: int) -> str:
        """Starts to listen; the server's URL."""
        app = web.Application(client_max_size=8 * 1024 * 1024)
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port)
        await site.start()
        bound: tuple[str, int] = self._runner.addresses[0]
        return f"http://{bound[0]}:{bound[1]}"

    async def stop(self) -> None:
        self.watches.drop()
        if self._runner is not None:
            await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        info = parse_request(request.method, request.path, request.query)
        if info is not None:
            info = replace(info, user=_user(request), user_agent=request.headers.get("User-Agent", ""))
        cut = self._cut(info)
        if cut is Cut.BEFORE:
            return _dropped(request)
        try:
            response = await (self._answer_resource(request, info) if info else self._answer_other(request))
        except ApiError as error:
            response = json_response(error.status(), error.code)
            if error.code == 429:
                response.headers["Retry-After"] = "1"
        if info is not None and (info.verb != "watch" or response.status >= 400):
            self.requests.append(replace(info, code=response.status))
        if cut is Cut.STALL:
            # Until the client has had enough: it then takes this task away.
            await asyncio.Event().wait()
        if cut is Cut.AFTER:
            return _dropped(request)
        return response

    def _cut(self, info: RequestInfo | None) -> Cut | None:
        found = (cut(info) for cut in tuple(self.breaks)) if info else ()
        return next((cut for cut in found if cut is not None), None)

    async def _answer_resource(self, request: web.Request, info: RequestInfo) -> web.StreamResponse:
        for fault in tuple(self.faults):
            error = fault(info)
            if error is not None:
                raise error
        if info.group in _REVIEWS:
            return await self._review(request, info)
        await self._authorize(request, info)
        resource = self.api.registry.find(info.group, info.version, info.resource)
        if resource is None:
            raise _nothing_here()
        if resource.namespaced and not info.namespace and info.verb not in ("list", "watch"):
            raise method_not_allowed()
        if resource.plural == "pods" and info.subresource == "log":
            return await self._log(request, self.api.get(resource, _pod_key(info)))
        if resource.plural == "pods" and info.subresource == "eviction":
            return await self._evict(request, resource, info)
        if info.subresource == "binding":
            raise method_not_allowed()
        if info.verb == "watch":
            # Watches last, and are of interest while they do.
            self.requests.append(replace(info, code=200))
        return await self._resources.handler(info)(request, info, resource)

    async def _answer_other(self, request: web.Request) -> web.StreamResponse:
        path = request.path.strip("/")
        if path in ("readyz", "livez", "healthz"):
            return web.Response(text="ok")
        body = self._description(path.split("/"), request.host)
        if body is None:
            raise _nothing_here()
        return json_response(body)

    def _description(self, parts: list[str], host: str) -> Json | None:
        """What the server says about itself under the path, or None."""
        registry = self.api.registry
        match parts:
            case ["version"]:
                return discovery.server_version()
            case ["api"]:
                return discovery.core_versions(host)
            case ["apis"]:
                return discovery.groups(registry)
            case ["api", version]:
                return discovery.resource_list(registry, "", version)
            case ["apis", group]:
                return discovery.group(registry, group)
            case ["apis", group, version]:
                return discovery.resource_list(registry, group, version)
            case ["openapi", "v3"]:
                return openapi.index(registry)
            case ["openapi", "v3", _, *rest]:
                return openapi.document(registry, "/".join(rest))
            case _:
                return None

    async def _authorize(self, request: web.Request, info: RequestInfo) -> None:
        self.authorizer.check(info)
        if info.verb == "create" and request.content_type.endswith("json"):
            body = await read_body(request)
            if isinstance(body, dict):
                self.authorizer.check_owners(info, body)

    async def _review(self, request: web.Request, info: RequestInfo) -> web.StreamResponse:
        """Says who asks and what that user may do."""
        # kubectl, which sends these in binary, names no user to a server without TLS: it asks as administrator.
        body: Json = {} if request.content_type == proto.MEDIA_TYPE else await read_body(request) or {}
        body["apiVersion"] = f"{info.group}/{info.version}"
        if info.resource == "selfsubjectaccessreviews":
            body["kind"] = "SelfSubjectAccessReview"
            body["status"] = {"allowed": self.authorizer.allows(reviewed_request(body, info.user))}
        elif info.resource == "selfsubjectreviews":
            body["kind"] = "SelfSubjectReview"
            body["status"] = {"userInfo": {"username": info.user, "groups": ["system:masters"]}}
        else:
            raise _nothing_here()
        return json_response(body, 201)

    async def _evict(self, request: web.Request, resource: Resource, info: RequestInfo) -> web.StreamResponse:
        if info.verb != "create":
            raise method_not_allowed()
        key = _pod_key(info)
        self.api.get(resource, key)
        body = await read_body(request) or {}
        options = DeleteOptions(grace_seconds=(body.get("deleteOptions") or {}).get("gracePeriodSeconds"))

        def mark(pod: Json) -> None:
            reason = ("EvictionByEvictionAPI", "Eviction API: evicting")
            set_condition(pod["status"], "DisruptionTarget", "True", *reason)

        self.api.modify(key, mark)
        self.api.delete(resource, key, options)
        return json_response(
            {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}, 201
        )

    async def _log(self, request: web.Request, pod: Json) -> web.StreamResponse:
        _check_log_options(request.query)
        container = _chosen_container(pod, request.query.get("container", ""))
        previous = request.query.get("previous") == "true"
        path = self._logs.log_file(pod, container, previous)
        if path is None:
            raise bad_request(_not_started(pod, container, previous))
        text = _selected(path.read_bytes(), request.query)
        if request.query.get("follow") != "true":
            return web.Response(body=text, content_type="text/plain")
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        with suppress(ConnectionError):
            await response.write(text)
            async for more in self._follow(path, pod, container):
                await response.write(more)
            await response.write_eof()
        return response

    async def _follow(self, path: Path, pod: Json, container: str) -> AsyncIterator[bytes]:
        with path.open("rb") as file:
            file.seek(0, 2)
            while True:
                running = self._logs.is_running(pod, container)
                if more := file.read():
                    yield more
                elif not running:
                    return
                await asyncio.sleep(_FOLLOW_SECONDS)


def _dropped(request: web.Request) -> web.Response:
    """Ends the connection at once; the answer goes nowhere."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=500)


def _nothing_here() -> ApiError:
    return ApiError(404, "NotFound", "the server could not find the requested resource")


def _pod_key(info: RequestInfo) -> Key:
    return Key("", "pods", info.namespace, info.name)


def _user(request: web.Request) -> str:
    """The bearer token, which here is the user's name; the administrator without one."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token if scheme.lower() == "bearer" and token else "kubernetes-admin"


def _check_log_options(query: Mapping[str, str]) -> None:
    """Refuses what only a log with times could answer."""
    asked = [name for name in ("timestamps", "sinceTime", "sinceSeconds") if query.get(name) not in (None, "", "false")]
    if asked:
        raise bad_request(f"{asked[0]}: this laptop-sized cluster keeps no times of log lines")


def _selected(text: bytes, query: Mapping[str, str]) -> bytes:
    tail, limit = whole_number(query, "tailLines"), whole_number(query, "limitBytes")
    if tail is not None:
        text = b"".join(text.splitlines(keepends=True)[-tail:]) if tail else b""
    return text if limit is None else text[:limit]


def _chosen_container(pod: Json, asked: str) -> str:
    names = [c["name"] for kind in ("containers", "initContainers") for c in pod["spec"].get(kind) or ()]
    if asked in names:
        return asked
    pod_name = pod["metadata"]["name"]
    if asked:
        raise bad_request(f"container {asked} is not valid for pod {pod_name}")
    if len(pod["spec"]["containers"]) > 1:
        listed = " ".join(names)
        raise bad_request(f"a container name must be specified for pod {pod_name}, choose one of: [{listed}]")
    return str(names[0])


def _not_started(pod: Json, container: str, previous: bool) -> str:
    name = pod["metadata"]["name"]
    if previous:
        return f'previous terminated container "{container}" in pod "{name}" not found'
    statuses = copied((pod.get("status") or {}).get("containerStatuses") or [])
    waiting = next((s["state"].get("waiting") or {} for s in statuses if s["name"] == container), {})
    reason = waiting.get("reason", "ContainerCreating")
    return f'container "{container}" in pod "{name}" is waiting to start: {reason}'
