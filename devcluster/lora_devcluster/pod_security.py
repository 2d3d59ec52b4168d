"""The Pod Security Standards at the levels `baseline` and `restricted`, worded as the admission plugin does.

https://kubernetes.io/docs/concepts/security/pod-security-standards/
"""

from collections.abc import Callable, Iterable

from lora_devcluster.errors import Json

_RESTRICTED_VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image", "persistentVolumeClaim", "projected", "secret",
}  # fmt: skip
_BASELINE_CAPABILITIES = {
    "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "SETFCAP",
    "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
}  # fmt: skip


def _containers(spec: Json) -> list[Json]:
    return [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]


def _context(container: Json) -> Json:
    return container.get("securityContext") or {}


def _names(containers: Iterable[Json]) -> str:
    names = [f'"{container["name"]}"' for container in containers]
    return f"container {names[0]}" if len(names) == 1 else "containers " + ", ".join(names)


def _where(spec: Json, test: Callable[[Json], bool]) -> list[Json]:
    return [container for container in _containers(spec) if test(container)]


def _baseline(spec: Json) -> Iterable[str]:
    shared = [name for name in ("hostNetwork", "hostPID", "hostIPC") if spec.get(name)]
    if shared:
        yield f"host namespaces ({', '.join(f'{name}=true' for name in shared)})"
    privileged = _where(spec, lambda c: bool(_context(c).get("privileged")))
    if privileged:
        yield f"privileged ({_names(privileged)} must not set securityContext.privileged=true)"
    paths = [volume["name"] for volume in spec.get("volumes") or () if volume.get("hostPath")]
    if paths:
        yield "hostPath volumes (" + ", ".join(f'volume "{name}"' for name in paths) + ")"
    ports = _where(spec, lambda c: any(port.get("hostPort") for port in c.get("ports") or ()))
    if ports:
        yield f"hostPort ({_names(ports)})"
    extra = _where(
        spec, lambda c: bool(set((_context(c).get("capabilities") or {}).get("add") or ()) - _BASELINE_CAPABILITIES)
    )
    if extra:
        yield f"non-default capabilities ({_names(extra)} must not include more in securityContext.capabilities.add)"


def _restricted(spec: Json) -> Iterable[str]:
    pod = spec.get("securityContext") or {}
    escalating = _where(spec, lambda c: _context(c).get("allowPrivilegeEscalation") is not False)
    if escalating:
        words = f"{_names(escalating)} must set securityContext.allowPrivilegeEscalation=false"
        yield f"allowPrivilegeEscalation != false ({words})"
    capable = _where(spec, lambda c: "ALL" not in ((_context(c).get("capabilities") or {}).get("drop") or ()))
    if capable:
        yield f'unrestricted capabilities ({_names(capable)} must set securityContext.capabilities.drop=["ALL"])'
    for volume in spec.get("volumes") or ():
        kinds = {name for name, value in volume.items() if name != "name" and value is not None}
        if kinds - _RESTRICTED_VOLUMES:
            yield f'restricted volume types (volume "{volume["name"]}" uses restricted volume type "{min(kinds)}")'
    rooted = _where(spec, lambda c: not _context(c).get("runAsNonRoot", pod.get("runAsNonRoot")))
    if rooted:
        yield f"runAsNonRoot != true (pod or {_names(rooted)} must set securityContext.runAsNonRoot=true)"
    root_users = _where(spec, lambda c: _context(c).get("runAsUser", pod.get("runAsUser")) == 0)
    if root_users:
        yield f"runAsUser=0 (pod or {_names(root_users)} must not set runAsUser=0)"
    unconfined = _where(spec, lambda c: _seccomp(c, pod) not in ("RuntimeDefault", "Localhost"))
    if unconfined:
        words = f"pod or {_names(unconfined)} must set securityContext.seccompProfile.type"
        yield f'seccompProfile ({words} to "RuntimeDefault" or "Localhost")'


def _seccomp(container: Json, pod: Json) -> str | None:
    profile = _context(container).get("seccompProfile") or pod.get("seccompProfile") or {}
    kind: str | None = profile.get("type")
    return kind


def pod_security_faults(spec: Json, level: str) -> list[str]:
    """What in a pod's spec the level does not allow."""
    if level == "privileged":
        return []
    return [*_baseline(spec), *(_restricted(spec) if level == "restricted" else ())]
