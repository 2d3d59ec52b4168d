"""Rules of built-in kinds beyond their types: what may not change, what must fit together."""

import re
from collections.abc import Callable, Iterator
from typing import Any

from lora_devcluster.errors import Cause, Json, forbidden, invalid_value, required, unsupported
from lora_devcluster.names import annotations_faults, label_faults, labels_faults
from lora_devcluster.pod_validation import pod_spec_faults
from lora_devcluster.selectors import matches

Check = Callable[[Json, Json | None], Iterator[Cause]]
_SERVICE_TYPES = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
_PROTOCOLS = ("SCTP", "TCP", "UDP")
_DNS_1035 = re.compile("[a-z]([-a-z0-9]*[a-z0-9])?")
_DNS_1035_RULE = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, "
    "and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is "
    "'[a-z]([-a-z0-9]*[a-z0-9])?')"
)
_POLICY_ACTIONS = ("Count", "FailIndex", "FailJob", "Ignore")


def _template_faults(template: Json, path: str) -> Iterator[Cause]:
    meta = template.get("metadata") or {}
    yield from labels_faults(f"{path}.metadata.labels", meta.get("labels"))
    yield from annotations_faults(f"{path}.metadata.annotations", meta.get("annotations"))
    yield from pod_spec_faults(template["spec"], f"{path}.spec")


def _immutable(path: str, value: Any, old: Any) -> Iterator[Cause]:
    if value != old:
        yield invalid_value(path, value, "field is immutable")


def _pod(obj: Json, old: Json | None) -> Iterator[Cause]:
    if old is None:
        yield from pod_spec_faults(obj["spec"], "spec")
        return
    images = ("containers", "initContainers")
    mutable = ("activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds", "nodeName", "schedulingGates")

    def fixed(spec: Json) -> Json:
        kept = {name: value for name, value in spec.items() if name not in mutable}
        for name in images:
            kept[name] = [{**c, "image": ""} for c in spec.get(name) or ()]
        return kept

    if fixed(obj["spec"]) != fixed(old["spec"]):
        words = (
            "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
        )
        words += "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
        yield forbidden(
            "spec",
            words + "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)",
        )


def _job(obj: Json, old: Json | None) -> Iterator[Cause]:
    spec = obj["spec"]
    if old is not None:
        yield from _job_change(spec, old)
    for name in ("parallelism", "completions", "backoffLimit", "activeDeadlineSeconds", "ttlSecondsAfterFinished"):
        if spec.get(name) is not None and spec[name] < 0:
            yield invalid_value(f"spec.{name}", spec[name], "must be greater than or equal to 0")
    if spec["completionMode"] == "Indexed":
        yield from _indexed_job(obj)
    elif spec["completionMode"] != "NonIndexed":
        yield unsupported("spec.completionMode", spec["completionMode"], ("NonIndexed", "Indexed"))
    template = spec["template"]
    if not matches(spec["selector"], (template.get("metadata") or {}).get("labels") or {}):
        labels = (template.get("metadata") or {}).get("labels")
        yield invalid_value("spec.template.metadata.labels", labels, "`selector` does not match template `labels`")
    yield from _template_faults(template, "spec.template")
    restart = template["spec"]["restartPolicy"]
    if restart not in ("OnFailure", "Never"):
        yield unsupported("spec.template.spec.restartPolicy", restart, ("OnFailure", "Never"))
    yield from _pod_failure_policy(spec)
    yield from _unserved_job_fields(spec)


def _indexed_job(obj: Json) -> Iterator[Cause]:
    spec = obj["spec"]
    if spec.get("completions") is None:
        yield required("spec.completions", "when completion mode is Indexed")
    if spec["parallelism"] > 100_000:
        yield invalid_value(
            "spec.parallelism",
            spec["parallelism"],
            "must be less than or equal to 100000 when completion mode is Indexed",
        )
    last = f"{obj['metadata']['name']}-{max((spec.get('completions') or 1) - 1, 0)}"
    for fault in label_faults("metadata.name", last):
        yield invalid_value(
            "metadata.name",
            obj["metadata"]["name"],
            f"will not able to create pod DNS hostname {last}: {fault.message}",
        )


def _job_change(spec: Json, old: Json) -> Iterator[Cause]:
    was = old["spec"]
    for name in (
        "completionMode",
        "selector",
        "podFailurePolicy",
        "backoffLimitPerIndex",
        "managedBy",
        "successPolicy",
    ):
        yield from _immutable(f"spec.{name}", spec.get(name), was.get(name))
    if spec.get("completions") != was.get("completions"):
        elastic = spec["completionMode"] == "Indexed" and spec.get("completions") == spec["parallelism"]
        if not elastic:
            yield from _immutable("spec.completions", spec.get("completions"), was.get("completions"))
    if spec["template"] != was["template"] and not _may_schedule_anew(spec["template"], was, old):
        yield from _immutable("spec.template", spec["template"], was["template"])


