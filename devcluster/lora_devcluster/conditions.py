"""Reading and setting status conditions. Used by every controller."""

from lora_devcluster import clock
from lora_devcluster.errors import Json


def condition(status: Json, kind: str) -> Json | None:
    """The condition of this type, or None."""
    return next((one for one in status.get("conditions") or () if one["type"] == kind), None)


def is_true(status: Json, kind: str) -> bool:
    found = condition(status, kind)
    return found is not None and found["status"] == "True"


def set_condition(status: Json, kind: str, value: str, reason: str = "", message: str = "") -> None:
    """Sets a condition in place; its transition time moves only when its status changes."""
    conditions = status.setdefault("conditions", [])
    found = condition(status, kind)
    if found is None:
        found = {"type": kind}
        conditions.append(found)
    if found.get("status") != value:
        found["lastTransitionTime"] = clock.timestamp()
    found["status"] = value
    for name, text in (("reason", reason), ("message", message)):
        found.pop(name, None)
        if text:
            found[name] = text
