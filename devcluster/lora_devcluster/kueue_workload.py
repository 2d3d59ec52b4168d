"""Kueue's Workload: its definition, its first form, and the conditions that its life leaves on it. Used by `kueue`.

Conditions, reasons and messages as in Kueue's `apis/kueue/v1beta2/workload_types.go` and `pkg/workload/workload.go`.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

from lora_devcluster.conditions import condition, is_true, set_condition
from lora_devcluster.documents import copied
from lora_devcluster.errors import Json

GROUP = "kueue.x-k8s.io"
LABEL_QUEUE = f"{GROUP}/queue-name"
LABEL_PRIORITY = f"{GROUP}/priority-class"
LABEL_JOB_UID = f"{GROUP}/job-uid"
ANNOTATION_STOPPING = f"{GROUP}/stopping"


def workload_definition(version: str) -> Json:
    """The CustomResourceDefinition of Workloads; its schema keeps everything and checks nothing."""
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    served: dict[str, Any] = {
        "name": version,
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": anything, "status": anything}}},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"workloads.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {"plural": "workloads", "singular": "workload", "kind": "Workload", "shortNames": ["wl"]},
            "versions": [served],
        },
    }


def new_workload(job: Json, queue: str, priorities: Mapping[str, int], *, version: str) -> Json:
    """The Workload of a Job, which goes with it."""
    meta = job["metadata"]
    rank = (meta.get("labels") or {}).get(LABEL_PRIORITY, "")
    digest = hashlib.sha256(f"{meta['name']}/{meta['uid']}".encode()).hexdigest()[:5]
    owner = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "name": meta["name"],
        "uid": meta["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
    pods = {"name": "main", "count": job["spec"]["parallelism"], "template": copied(job["spec"]["template"])}
    return {
        "apiVersion": f"{GROUP}/{version}",
        "kind": "Workload",
        "metadata": {
            "name": f"job-{meta['name']}-{digest}",
            "labels": {LABEL_JOB_UID: meta["uid"]},
            "ownerReferences": [owner],
        },
        "spec": {"queueName": queue, "active": True, "priority": priorities.get(rank, 0), "podSets": [pods]},
    }


def node_selector(workload: Json) -> dict[str, str]:
    """The node selector that the Job had before its admission."""
    found: dict[str, str] = workload["spec"]["podSets"][0]["template"]["spec"].get("nodeSelector") or {}
    return found


def admission(workload: Json, queue: str, quota: Mapping[str, str]) -> None:
    """Reserves quota and admits at once: there are no admission checks."""
    status, flavors = workload["status"], dict.fromkeys(quota, "default-flavor")
    assigned = {"name": "main", "count": workload["spec"]["podSets"][0]["count"], "flavors": flavors}
    status["admission"] = {"clusterQueue": queue, "podSetAssignments": [assigned]}
    words = f"Quota reserved in ClusterQueue {queue}"
    set_condition(status, "QuotaReserved", "True", "QuotaReserved", words)
    set_condition(status, "Admitted", "True", "Admitted", "The workload is admitted")
    for kind in ("Evicted", "Preempted"):
        before = condition(status, kind)
        if before is not None and before["status"] == "True":
            set_condition(status, kind, "False", "QuotaReserved", f"Previously: {before.get('message', '')}")


def set_evicted(status: Json, reason: str, message: str) -> None:
    """Says that the quota is to be given back. What never had any gives back nothing and goes on waiting."""
    set_condition(status, "Evicted", "True", reason, message)
    if not is_true(status, "QuotaReserved"):
        set_condition(status, "QuotaReserved", "False", "Pending", message)


def count_eviction(status: Json, reason: str) -> None:
    evictions = status.setdefault("schedulingStats", {}).setdefault("evictions", [])
    entry = next((one for one in evictions if one["reason"] == reason), None)
    if entry is None:
        entry = {"reason": reason, "underlyingCause": "", "count": 0}
        evictions.append(entry)
    entry["count"] += 1


def set_requeued(status: Json) -> None:
    """Clears the admission of an evicted Workload, whose pods are gone."""
    evicted = condition(status, "Evicted") or {}
    reason, message = evicted.get("reason", ""), evicted.get("message", "")
    status.pop("admission", None)
    set_condition(status, "QuotaReserved", "False", "Pending", message)
    set_condition(status, "Admitted", "False", "NoReservation", "The workload has no reservation")
    set_condition(status, "Requeued", "True" if reason == "Preempted" else "False", reason, message)
