"""What clients read to find their way: API groups, versions, resources and the server's version."""

from lora_devcluster.builtin import KUBERNETES_VERSION
from lora_devcluster.errors import Json
from lora_devcluster.resources import VERBS, Registry, Resource

_SUBRESOURCE_VERBS = {"log": ("get",), "eviction": ("create",), "binding": ("create",), "finalize": ("update",)}
_REVIEWS = {
    "authorization.k8s.io": ("SelfSubjectAccessReview", "selfsubjectaccessreviews"),
    "authentication.k8s.io": ("SelfSubjectReview", "selfsubjectreviews"),
}


def server_version() -> Json:
    major, minor, _ = KUBERNETES_VERSION.split(".")
    return {
        "major": major,
        "minor": minor,
        "gitVersion": f"v{KUBERNETES_VERSION}+devcluster",
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "none",
        "compiler": "python",
        "platform": "linux/amd64",
    }


def core_versions(address: str) -> Json:
    return {
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    }


def _group(name: str, versions: list[str]) -> Json:
    listed = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": listed, "preferredVersion": listed[0]}


def groups(registry: Registry) -> Json:
    """All named API groups."""
    versions: dict[str, list[str]] = {name: ["v1"] for name in _REVIEWS}
    for resource in registry:
        known = versions.setdefault(resource.group, [])
        if resource.version not in known:
            known.append(resource.version)
    named = [_group(name, known) for name, known in sorted(versions.items()) if name]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": named}


def group(registry: Registry, name: str) -> Json | None:
    found = next((one for one in groups(registry)["groups"] if one["name"] == name), None)
    return {"kind": "APIGroup", "apiVersion": "v1", **found} if found else None


def _entry(resource: Resource) -> Json:
    return {
        "name": resource.plural,
        "singularName": resource.singular or resource.kind.lower(),
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": list(VERBS),
        "shortNames": list(resource.short_names),
        "categories": list(resource.categories),
        "storageVersionHash": "",
    }


def _subresource_entry(resource: Resource, subresource: str) -> Json:
    verbs = _SUBRESOURCE_VERBS.get(subresource, ("get", "patch", "update"))
    kind = {"eviction": "Eviction", "binding": "Binding"}.get(subresource, resource.kind)
    entry: Json = {"name": f"{resource.plural}/{subresource}", "singularName": "", "namespaced": resource.namespaced}
    if subresource == "eviction":
        entry |= {"group": "policy", "version": "v1"}
    return entry | {"kind": kind, "verbs": list(verbs)}


def resource_list(registry: Registry, group_name: str, version: str) -> Json | None:
    """The resources of one group and version, or None when there are none."""
    found = [r for r in registry if (r.group, r.version) == (group_name, version)]
    entries = [_entry(r) for r in found]
    entries += [_subresource_entry(r, name) for r in found for name in r.subresources]
    if group_name in _REVIEWS and version == "v1":
        kind, plural = _REVIEWS[group_name]
        entries.append({"name": plural, "singularName": "", "namespaced": False, "kind": kind, "verbs": ["create"]})
    if not entries:
        return None
    name = f"{group_name}/{version}" if group_name else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": name, "resources": entries}
