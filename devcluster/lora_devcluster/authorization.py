"""RBAC for service accounts, as the API server evaluates it; everybody else is an administrator here. Used by `server`.

https://kubernetes.io/docs/reference/access-authn-authz/rbac/ and, for owner references that block deletion, the plugin
OwnerReferencesPermissionEnforcement (https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/).
"""

from collections.abc import Collection, Iterator
from dataclasses import replace

from lora_devcluster.errors import ApiError, Json, forbidden_request
from lora_devcluster.requests import RequestInfo
from lora_devcluster.resources import Registry
from lora_devcluster.store import Key, Store

_ACCOUNT = "system:serviceaccount:"
_RBAC = "rbac.authorization.k8s.io"
_EVERYBODY = "system:authenticated"


class Authorizer:
    """Says what a service account may do; `checked` holds every right that was needed so far."""

    def __init__(self, store: Store, registry: Registry) -> None:
        self._store = store
        self._registry = registry
        self.checked: set[RequestInfo] = set()

    def check(self, info: RequestInfo) -> None:
        """Raises ApiError 403 unless the request's user may do that."""
        if not info.user.startswith(_ACCOUNT):
            return
        self.checked.add(replace(info, version="", user_agent="", code=0))
        if not self.allows(info):
            raise _refusal(info)

    def check_owners(self, info: RequestInfo, body: Json) -> None:
        """Raises ApiError 403 unless the user may set the finalizers of the owners whose deletion the object blocks."""
        for reference in (body.get("metadata") or {}).get("ownerReferences") or ():
            resource = self._registry.of_kind(reference["apiVersion"], reference["kind"])
            if reference.get("blockOwnerDeletion") and resource is not None:
                wanted = replace(info, verb="update", group=resource.group, resource=resource.plural)
                self.check(replace(wanted, subresource="finalizers", name=reference["name"]))

    def allows(self, info: RequestInfo) -> bool:
        """Whether the roles that are bound to the user give the right."""
        if not info.user.startswith(_ACCOUNT):
            return True
        return any(_matches(rule, info) for rule in self._rules(info))

    def _rules(self, info: RequestInfo) -> Iterator[Json]:
        bindings = self._store.objects(_RBAC, "clusterrolebindings")
        if info.namespace:
            bindings = bindings + self._store.objects(_RBAC, "rolebindings", info.namespace)
        for binding in bindings:
            if any(_is_meant(subject, info.user) for subject in binding.get("subjects") or ()):
                yield from self._role(binding).get("rules") or ()

    def _role(self, binding: Json) -> Json:
        """The role that a binding names; one that is not there gives nothing."""
        reference = binding["roleRef"]
        if reference["kind"] == "ClusterRole":
            return self._store.get(Key(_RBAC, "clusterroles", "", reference["name"])) or {}
        return self._store.get(Key(_RBAC, "roles", binding["metadata"]["namespace"], reference["name"])) or {}


def _is_meant(subject: Json, user: str) -> bool:
    namespace, name = user.removeprefix(_ACCOUNT).split(":", 1)
    match subject["kind"]:
        case "ServiceAccount":
            return (subject.get("namespace"), subject["name"]) == (namespace, name)
        case "Group":
            return subject["name"] in (f"{_ACCOUNT[:-1]}s", f"{_ACCOUNT[:-1]}s:{namespace}", _EVERYBODY)
        case _:
            return bool(subject["name"] == user)


def _matches(rule: Json, info: RequestInfo) -> bool:
    resources = rule.get("resources") or ()
    names = rule.get("resourceNames") or ()
    return (
        _holds(rule["verbs"], info.verb)
        and _holds(rule.get("apiGroups") or (), info.group)
        and (_holds(resources, info.target) or bool(info.subresource and f"*/{info.subresource}" in resources))
        and (not names or info.name in names)
    )


def _holds(allowed: Collection[str], value: str) -> bool:
    return "*" in allowed or value in allowed


def _refusal(info: RequestInfo) -> ApiError:
    place = f'in the namespace "{info.namespace}"' if info.namespace else "at the cluster scope"
    words = f'cannot {info.verb} resource "{info.target}" in API group "{info.group}" {place}'
    return forbidden_request(info.group, info.resource, info.name, f'User "{info.user}" {words}')
