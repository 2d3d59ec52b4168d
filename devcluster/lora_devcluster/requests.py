"""What a request asks for, read from its path, method and query. Also what tests read of it: who asked for what."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch"}


@dataclass(frozen=True)
class RequestInfo:
    """A request as RBAC sees it, with the answer's code once there is one."""

    verb: str
    group: str = ""
    version: str = ""
    namespace: str = ""
    resource: str = ""
    name: str = ""
    subresource: str = ""
    user: str = ""
    user_agent: str = ""
    code: int = 0

    @property
    def target(self) -> str:
        """Resource and subresource as RBAC rules name them, e.g. `pods/log`."""
        return f"{self.resource}/{self.subresource}" if self.subresource else self.resource


def parse_request(method: str, path: str, query: Mapping[str, str]) -> RequestInfo | None:
    """The request for a resource, or None when the path names none."""
    parts = [part for part in path.split("/") if part]
    if parts[:1] == ["api"] and len(parts) >= 3:
        group, version, rest = "", parts[1], parts[2:]
    elif parts[:1] == ["apis"] and len(parts) >= 4:
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        return None
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2 and rest[2] not in ("status", "finalize"):
        namespace, rest = rest[1], rest[2:]
    if len(rest) > 3:
        return None
    resource, name, subresource = [*rest, "", ""][:3]
    if resource == "namespaces" and name:
        namespace = name
    return RequestInfo(_verb(method, name, query), group, version, namespace, resource, name, subresource)


def _verb(method: str, name: str, query: Mapping[str, str]) -> str:
    if method == "GET":
        if query.get("watch") in ("true", "1"):
            return "watch"
        return "get" if name else "list"
    if method == "DELETE":
        return "delete" if name else "deletecollection"
    return _VERBS.get(method, method.lower())


def reviewed_request(body: Mapping[str, Any], user: str) -> RequestInfo:
    """The request that a SelfSubjectAccessReview asks about."""
    asked = (body.get("spec") or {}).get("resourceAttributes") or {}
    names = ("verb", "group", "version", "namespace", "resource", "name", "subresource")
    return RequestInfo(**{"verb": "", **{name: asked[name] for name in names if name in asked}, "user": user})
