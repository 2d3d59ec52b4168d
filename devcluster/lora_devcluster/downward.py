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
_PLURAL = {"status.podIPs": "status.podIP", "status.hostIPs": "status.hostIP"}


def is_field(path: str, in_volume: bool = False) -> bool:
    """Whether a pod may refer to this field of itself; whole maps only in volumes."""
    whole = path in ("metadata.labels", "metadata.annotations")
    return path in _PLAIN or path in _PLURAL or bool(_KEYED.fullmatch(path)) or (whole and in_volume)


def field_value(pod: Json, path: str) -> str:
    """The text of a field for which `is_field` holds; empty when the pod has none."""
    if found := _KEYED.fullmatch(path):
        return str((pod["metadata"].get(found[1]) or {}).get(found[2], ""))
    if path in ("metadata.labels", "metadata.annotations"):
        entries: Json = pod["metadata"].get(path.split(".")[1]) or {}
        return "\n".join(f'{key}="{value}"' for key, value in sorted(entries.items()))
    value: Any = pod
    for name in _PLURAL.get(path, path).split("."):
        value = (value or {}).get(name)
    return str(value or "")


def resource_value(container: Json, reference: Json) -> str:
    """A container's own limit or request in the asked unit, rounded up."""
    kind, _, name = reference["resource"].partition(".")
    amount = (container["resources"].get(kind) or {}).get(name)
    if amount is None:
        return "0"
    return str(-(-parse(amount) // parse(reference.get("divisor") or "1")))
