"""Rules of a pod's spec beyond its types. Used for pods and for the templates of Jobs and Deployments."""

import re
from collections.abc import Iterator
from typing import Any

from lora_devcluster.downward import is_field
from lora_devcluster.errors import Cause, Json, forbidden, invalid_value, required, unsupported
from lora_devcluster.names import is_subdomain, label_faults
from lora_devcluster.quantity import parse

_ENV_NAME = re.compile(r"[ -<>-~]+")
_NATIVE = ("cpu", "memory", "ephemeral-storage")
_SOURCES = (
    "awsElasticBlockStore", "azureDisk", "azureFile", "cephfs", "cinder", "configMap", "csi", "downwardAPI", "emptyDir",
    "ephemeral", "fc", "flexVolume", "flocker", "gcePersistentDisk", "gitRepo", "glusterfs", "hostPath", "image",
    "iscsi", "nfs", "persistentVolumeClaim", "photonPersistentDisk", "portworxVolume", "projected", "quobyte", "rbd",
    "scaleIO", "secret", "storageos", "vsphereVolume",
)  # fmt: skip
_POLICIES = {
    "restartPolicy": ("Always", "OnFailure", "Never"),
    "dnsPolicy": ("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"),
}
_CONTAINER_POLICIES = {
    "imagePullPolicy": ("Always", "IfNotPresent", "Never"),
    "terminationMessagePolicy": ("File", "FallbackToLogsOnError"),
}


def _duplicate(path: str, value: object) -> Cause:
    return Cause(path, "FieldValueDuplicate", f'Duplicate value: "{value}"')


def pod_spec_faults(spec: Json, path: str) -> Iterator[Cause]:
    """Everything that is wrong with a pod's spec whose types are right and whose defaults are filled in."""
    for name, choices in _POLICIES.items():
        if spec[name] not in choices:
            yield unsupported(f"{path}.{name}", spec[name], choices)
    if spec["terminationGracePeriodSeconds"] < 0:
        grace = spec["terminationGracePeriodSeconds"]
        yield invalid_value(f"{path}.terminationGracePeriodSeconds", grace, "must be greater than or equal to 0")
    if (spec.get("activeDeadlineSeconds") or 1) < 1:
        yield invalid_value(
            f"{path}.activeDeadlineSeconds",
            spec["activeDeadlineSeconds"],
            "must be between 1 and 2147483647, inclusive",
        )
    volumes = [volume.get("name", "") for volume in spec.get("volumes") or ()]
    yield from _volume_faults(spec.get("volumes") or [], f"{path}.volumes")
    if not spec.get("containers"):
        yield required(f"{path}.containers")
    seen: set[str] = set()
    for kind in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(kind) or ()):
            where = f"{path}.{kind}[{index}]"
            yield from _container_faults(container, where, volumes)
            if container.get("name") in seen:
                yield _duplicate(f"{where}.name", container["name"])
            seen.add(container.get("name", ""))
    yield from _scheduling_faults(spec, path)
    yield from _unserved_faults(spec, path)


def _unserved_faults(spec: Json, path: str) -> Iterator[Cause]:
    """What a real cluster would carry out and this one cannot is refused, not passed over."""
    for kind in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(kind) or ()):
            where = f"{path}.{kind}[{index}]"
            for name in ("livenessProbe", "readinessProbe", "startupProbe"):
                probe = container.get(name) or {}
                if probe.get("exec") or probe.get("grpc"):
                    yield forbidden(f"{where}.{name}", "this laptop-sized cluster probes by httpGet and tcpSocket only")
            if container.get("lifecycle"):
                yield forbidden(f"{where}.lifecycle", "this laptop-sized cluster runs no hooks")
            if container.get("restartPolicy"):
                yield forbidden(f"{where}.restartPolicy", "this laptop-sized cluster runs no sidecar containers")


def _scheduling_faults(spec: Json, path: str) -> Iterator[Cause]:
    for index, toleration in enumerate(spec.get("tolerations") or ()):
        where = f"{path}.tolerations[{index}]"
        operator = toleration.get("operator") or "Equal"
        if operator not in ("Equal", "Exists"):
            yield unsupported(f"{where}.operator", operator, ("Equal", "Exists"))
        if operator == "Exists" and toleration.get("value"):
            yield invalid_value(f"{where}.operator", toleration, "value must be empty when `operator` is 'Exists'")
        if not toleration.get("key") and operator != "Exists":
            yield invalid_value(
                f"{where}.operator",
                operator,
                'operator must be Exists when `key` is empty, which means "match all values and all keys"',
            )
        if toleration.get("effect") not in (None, "", "NoSchedule", "PreferNoSchedule", "NoExecute"):
            yield unsupported(f"{where}.effect", toleration["effect"], ("NoSchedule", "PreferNoSchedule", "NoExecute"))
        if toleration.get("tolerationSeconds") is not None and toleration.get("effect") != "NoExecute":
            yield invalid_value(
                f"{where}.effect",
                toleration.get("effect", ""),
                "effect must be 'NoExecute' when `tolerationSeconds` is set",
            )
    if spec.get("hostname"):
        yield from label_faults(f"{path}.hostname", spec["hostname"])


