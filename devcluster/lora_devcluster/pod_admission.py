"""What the admission plugins of a real cluster do to new pods: security levels, priorities, service accounts,
quotas."""

from lora_devcluster.errors import Json, forbidden_request
from lora_devcluster.pod_security import pod_security_faults
from lora_devcluster.quota import check_quota
from lora_devcluster.store import Key, Store

_LEVEL = "pod-security.kubernetes.io/enforce"
_SYSTEM_PRIORITIES = {"system-cluster-critical": 2_000_000_000, "system-node-critical": 2_000_001_000}


def admit_pod(store: Store, pod: Json) -> None:
    """Fills in the pod's priority, in place.

    Raises:
        ApiError: 403 for a pod that its namespace's level forbids, that names a class or account that is not there,
            or that its namespace's quota has no room for.
    """
    _check_account(store, pod)
    _check_security(store, pod)
    pod["spec"]["priority"] = _priority(store, pod)
    check_quota(store, pod)


def _check_account(store: Store, pod: Json) -> None:
    """The namespace's own account comes a moment after the namespace, and is taken for granted."""
    name, namespace = pod["spec"]["serviceAccountName"], pod["metadata"]["namespace"]
    if name != "default" and store.get(Key("", "serviceaccounts", namespace, name)) is None:
        words = f'error looking up service account {namespace}/{name}: serviceaccount "{name}" not found'
        raise forbidden_request("", "pods", pod["metadata"]["name"], words)


def _check_security(store: Store, pod: Json) -> None:
    namespace = store.get(Key("", "namespaces", "", pod["metadata"]["namespace"])) or {"metadata": {}}
    level = (namespace["metadata"].get("labels") or {}).get(_LEVEL, "privileged")
    faults = pod_security_faults(pod["spec"], level)
    if faults:
        words = f'violates PodSecurity "{level}:latest": ' + ", ".join(faults)
        raise forbidden_request("", "pods", pod["metadata"]["name"], words)


def _priority(store: Store, pod: Json) -> int:
    name = pod["spec"].get("priorityClassName")
    if not name:
        return int(pod["spec"].get("priority") or 0)
    if name in _SYSTEM_PRIORITIES:
        return _SYSTEM_PRIORITIES[name]
    found = store.get(Key("scheduling.k8s.io", "priorityclasses", "", name))
    if found is None:
        words = f"no PriorityClass with name {name} was found"
        raise forbidden_request("", "pods", pod["metadata"]["name"], words)
    return int(found["value"])
