"""HTTP for the API: reads requests, calls the operations, writes answers as Kubernetes clients expect them."""

import base64
import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

import yaml
from aiohttp import web

from lora_devcluster import proto
from lora_devcluster.api import Api, DeleteOptions, WriteOptions, key_for
from lora_devcluster.errors import ApiError, Json, bad_request, method_not_allowed, unsupported_media_type
from lora_devcluster.ownership import Writer
from lora_devcluster.requests import RequestInfo
from lora_devcluster.resources import Resource
from lora_devcluster.selectors import predicate
from lora_devcluster.store import Key
from lora_devcluster.table import partial, table
from lora_devcluster.watching import Watches, WatchRequest, transformed

Handler = Callable[[web.Request, RequestInfo, Resource], Awaitable[web.StreamResponse]]
_ORPHANS_WARNING = (
    "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set "
    "propagationPolicy=Orphan to suppress this warning"
)
_PATCHABLE = ("status", "finalize", "")


def json_response(body: Any, code: int = 200, warnings: tuple[str, ...] = ()) -> web.Response:
    response = web.Response(text=json.dumps(body, separators=(",", ":")), status=code, content_type="application/json")
    for warning in warnings:
        escaped = warning.replace("\\", "\\\\").replace('"', '\\"')
        response.headers.add("Warning", f'299 - "{escaped}"')
    return response


async def read_body(request: web.Request) -> Any:
    """The decoded body: JSON, YAML or, for a few kinds, protocol buffers; None when it is empty.

    Raises:
        ApiError: 400 or 415.
    """
    data = await request.read()
    if not data:
        return None
    media_type = request.content_type
    if media_type == proto.MEDIA_TYPE:
        return proto.decode(data)
    if "yaml" in media_type:
        try:
            return yaml.safe_load(data)
        except yaml.YAMLError as error:
            raise bad_request(f"error converting YAML to JSON: {error}") from error
    if not media_type.endswith("json") and media_type != "application/octet-stream":
        raise unsupported_media_type(media_type, "send application/json or application/yaml")
    try:
        return json.loads(data)
    except ValueError as error:
        raise bad_request(f"the object provided is unrecognized: {error}") from error


def whole_number(query: Mapping[str, str], name: str) -> int | None:
    """A number of the query, or None when it is not given.

    Raises:
        ApiError: 400 for anything else than digits.
    """
    text = query.get(name, "")
    if text and not text.isdigit():
        raise bad_request(f"{name}: Invalid value: {text!r}: must be a whole number")
    return int(text) if text else None


def write_options(request: web.Request, subresource: str) -> WriteOptions:
    query = request.query
    dry_run = query.get("dryRun", "")
    if dry_run not in ("", "All"):
        raise bad_request(f"Invalid value: {dry_run!r}: dryRun must be All or empty")
    validation = query.get("fieldValidation") or "Warn"
    if validation not in ("Ignore", "Warn", "Strict"):
        raise bad_request(f"fieldValidation: Unsupported value: {validation!r}: supported values: Ignore, Warn, Strict")
    agent = request.headers.get("User-Agent", "").split("/")[0] or "unknown"
    writer = Writer(query.get("fieldManager") or agent, subresource=subresource)
    return WriteOptions(writer, dry_run == "All", validation, query.get("force") == "true")


async def delete_options(request: web.Request) -> DeleteOptions:
    body = await read_body(request) or {}
    query = request.query
    conditions = body.get("preconditions") or {}
    grace = body.get("gracePeriodSeconds", query.get("gracePeriodSeconds"))
    policy = body.get("propagationPolicy") or query.get("propagationPolicy") or ""
    orphans = body.get("orphanDependents", query.get("orphanDependents"))
    if not policy and orphans is not None:
        policy = "Orphan" if orphans in (True, "true") else "Background"
    return DeleteOptions(
        policy,
        None if grace is None else int(grace),
        conditions.get("uid") or "",
        conditions.get("resourceVersion") or "",
        bool(body.get("dryRun") or query.get("dryRun")),
    )


class Presenter:
    """Turns objects into what the Accept header asks for: the objects, their metadata or a table."""

    def __init__(self, request: web.Request, resource: Resource) -> None:
        accept = request.headers.get("Accept", "").replace(" ", "")
        self._resource = resource
        self._include = request.query.get("includeObject", "Metadata")
        self._table = "as=Table" in accept
        self._partial = "as=PartialObjectMetadata" in accept

    def one(self, obj: Json) -> Json:
        obj = Api.in_version(self._resource, obj)
        if self._table:
            return table(self._resource, [obj], _version_only(obj), self._include)
        return partial(obj) if self._partial else obj

    def many(self, objects: list[Json], meta: Json) -> Json:
        objects = [Api.in_version(self._resource, obj) for obj in objects]
        if self._table:
            return table(self._resource, objects, meta, self._include)
        if self._partial:
            listed = [partial(obj) for obj in objects]
            return {
                "kind": "PartialObjectMetadataList",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": meta,
                "items": listed,
            }
        kind = self._resource.list_kind or f"{self._resource.kind}List"
        return {"kind": kind, "apiVersion": self._resource.api_version, "metadata": meta, "items": objects}


def _version_only(obj: Json) -> Json:
    return {"resourceVersion": obj["metadata"].get("resourceVersion", "")}


