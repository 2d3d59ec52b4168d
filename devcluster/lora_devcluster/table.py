"""Tables as `kubectl get` prints them: the columns of built-in kinds and those that custom resources declare."""

import re
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from lora_devcluster import clock
from lora_devcluster.errors import Json
from lora_devcluster.resources import Resource

Cell = str | int | float | bool | None
Row = Callable[[Json], list[Cell]]

_STEP = re.compile(
    r"\.([A-Za-z0-9_$-]+)|\[\?\(@\.([A-Za-z0-9_.-]+)\s*==\s*[\"']([^\"']*)[\"']\)\]|\[(\d+|\*)\]|\['([^']+)'\]"
)


def is_json_path(path: str) -> bool:
    """Whether the path is of the simple kind that printer columns take."""
    unescaped = path.replace("\\.", "_")
    return path.startswith((".", "[")) and _STEP.sub("", unescaped) == ""


def json_path(obj: Any, path: str) -> list[Any]:
    """The values at a JSON path such as `.status.conditions[?(@.type=="Ready")].status`."""
    values = [obj]
    for step in _STEP.finditer(path.replace("\\.", "\0")):
        name, field, wanted, index, quoted = step.groups()
        if name or quoted:
            name = (name or quoted).replace("\0", ".")
            values = [value[name] for value in values if isinstance(value, dict) and name in value]
        elif field:
            parts = [part for value in values if isinstance(value, list) for part in value]
            values = [part for part in parts if str(json_path(part, "." + field)[:1]) == str([wanted])]
        else:
            values = [part for value in values if isinstance(value, list) for part in _indexed(value, index)]
    return values


def _indexed(values: list[Any], index: str) -> list[Any]:
    if index == "*":
        return values
    return values[int(index) : int(index) + 1]


def age(since: str | None, until: datetime | None = None) -> str:
    """A duration as kubectl writes it: `45s`, `3m20s`, `5h`, `12d`."""
    if not since:
        return "<unknown>"
    seconds = int(((until or clock.now()) - clock.parse(since)).total_seconds())
    if seconds < 0:
        return "<invalid>" if seconds < -1 else "0s"
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if seconds < 120:
        return f"{seconds}s"
    if minutes < 10:
        return f"{minutes}m{seconds % 60}s" if seconds % 60 else f"{minutes}m"
    if hours < 3:
        return f"{minutes}m"
    if hours < 8:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    if days < 2:
        return f"{hours}h"
    if days < 8:
        return f"{days}d{hours % 24}h" if hours % 24 else f"{days}d"
    return f"{days}d" if days < 730 else f"{days // 365}y"


def _column(name: str, kind: str = "string", priority: int = 0, **more: str) -> Json:
    return {"name": name, "type": kind, "format": "", "description": "", "priority": priority, **more}


_NAME = _column("Name", format="name")
_AGE = _column("Age")


def _created(obj: Json) -> str:
    return age(obj["metadata"].get("creationTimestamp"))


def _pod_status(pod: Json) -> str:
    status = pod.get("status") or {}
    if pod["metadata"].get("deletionTimestamp") and status.get("phase") not in ("Succeeded", "Failed"):
        return "Terminating"
    for statuses, prefix in (("initContainerStatuses", "Init:"), ("containerStatuses", "")):
        for container in status.get(statuses) or ():
            state = container["state"]
            waiting, ended = state.get("waiting"), state.get("terminated")
            if waiting and waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
                return prefix + str(waiting["reason"])
            if ended and (ended["exitCode"] or not prefix):
                return prefix + str(ended.get("reason") or f"ExitCode:{ended['exitCode']}")
    if status.get("phase") == "Pending" and pod["spec"].get("nodeName"):
        return "ContainerCreating"
    return str(status.get("reason") or status.get("phase") or "Unknown")


def _pod_row(pod: Json) -> list[Cell]:
    statuses = (pod.get("status") or {}).get("containerStatuses") or []
    ready = sum(bool(container["ready"]) for container in statuses)
    restarts = sum(container["restartCount"] for container in statuses)
    shown = [pod["metadata"]["name"], f"{ready}/{len(pod['spec']['containers'])}", _pod_status(pod), str(restarts)]
    place = [(pod.get("status") or {}).get("podIP") or "<none>", pod["spec"].get("nodeName") or "<none>"]
    return [*shown, _created(pod), *place]


def _job_row(job: Json) -> list[Cell]:
    status, spec = job.get("status") or {}, job["spec"]
    conditions = {c["type"]: c["status"] for c in status.get("conditions") or ()}
    words = next((name for name in ("Complete", "Failed", "Suspended") if conditions.get(name) == "True"), "Running")
    if conditions.get("FailureTarget") == "True" and words == "Running":
        words = "FailureTarget"
    elif job["metadata"].get("deletionTimestamp"):
        words = "Terminating"
    wanted = spec.get("completions") or f"1 of {spec['parallelism']}"
    end = clock.parse(status["completionTime"]) if status.get("completionTime") else None
    duration = age(status["startTime"], end) if status.get("startTime") else ""
    return [job["metadata"]["name"], words, f"{status.get('succeeded', 0)}/{wanted}", duration, _created(job)]


