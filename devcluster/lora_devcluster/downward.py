"""The downward API: what a pod may know about itself. Used for environment variables and volumes."""

import re
from typing import Any

from lora_devcluster.errors import Json
from lora_devcluster.quantity import parse

_KEYED = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]")
_PLAIN = {
    "metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName", "status.hostIP",
    "status.podIP",
}  # fmt: skip


class FieldError(ValueError):
    """A reference to a field that pods may not read."""


def field_value(pod: Json, path: str) -> str:
    """The text of a field of the pod.

    Raises:
        FieldError: the field is not one that may be referred to.
    """
    if found := _KEYED.fullmatch(path):
        return str((pod["metadata"].get(found[1]) or {}).get(found[2], ""))
    if path in ("metadata.labels", "metadata.annotations"):
        entries: Json = pod["metadata"].get(path.split(".")[1]) or {}
        return "\n".join(f'{key}="{value}"' for key, value in sorted(entries.items()))
    if path in ("status.podIPs", "status.hostIPs"):
        path = path[:-1]
    if path not in _PLAIN:
        raise FieldError(f"unsupported fieldPath: {path}")
    value: Any = pod
    for name in path.split("."):
        value = (value or {}).get(name)
    return str(value or "")


def resource_value(container: Json, reference: Json) -> str:
    """A container's own limit or request in the asked unit, rounded up."""
    kind, _, name = reference["resource"].partition(".")
    amount = (container["resources"].get(kind) or {}).get(name)
    if amount is None:
        return "0"
    return str(-(-parse(amount) // parse(reference.get("divisor") or "1")))