def _may_schedule_anew(template: Json, was: Json, old: Json) -> bool:
    """A Job that is suspended and has not started may get new scheduling directives, as Kueue needs it."""
    if not was.get("suspend") or (old.get("status") or {}).get("startTime"):
        return False
    directives = ("affinity", "nodeSelector", "tolerations", "schedulingGates")

    def fixed(one: Json) -> tuple[Json, Json]:
        meta = {k: v for k, v in (one.get("metadata") or {}).items() if k not in ("labels", "annotations")}
        return meta, {k: v for k, v in one["spec"].items() if k not in directives}

    return fixed(template) == fixed(was["template"])


def _pod_failure_policy(spec: Json) -> Iterator[Cause]:
    policy = spec.get("podFailurePolicy")
    if policy is None:
        return
    path = "spec.podFailurePolicy"
    if spec["template"]["spec"]["restartPolicy"] != "Never":
        value = spec["template"]["spec"]["restartPolicy"]
        yield invalid_value(
            "spec.template.spec.restartPolicy", value, 'only "Never" is supported when podFailurePolicy is specified'
        )
    if spec["podReplacementPolicy"] != "Failed":
        yield unsupported("spec.podReplacementPolicy", spec["podReplacementPolicy"], ("Failed",))
    if len(policy["rules"]) > 20:
        yield Cause(
            f"{path}.rules", "FieldValueTooMany", f"Too many: {len(policy['rules'])}: must have at most 20 items"
        )
    names = {c["name"] for kind in ("containers", "initContainers") for c in spec["template"]["spec"].get(kind) or ()}
    for index, rule in enumerate(policy["rules"]):
        yield from _policy_rule(rule, f"{path}.rules[{index}]", names)


def _policy_rule(rule: Json, path: str, containers: set[str]) -> Iterator[Cause]:
    codes, conditions = rule.get("onExitCodes"), rule.get("onPodConditions")
    if rule["action"] not in _POLICY_ACTIONS:
        yield unsupported(f"{path}.action", rule["action"], _POLICY_ACTIONS)
    if bool(codes) == bool(conditions):
        yield invalid_value(
            path,
            rule,
            "specifying one of OnExitCodes and OnPodConditions is required and both are not supported together",
        )
    if codes:
        yield from _exit_codes(codes, f"{path}.onExitCodes", containers)
    for index, pattern in enumerate(conditions or ()):
        if pattern.get("status") not in ("True", "False", "Unknown"):
            yield unsupported(
                f"{path}.onPodConditions[{index}].status", pattern.get("status"), ("False", "True", "Unknown")
            )


def _exit_codes(codes: Json, path: str, containers: set[str]) -> Iterator[Cause]:
    values = codes["values"]
    if codes["operator"] not in ("In", "NotIn"):
        yield unsupported(f"{path}.operator", codes["operator"], ("In", "NotIn"))
    name = codes.get("containerName")
    if name is not None and name not in containers:
        yield invalid_value(
            f"{path}.containerName", name, "must be one of the container or initContainer names in the pod template"
        )
    if not values:
        yield invalid_value(f"{path}.values", values, "at least one value is required")
    if len(values) > 255:
        yield Cause(f"{path}.values", "FieldValueTooMany", f"Too many: {len(values)}: must have at most 255 items")
    if codes["operator"] == "In" and 0 in values:
        yield invalid_value(f"{path}.values[{values.index(0)}]", 0, "must not be 0 for the In operator")
    if len(set(values)) != len(values):
        yield Cause(f"{path}.values", "FieldValueDuplicate", f"Duplicate value: {values}")
    if values != sorted(values):
        yield invalid_value(f"{path}.values", values, "must be ordered")


def _unserved_job_fields(spec: Json) -> Iterator[Cause]:
    for name in ("backoffLimitPerIndex", "maxFailedIndexes", "successPolicy", "managedBy"):
        if spec.get(name) is not None:
            yield forbidden(f"spec.{name}", "this laptop-sized cluster does not carry it out")