def _volume_faults(volumes: list[Json], path: str) -> Iterator[Cause]:
    seen: set[str] = set()
    for index, volume in enumerate(volumes):
        where = f"{path}[{index}]"
        yield from label_faults(f"{where}.name", volume.get("name", ""))
        if volume.get("name") in seen:
            yield _duplicate(f"{where}.name", volume["name"])
        seen.add(volume.get("name", ""))
        if sum(volume.get(source) is not None for source in _SOURCES) > 1:
            yield forbidden(where, "may not specify more than 1 volume type")
        for source, field in (
            ("secret", "secretName"),
            ("configMap", "name"),
            ("persistentVolumeClaim", "claimName"),
            ("hostPath", "path"),
            ("ephemeral", "volumeClaimTemplate"),
        ):
            if volume.get(source) is not None and not volume[source].get(field):
                yield required(f"{where}.{source}.{field}")
        for projection, place in _downward_sources(volume, where):
            for number, item in enumerate(projection.get("items") or ()):
                yield from _downward_faults(item, f"{place}.items[{number}]")
        if (volume.get("hostPath") or {}).get("path") and ".." in volume["hostPath"]["path"].split("/"):
            yield invalid_value(f"{where}.hostPath.path", volume["hostPath"]["path"], "must not contain '..'")


def _downward_sources(volume: Json, path: str) -> Iterator[tuple[Json, str]]:
    if volume.get("downwardAPI"):
        yield volume["downwardAPI"], f"{path}.downwardAPI"
    for index, source in enumerate((volume.get("projected") or {}).get("sources") or ()):
        if source.get("downwardAPI"):
            yield source["downwardAPI"], f"{path}.projected.sources[{index}].downwardAPI"


def _downward_faults(item: Json, path: str) -> Iterator[Cause]:
    """One file of a downward API volume (`validateDownwardAPIVolumeFile` of Kubernetes)."""
    target = item.get("path") or ""
    if not target:
        yield required(f"{path}.path")
    elif target.startswith("/"):
        yield invalid_value(f"{path}.path", target, "must be a relative path")
    elif ".." in target.split("/"):
        yield invalid_value(f"{path}.path", target, "must not contain '..'")
    elif target.startswith(".."):
        yield invalid_value(f"{path}.path", target, "must not start with '..'")
    field, resource = item.get("fieldRef"), item.get("resourceFieldRef")
    if field is not None and resource is not None:
        yield invalid_value(path, "resource", "fieldRef and resourceFieldRef can not be specified simultaneously")
    elif field is None and resource is None:
        yield required(path, "one of fieldRef and resourceFieldRef is required")
    elif resource is not None and not resource.get("containerName"):
        yield required(f"{path}.resourceFieldRef.containerName")
    yield from _field_faults(field, f"{path}.fieldRef.fieldPath", in_volume=True)


def _container_faults(container: Json, path: str, volumes: list[str]) -> Iterator[Cause]:
    if not container.get("name"):
        yield required(f"{path}.name")
    else:
        yield from label_faults(f"{path}.name", container["name"])
    if not container.get("image"):
        yield required(f"{path}.image")
    elif container["image"] != container["image"].strip():
        yield invalid_value(f"{path}.image", container["image"], "must not have leading or trailing whitespace")
    for name, choices in _CONTAINER_POLICIES.items():
        if container[name] not in choices:
            yield unsupported(f"{path}.{name}", container[name], choices)
    yield from _environment_faults(container, path)
    yield from _mount_faults(container.get("volumeMounts") or [], f"{path}.volumeMounts", volumes)
    yield from _port_faults(container.get("ports") or [], f"{path}.ports")
    yield from _resource_faults(container["resources"], f"{path}.resources")


