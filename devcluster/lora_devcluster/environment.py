"""A container's environment and command line, as the kubelet computes them.

https://kubernetes.io/docs/tasks/inject-data-application/define-interdependent-environment-variables/
"""

import base64
import re
from collections.abc import Mapping

from lora_devcluster.downward import field_value, resource_value
from lora_devcluster.errors import Json
from lora_devcluster.mounts import Lookup

_REFERENCE = re.compile(r"\$(\$|\(([^()\s]+)\))")
_NAME = re.compile(r"[A-Za-z_.\-][A-Za-z0-9_.\-]*")


class ConfigError(Exception):
    """Something that the container's configuration refers to is missing; the kubelet tries again."""


def expand(text: str, values: Mapping[str, str]) -> str:
    """Replaces `$(NAME)` by the variable; unknown ones stay, and `$$` is a plain dollar sign."""

    def value(found: re.Match[str]) -> str:
        if found[1] == "$":
            return "$"
        return values.get(found[2], found[0])

    return _REFERENCE.sub(value, text)


def container_environment(pod: Json, container: Json, lookup: Lookup) -> dict[str, str]:
    """The variables that the container's spec gives it.

    Raises:
        ConfigError: a Secret, a ConfigMap or a key of them is missing and not optional.
    """
    values: dict[str, str] = {}
    for source in container.get("envFrom") or ():
        values |= _all_of(source, pod, lookup)
    for variable in container.get("env") or ():
        if variable.get("valueFrom"):
            text = _referred(variable["valueFrom"], pod, container, lookup)
            if text is not None:
                values[variable["name"]] = text
        else:
            values[variable["name"]] = expand(variable.get("value") or "", values)
    return values


def _find(kind: str, reference: Json, pod: Json, lookup: Lookup) -> dict[str, str] | None:
    """The entries of a Secret or ConfigMap; None when it is missing but optional."""
    name = reference.get("name", "")
    found = lookup(kind, name)
    if found is None:
        if reference.get("optional"):
            return None
        raise ConfigError(f'{kind.removesuffix("s")} "{name}" not found')
    data: dict[str, str] = found.get("data") or {}
    if kind == "secrets":
        # Bytes that are no text reach the process as they are.
        return {key: base64.b64decode(value).decode("utf-8", "surrogateescape") for key, value in data.items()}
    return data


def _all_of(source: Json, pod: Json, lookup: Lookup) -> dict[str, str]:
    prefix = source.get("prefix") or ""
    for kind, field in (("secrets", "secretRef"), ("configmaps", "configMapRef")):
        if source.get(field) is not None:
            entries = _find(kind, source[field], pod, lookup) or {}
            return {prefix + key: value for key, value in entries.items() if _NAME.fullmatch(prefix + key)}
    return {}


def _referred(source: Json, pod: Json, container: Json, lookup: Lookup) -> str | None:
    if source.get("fieldRef"):
        return field_value(pod, source["fieldRef"]["fieldPath"])
    if source.get("resourceFieldRef"):
        return resource_value(container, source["resourceFieldRef"])
    for kind, field, title in (("secrets", "secretKeyRef", "Secret"), ("configmaps", "configMapKeyRef", "ConfigMap")):
        reference = source.get(field)
        if reference is None:
            continue
        entries = _find(kind, reference, pod, lookup)
        if entries is not None and reference["key"] in entries:
            return entries[reference["key"]]
        if not reference.get("optional"):
            where = f"{pod['metadata']['namespace']}/{reference['name']}"
            raise ConfigError(f"couldn't find key {reference['key']} in {title} {where}")
    return None
