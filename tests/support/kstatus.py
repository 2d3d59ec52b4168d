"""How kstatus reads an object of a kind that it does not know, for tests.

The rules and their order are those of sigs.k8s.io/cli-utils/pkg/kstatus/status (`checkGenericProperties`).
"""

from typing import Any

Manifest = dict[str, Any]


def kstatus(body: Manifest | None) -> str:
    """InProgress, Failed, Current, Terminating or NotFound."""
    if body is None:
        return "NotFound"
    meta, status = body["metadata"], body.get("status") or {}
    if "deletionTimestamp" in meta:
        return "Terminating"
    if status.get("observedGeneration", meta["generation"]) != meta["generation"]:
        return "InProgress"
    said = {condition["type"]: condition["status"] for condition in status.get("conditions") or ()}
    if said.get("Reconciling") == "True":
        return "InProgress"
    if said.get("Stalled") == "True":
        return "Failed"
    return "InProgress" if said.get("Ready", "True") != "True" else "Current"