class ResourceRoutes:
    """The verbs on every resource. Subresources of pods that need the kubelet are answered in `pod_routes`."""

    def __init__(self, api: Api, watches: Watches) -> None:
        self._api = api
        self._watches = watches

    def handler(self, info: RequestInfo) -> Handler:
        """The verb's handler.

        Raises:
            ApiError: 405.
        """
        handlers: dict[str, Handler] = {
            "get": self._get,
            "list": self._list,
            "watch": self._watch,
            "create": self._create,
            "update": self._update,
            "patch": self._patch,
            "delete": self._delete,
            "deletecollection": self._delete_collection,
        }
        named = info.verb in ("get", "update", "patch", "delete")
        if info.verb not in handlers or (named and not info.name) or (info.verb == "create" and info.name):
            raise method_not_allowed()
        return handlers[info.verb]

    async def _get(self, request: web.Request, info: RequestInfo, resource: Resource) -> web.StreamResponse:
        obj = self._api.get(resource, _key(info, resource))
        return json_response(Presenter(request, resource).one(obj))

    async def _list(self, request: web.Request, info: RequestInfo, resource: Resource) -> web.StreamResponse:
        query = request.query
        selects = predicate(query.get("labelSelector", ""), query.get("fieldSelector", ""), resource.plural)
        found = self._api.store.objects(resource.group, resource.plural, info.namespace if resource.namespaced else "")
        objects = [obj for obj in found if selects(obj)]
        start, version = _read_continue(query.get("continue", ""), self._api.store.version)
        limit = whole_number(query, "limit") or len(objects)
        page, left = objects[start : start + limit], len(objects) - start - limit
        meta: Json = {"resourceVersion": str(version)}
        if left > 0:
            meta |= {"continue": _continue(start + limit, version), "remainingItemCount": left}
        return json_response(Presenter(request, resource).many(page, meta))

    async def _watch(self, request: web.Request, info: RequestInfo, resource: Resource) -> web.StreamResponse:
        query = request.query
        fields = query.get("fieldSelector", "")
        if info.name:
            fields = f"{fields},metadata.name={info.name}" if fields else f"metadata.name={info.name}"
        selects = predicate(query.get("labelSelector", ""), fields, resource.plural)
        namespace = info.namespace if resource.namespaced else ""
        wanted = WatchRequest.from_query(resource, namespace, selects, query)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        events = transformed(self._watches.events(wanted), Presenter(request, resource).one)
        with suppress(ConnectionError):
            async for event in events:
                await response.write(json.dumps(event, separators=(",", ":")).encode() + b"\n")
            await response.write_eof()
        return response

    async def _create(self, request: web.Request, info: RequestInfo, resource: Resource) -> web.StreamResponse:
        body = await read_body(request)
        written = self._api.create(resource, info.namespace, body, write_options(request, ""))
        return json_response(Presenter(request, resource).one(written.object), 201, written.warnings)

    async def _update(self, request: web.Request, info: RequestInfo, resource: Resource) -> web.StreamResponse:
        body = await read_body(request)
        options = write_options(request, info.subresource)
        written = self._api.replace(resource, _key(info, resource), body, options)
        return json_response(Presenter(request, resource).one(written.object), 200, written.warnings)

    async def _patch(self, request: web.Request, info: RequestInfo, resource: Resource) -> web.StreamResponse:
        body = await read_body(request)
        options = write_options(request, info.subresource)
        written = self._api.patch(resource, _key(info, resource), request.content_type, body, options)
        code = 201 if written.created else 200
        return json_response(Presenter(request, resource).one(written.object), code, written.warnings)

    async def _delete(self, request: web.Request, info: RequestInfo, resource: Resource) -> web.StreamResponse:
        key, options = _key(info, resource), await delete_options(request)
        gone = self._api.delete(resource, key, options)
        warnings: tuple[str, ...] = ()
        if (resource.group, resource.plural, options.propagation) == ("batch", "jobs", ""):
            warnings = (_ORPHANS_WARNING,)
        if self._api.store.get(key) is not None:
            return json_response(gone, 200, warnings)
        details = {"name": info.name, "group": resource.group, "kind": resource.plural, "uid": gone["metadata"]["uid"]}
        status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
        return json_response(status, 200, warnings)

    async def _delete_collection(
        self, request: web.Request, info: RequestInfo, resource: Resource
    ) -> web.StreamResponse:
        query, options = request.query, await delete_options(request)
        selects = predicate(query.get("labelSelector", ""), query.get("fieldSelector", ""), resource.plural)
        found = self._api.store.objects(resource.group, resource.plural, info.namespace if resource.namespaced else "")
        gone = [obj for obj in found if selects(obj)]
        for obj in gone:
            meta = obj["metadata"]
            self._api.delete(resource, key_for(resource, meta.get("namespace", ""), meta["name"]), options)
        return json_response(Presenter(request, resource).many(gone, {"resourceVersion": str(self._api.store.version)}))


def _key(info: RequestInfo, resource: Resource) -> Key:
    if info.subresource and info.subresource not in resource.subresources:
        raise ApiError(404, "NotFound", "the server could not find the requested resource")
    if info.subresource not in _PATCHABLE:
        raise method_not_allowed()
    return key_for(resource, info.namespace, info.name)


def _continue(start: int, version: int) -> str:
    return base64.urlsafe_b64encode(json.dumps([start, version]).encode()).decode()


def _read_continue(token: str, version: int) -> tuple[int, int]:
    if not token:
        return 0, version
    try:
        start, asked = (int(number) for number in json.loads(base64.urlsafe_b64decode(token)))
    except (TypeError, ValueError) as error:
        raise bad_request(f"continue key is not valid: {error}") from error
    return start, asked
