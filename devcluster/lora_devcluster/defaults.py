"""Defaults that the API server fills in for built-in kinds: the part that controllers and clients rely on."""

import base64
from collections.abc import Callable
from typing import Any

from lora_devcluster.errors import Json


def _fill(target: Json, **values: Any) -> None:
    for name, value in values.items():
        if target.get(name) is None:
            target[name] = value


def pod_spec(spec: Json) -> None:
    """Fills in a pod's spec, in place."""
    _fill(
        spec,
        restartPolicy="Always",
        terminationGracePeriodSeconds=30,
        dnsPolicy="ClusterFirst",
        securityContext={},
        schedulerName="default-scheduler",
    )
    for container in [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]:
        _container(container)
    for volume in spec.get("volumes") or ():
        _volume(volume)


def _container(container: Json) -> None:
    latest = ":" not in str(container.get("image", "")).rsplit("/", 1)[-1] or str(container.get("image")).endswith(
        ":latest"
    )
    _fill(
        container,
        resources={},
        terminationMessagePath="/dev/termination-log",
        terminationMessagePolicy="File",
        imagePullPolicy="Always" if latest else "IfNotPresent",
    )
    resources = container["resources"]
    for kind in ("limits", "requests"):
        if resources.get(kind):
            resources[kind] = {name: str(amount) for name, amount in resources[kind].items()}
    if resources.get("limits"):
        resources["requests"] = {**resources["limits"], **(resources.get("requests") or {})}
    for port in container.get("ports") or ():
        _fill(port, protocol="TCP")
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        probe = container.get(name)
        if probe:
            _fill(probe, timeoutSeconds=1, periodSeconds=10, successThreshold=1, failureThreshold=3)
            if probe.get("httpGet"):
                _fill(probe["httpGet"], path="/", scheme="HTTP")
    for variable in container.get("env") or ():
        reference = (variable.get("valueFrom") or {}).get("fieldRef")
        if reference:
            _fill(reference, apiVersion="v1")


def _volume(volume: Json) -> None:
    for source in ("secret", "configMap", "projected", "downwardAPI"):
        if isinstance(volume.get(source), dict):
            _fill(volume[source], defaultMode=0o644)
    if "hostPath" in volume:
        _fill(volume["hostPath"], type="")
    if all(value is None for name, value in volume.items() if name != "name"):
        volume["emptyDir"] = {}


def pod(obj: Json) -> None:
    spec = obj["spec"]
    pod_spec(spec)
    _fill(
        spec, serviceAccountName="default", enableServiceLinks=True, preemptionPolicy="PreemptLowerPriority", priority=0
    )
    _fill(spec, tolerations=[])
    for key in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"):
        if not any(toleration.get("key") == key for toleration in spec["tolerations"]):
            toleration = {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
            spec["tolerations"] = [*spec["tolerations"], toleration]
    obj.setdefault("status", {}).setdefault("phase", "Pending")


def job(obj: Json) -> None:
    """A Job's defaults, its selector and the labels by which it finds its pods."""
    spec, meta = obj["spec"], obj["metadata"]
    if spec.get("completions") is None and spec.get("parallelism") is None:
        spec["completions"] = 1
    _fill(spec, parallelism=1, backoffLimit=6, completionMode="NonIndexed", suspend=False, manualSelector=False)
    policy = "Failed" if spec.get("podFailurePolicy") else "TerminatingOrFailed"
    _fill(spec, podReplacementPolicy=policy)
    for rule in (spec.get("podFailurePolicy") or {}).get("rules") or ():
        for pattern in rule.get("onPodConditions") or ():
            _fill(pattern, status="True")
    if not spec["manualSelector"]:
        owned = {"batch.kubernetes.io/controller-uid": meta["uid"]}
        _fill(spec, selector={"matchLabels": owned})
        template_meta = spec["template"].setdefault("metadata", {}) or {}
        spec["template"]["metadata"] = template_meta
        template_meta["labels"] = {
            **(template_meta.get("labels") or {}),
            **owned,
            "batch.kubernetes.io/job-name": meta["name"],
            "controller-uid": meta["uid"],
            "job-name": meta["name"],
        }
    pod_spec(spec["template"]["spec"])


def deployment(obj: Json) -> None:
    spec = obj["spec"]
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}}
    _fill(spec, replicas=1, revisionHistoryLimit=10, progressDeadlineSeconds=600, strategy=rolling)
    pod_spec(spec["template"]["spec"])


def replica_set(obj: Json) -> None:
    _fill(obj["spec"], replicas=1)
    pod_spec(obj["spec"]["template"]["spec"])


def secret(obj: Json) -> None:
    _fill(obj, type="Opaque")
    text = obj.pop("stringData", None) or {}
    if text:
        encoded = {key: base64.b64encode(value.encode()).decode() for key, value in text.items()}
        obj["data"] = {**(obj.get("data") or {}), **encoded}


def service(obj: Json) -> None:
    spec = obj.setdefault("spec", {})
    _fill(spec, type="ClusterIP", sessionAffinity="None", internalTrafficPolicy="Cluster")
    if spec.get("clusterIP"):
        _fill(spec, clusterIPs=[spec["clusterIP"]])
    for port in spec.get("ports") or ():
        _fill(port, protocol="TCP", targetPort=port.get("port"))


def namespace(obj: Json) -> None:
    _fill(obj.setdefault("spec", {}), finalizers=["kubernetes"])
    _fill(obj.setdefault("status", {}), phase="Active")
    labels = obj["metadata"].get("labels") or {}
    obj["metadata"]["labels"] = {**labels, "kubernetes.io/metadata.name": obj["metadata"]["name"]}


def volume_claim(obj: Json) -> None:
    _fill(obj["spec"], volumeMode="Filesystem")
    _fill(obj.setdefault("status", {}), phase="Pending")


def custom_resource_definition(obj: Json) -> None:
    spec = obj["spec"]
    names = spec.get("names") or {}
    if names.get("kind"):
        _fill(names, singular=names["kind"].lower(), listKind=names["kind"] + "List")
    _fill(spec, conversion={"strategy": "None"})


DEFAULTS: dict[tuple[str, str], Callable[[Json], None]] = {
    ("", "pods"): pod,
    ("", "secrets"): secret,
    ("", "services"): service,
    ("", "namespaces"): namespace,
    ("", "persistentvolumeclaims"): volume_claim,
    ("batch", "jobs"): job,
    ("apps", "deployments"): deployment,
    ("apps", "replicasets"): replica_set,
    ("apiextensions.k8s.io", "customresourcedefinitions"): custom_resource_definition,
}