def _environment_faults(container: Json, path: str) -> Iterator[Cause]:
    for index, variable in enumerate(container.get("env") or ()):
        where = f"{path}.env[{index}]"
        if not variable.get("name"):
            yield required(f"{where}.name")
        elif not _ENV_NAME.fullmatch(variable["name"]):
            yield invalid_value(
                f"{where}.name",
                variable["name"],
                "a valid environment variable name must consist only of printable ASCII characters other than '='",
            )
        source = variable.get("valueFrom")
        if source is not None:
            yield from _value_source_faults(source, variable, f"{where}.valueFrom")


def _value_source_faults(source: Json, variable: Json, path: str) -> Iterator[Cause]:
    chosen = [name for name, value in source.items() if value is not None]
    if variable.get("value"):
        yield invalid_value(path, "", "may not be specified when `value` is not empty")
    if len(chosen) != 1:
        words = (
            "may not have more than one field specified at a time"
            if chosen
            else "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`"
        )
        yield invalid_value(path, "", words)
    yield from _field_faults(source.get("fieldRef"), f"{path}.fieldRef.fieldPath")
    for name in ("secretKeyRef", "configMapKeyRef"):
        reference = source.get(name)
        if reference is not None:
            yield from (required(f"{path}.{name}.{part}") for part in ("name", "key") if not reference.get(part))


def _field_faults(reference: Json | None, path: str, in_volume: bool = False) -> Iterator[Cause]:
    if reference is not None and not is_field(reference.get("fieldPath") or "", in_volume):
        yield invalid_value(
            path, reference.get("fieldPath", ""), "error converting fieldPath: field label not supported"
        )


def _mount_faults(mounts: list[Json], path: str, volumes: list[str]) -> Iterator[Cause]:
    seen: set[str] = set()
    for index, mount in enumerate(mounts):
        where = f"{path}[{index}]"
        if mount.get("name") not in volumes:
            yield Cause(f"{where}.name", "FieldValueNotFound", f'Not found: "{mount.get("name", "")}"')
        if not mount.get("mountPath"):
            yield required(f"{where}.mountPath")
        elif mount["mountPath"] in seen:
            yield invalid_value(f"{where}.mountPath", mount["mountPath"], "must be unique")
        seen.add(mount.get("mountPath", ""))
        sub_path = mount.get("subPath") or ""
        if sub_path.startswith("/") or ".." in sub_path.split("/"):
            yield invalid_value(f"{where}.subPath", sub_path, "must be a relative path and must not contain '..'")


def _port_faults(ports: list[Json], path: str) -> Iterator[Cause]:
    names: set[str] = set()
    for index, port in enumerate(ports):
        where = f"{path}[{index}]"
        if not 1 <= (port.get("containerPort") or 0) <= 65535:
            yield invalid_value(
                f"{where}.containerPort", port.get("containerPort") or 0, "must be between 1 and 65535, inclusive"
            )
        name = port.get("name")
        if name:
            if len(name) > 15 or not re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name):
                yield invalid_value(
                    f"{where}.name",
                    name,
                    "must be no more than 15 characters and contain only a-z, 0-9 and hyphens",
                )
            if name in names:
                yield _duplicate(f"{where}.name", name)
            names.add(name)


def _resource_faults(resources: Json, path: str) -> Iterator[Cause]:
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    for kind, amounts in (("limits", limits), ("requests", requests)):
        for name, amount in amounts.items():
            yield from _amount_faults(name, amount, f"{path}.{kind}[{name}]")
    for name, amount in requests.items():
        if name not in limits:
            if not _is_native(name):
                yield required(f"{path}.limits", "Limit must be set for non overcommitable resources")
        elif not _is_native(name) and _amount(amount) != _amount(limits[name]):
            yield invalid_value(f"{path}.requests", str(amount), f"must be equal to {name} limit of {limits[name]}")
        elif _amount(amount) > _amount(limits[name]):
            yield invalid_value(
                f"{path}.requests", str(amount), f"must be less than or equal to {name} limit of {limits[name]}"
            )


def _is_native(name: str) -> bool:
    return name in _NATIVE or name.startswith("hugepages-")


def _amount(value: Any) -> float:
    try:
        return float(parse(value))
    except ValueError:
        return 0.0


def _amount_faults(name: str, amount: Any, path: str) -> Iterator[Cause]:
    prefix, slash, _ = name.rpartition("/")
    if not _is_native(name) and not (slash and is_subdomain(prefix)):
        yield invalid_value(path, name, "must be a standard resource type or fully qualified")
    try:
        value = parse(amount)
    except ValueError as error:
        yield invalid_value(path, str(amount), str(error))
        return
    if value < 0:
        yield invalid_value(path, str(amount), "must be greater than or equal to 0")
    if not _is_native(name) and value.denominator != 1:
        yield invalid_value(path, str(amount), "must be an integer")