def _workload(obj: Json, old: Json | None) -> Iterator[Cause]:
    spec = obj["spec"]
    template = spec["template"]
    labels = (template.get("metadata") or {}).get("labels") or {}
    selector = spec.get("selector") or {}
    if not selector.get("matchLabels") and not selector.get("matchExpressions"):
        yield invalid_value("spec.selector", selector, "empty selector is invalid for deployment")
    elif not matches(selector, labels):
        yield invalid_value("spec.template.metadata.labels", labels, "`selector` does not match template `labels`")
    if spec["replicas"] < 0:
        yield invalid_value("spec.replicas", spec["replicas"], "must be greater than or equal to 0")
    if old is not None:
        yield from _immutable("spec.selector", selector, old["spec"].get("selector"))
    yield from _template_faults(template, "spec.template")
    if template["spec"]["restartPolicy"] != "Always":
        yield unsupported("spec.template.spec.restartPolicy", template["spec"]["restartPolicy"], ("Always",))


def _service(obj: Json, old: Json | None) -> Iterator[Cause]:
    spec, name = obj["spec"], obj["metadata"]["name"]
    if not _DNS_1035.fullmatch(name):
        yield invalid_value("metadata.name", name, _DNS_1035_RULE)
    if spec["type"] not in _SERVICE_TYPES:
        yield unsupported("spec.type", spec["type"], _SERVICE_TYPES)
    is_headless = spec.get("clusterIP") == "None"
    if is_headless and spec["type"] != "ClusterIP":
        yield invalid_value("spec.clusterIPs[0]", "None", f"may not be set to 'None' for {spec['type']} services")
    if not spec.get("ports") and not is_headless and spec["type"] != "ExternalName":
        yield required("spec.ports")
    yield from labels_faults("spec.selector", spec.get("selector"))
    yield from _service_ports(spec.get("ports") or [])
    if old is not None and old["spec"].get("clusterIP"):
        yield from _immutable("spec.clusterIPs[0]", spec.get("clusterIP"), old["spec"]["clusterIP"])


def _service_ports(ports: list[Json]) -> Iterator[Cause]:
    seen: set[str] = set()
    for index, port in enumerate(ports):
        path, name = f"spec.ports[{index}]", port.get("name") or ""
        if len(ports) > 1 and not name:
            yield required(f"{path}.name")
        if name in seen:
            yield Cause(f"{path}.name", "FieldValueDuplicate", f'Duplicate value: "{name}"')
        seen.add(name)
        if not 1 <= port["port"] <= 65535:
            yield invalid_value(f"{path}.port", port["port"], "must be between 1 and 65535, inclusive")
        if port["protocol"] not in _PROTOCOLS:
            yield unsupported(f"{path}.protocol", port["protocol"], _PROTOCOLS)


def _kept_data(obj: Json, old: Json | None) -> Iterator[Cause]:
    """ConfigMaps and Secrets: sizes, keys, and `immutable: true`."""
    data = {**(obj.get("data") or {}), **(obj.get("binaryData") or {})}
    for key in data:
        if len(key) > 253 or not key.replace("-", "").replace("_", "").replace(".", "").isalnum() or key in (".", ".."):
            words = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'"
            yield invalid_value(f"data[{key}]", key, words)
    if sum(len(value) for value in data.values()) > 1024 * 1024:
        yield Cause("data", "FieldValueTooLong", "Too long: may not be more than 1048576 bytes")
    if old and old.get("immutable") and (data != {**(old.get("data") or {}), **(old.get("binaryData") or {})}):
        yield forbidden("data", "field is immutable when `immutable` is set")


def _secret(obj: Json, old: Json | None) -> Iterator[Cause]:
    yield from _kept_data(obj, old)
    if old is not None:
        yield from _immutable("type", obj.get("type"), old.get("type"))


def _lease(obj: Json, _old: Json | None) -> Iterator[Cause]:
    seconds = (obj.get("spec") or {}).get("leaseDurationSeconds")
    if seconds is not None and seconds <= 0:
        yield invalid_value("spec.leaseDurationSeconds", seconds, "must be greater than 0")


def _role_binding(obj: Json, old: Json | None) -> Iterator[Cause]:
    for index, subject in enumerate(obj.get("subjects") or ()):
        if subject.get("kind") == "ServiceAccount" and not subject.get("namespace"):
            yield required(f"subjects[{index}].namespace")
    if old is not None and obj["roleRef"] != old["roleRef"]:
        yield invalid_value("roleRef", obj["roleRef"], "cannot change roleRef")


CHECKS: dict[tuple[str, str], Check] = {
    ("", "pods"): _pod,
    ("", "configmaps"): _kept_data,
    ("", "secrets"): _secret,
    ("", "services"): _service,
    ("batch", "jobs"): _job,
    ("apps", "deployments"): _workload,
    ("apps", "replicasets"): _workload,
    ("coordination.k8s.io", "leases"): _lease,
    ("rbac.authorization.k8s.io", "rolebindings"): _role_binding,
    ("rbac.authorization.k8s.io", "clusterrolebindings"): _role_binding,
}