def _deployment_row(obj: Json) -> list[Cell]:
    status, wanted = obj.get("status") or {}, obj["spec"]["replicas"]
    ready = f"{status.get('readyReplicas', 0)}/{wanted}"
    counts = [status.get("updatedReplicas", 0), status.get("availableReplicas", 0)]
    return [obj["metadata"]["name"], ready, *counts, _created(obj)]


def _event_row(obj: Json) -> list[Cell]:
    involved = obj["involvedObject"]
    target = f"{str(involved.get('kind', '')).lower()}/{involved.get('name', '')}"
    return [
        age(obj.get("lastTimestamp") or obj["metadata"]["creationTimestamp"]),
        obj.get("type"),
        obj.get("reason"),
        target,
        obj.get("message"),
    ]


def _node_row(node: Json) -> list[Cell]:
    words = "Ready,SchedulingDisabled" if node["spec"].get("unschedulable") else "Ready"
    return [node["metadata"]["name"], words, "<none>", _created(node), node["status"]["nodeInfo"]["kubeletVersion"]]


def _definition_row(obj: Json) -> list[Cell]:
    return [obj["metadata"]["name"], obj["metadata"]["creationTimestamp"]]


_BUILTIN: dict[str, tuple[list[Json], Row]] = {
    "pods": (
        [
            _NAME,
            _column("Ready"),
            _column("Status"),
            _column("Restarts"),
            _AGE,
            _column("IP", priority=1),
            _column("Node", priority=1),
        ],
        _pod_row,
    ),
    "jobs": ([_NAME, _column("Status"), _column("Completions"), _column("Duration"), _AGE], _job_row),
    "deployments": (
        [_NAME, _column("Ready"), _column("Up-to-date", "integer"), _column("Available", "integer"), _AGE],
        _deployment_row,
    ),
    "events": (
        [_column("Last Seen"), _column("Type"), _column("Reason"), _column("Object"), _column("Message")],
        _event_row,
    ),
    "configmaps": (
        [_NAME, _column("Data", "integer"), _AGE],
        lambda o: [o["metadata"]["name"], len(o.get("data") or {}), _created(o)],
    ),
    "secrets": (
        [_NAME, _column("Type"), _column("Data", "integer"), _AGE],
        lambda o: [o["metadata"]["name"], o.get("type"), len(o.get("data") or {}), _created(o)],
    ),
    "namespaces": (
        [_NAME, _column("Status"), _AGE],
        lambda o: [o["metadata"]["name"], o["status"].get("phase"), _created(o)],
    ),
    "nodes": (
        [_NAME, _column("Status"), _column("Roles"), _AGE, _column("Version")],
        _node_row,
    ),
    "customresourcedefinitions": ([_NAME, _column("Created At", "date")], _definition_row),
    "leases": (
        [_NAME, _column("Holder"), _AGE],
        lambda o: [o["metadata"]["name"], (o.get("spec") or {}).get("holderIdentity") or "", _created(o)],
    ),
}


def _custom_columns(resource: Resource) -> tuple[list[Json], Row]:
    declared = resource.columns or ({"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},)
    columns = [
        _column(
            c["name"], c["type"], c.get("priority", 0), format=c.get("format", ""), description=c.get("description", "")
        )
        for c in declared
    ]
    return [_NAME, *columns], lambda obj: [obj["metadata"]["name"], *(_cell(obj, c) for c in declared)]


def _cell(obj: Json, column: Json) -> Cell:
    """One value; date columns become ages, a value of the wrong type shows as nothing."""
    found = json_path(obj, column["jsonPath"])
    if not found or found[0] is None:
        return None
    value = found[0]
    match column["type"]:
        case "date":
            return age(value) if isinstance(value, str) else None
        case "integer":
            return int(value) if isinstance(value, int | float) else None
        case "number":
            return value if isinstance(value, int | float) else None
        case "boolean":
            return value if isinstance(value, bool) else None
        case _:
            return value if isinstance(value, str) else str(value)


def _columns(resource: Resource) -> tuple[list[Json], Row]:
    if resource.custom:
        return _custom_columns(resource)
    plain: tuple[list[Json], Row] = ([_NAME, _AGE], lambda obj: [obj["metadata"]["name"], _created(obj)])
    return _BUILTIN.get(resource.plural, plain)


def partial(obj: Json) -> Json:
    """The object's metadata alone."""
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj["metadata"]}


def table(resource: Resource, objects: Iterable[Json], meta: Json, include: str = "Metadata") -> Json:
    """A Table of the objects; `include` is what each row carries: Metadata, Object or None."""
    columns, row = _columns(resource)
    carried: dict[str, Callable[[Json], Json | None]] = {"Object": lambda obj: obj, "None": lambda _obj: None}
    embed = carried.get(include, partial)
    rows = [{"cells": row(obj), "object": embed(obj)} for obj in objects]
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": meta,
        "columnDefinitions": columns,
        "rows": rows,
    }
