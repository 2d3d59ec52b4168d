"""The kinds the server knows: a table of built-in ones and those that CustomResourceDefinitions add."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from lora_devcluster.cel import RuleTree, compile_tree
from lora_devcluster.errors import Json

VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


@dataclass(frozen=True)
class Resource:
    """One kind as the API serves it. `schema` and `columns` are those of its CustomResourceDefinition version."""

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool = True
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    subresources: tuple[str, ...] = ()
    singular: str = ""
    list_kind: str = ""
    storage: bool = True
    schema: Json | None = None
    rules: RuleTree | None = None
    columns: tuple[Json, ...] = ()
    uid: str = ""

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def custom(self) -> bool:
        return self.schema is not None

    @property
    def has_status(self) -> bool:
        return "status" in self.subresources


def _builtin() -> Iterable[Resource]:
    status = ("status",)
    everywhere = ("all",)
    yield Resource("", "v1", "Namespace", "namespaces", False, ("ns",), subresources=("status", "finalize"))
    yield Resource("", "v1", "Node", "nodes", False, ("no",), subresources=status)
    yield Resource("", "v1", "Pod", "pods", True, ("po",), everywhere, ("status", "log", "eviction", "binding"))
    yield Resource("", "v1", "Secret", "secrets")
    yield Resource("", "v1", "ConfigMap", "configmaps", True, ("cm",))
    yield Resource("", "v1", "Service", "services", True, ("svc",), everywhere, status)
    yield Resource("", "v1", "ServiceAccount", "serviceaccounts", True, ("sa",))
    yield Resource("", "v1", "Event", "events", True, ("ev",))
    yield Resource("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", True, ("pvc",), (), status)
    yield Resource("", "v1", "ResourceQuota", "resourcequotas", True, ("quota",), (), status)
    yield Resource("", "v1", "LimitRange", "limitranges", True, ("limits",))
    yield Resource("batch", "v1", "Job", "jobs", True, (), everywhere, status)
    yield Resource("apps", "v1", "Deployment", "deployments", True, ("deploy",), everywhere, status)
    yield Resource("apps", "v1", "ReplicaSet", "replicasets", True, ("rs",), everywhere, status)
    yield Resource("coordination.k8s.io", "v1", "Lease", "leases")
    yield Resource("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", True, ("pdb",), (), status)
    yield Resource("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies", True, ("netpol",))
    yield Resource("scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses", False, ("pc",))
    yield Resource("storage.k8s.io", "v1", "StorageClass", "storageclasses", False, ("sc",))
    rbac = "rbac.authorization.k8s.io"
    yield Resource(rbac, "v1", "Role", "roles")
    yield Resource(rbac, "v1", "RoleBinding", "rolebindings")
    yield Resource(rbac, "v1", "ClusterRole", "clusterroles", False)
    yield Resource(rbac, "v1", "ClusterRoleBinding", "clusterrolebindings", False)
    definitions = "customresourcedefinitions"
    extensions = "apiextensions.k8s.io"
    yield Resource(extensions, "v1", "CustomResourceDefinition", definitions, False, ("crd", "crds"), (), status)


def _custom(definition: Json) -> Iterable[Resource]:
    spec = definition["spec"]
    names = spec["names"]
    for version in spec["versions"]:
        if version["served"]:
            yield Resource(
                spec["group"],
                version["name"],
                names["kind"],
                names["plural"],
                spec["scope"] == "Namespaced",
                tuple(names.get("shortNames") or ()),
                tuple(names.get("categories") or ()),
                tuple(version.get("subresources") or ()),
                singular=names.get("singular") or names["kind"].lower(),
                list_kind=names.get("listKind") or names["kind"] + "List",
                storage=version["storage"],
                schema=version["schema"]["openAPIV3Schema"],
                rules=compile_tree(version["schema"]["openAPIV3Schema"]),
                columns=tuple(version.get("additionalPrinterColumns") or ()),
                uid=definition["metadata"]["uid"],
            )


class Registry:
    """Finds a kind by its place in the API; CustomResourceDefinitions add and remove theirs."""

    def __init__(self) -> None:
        self._resources = {(r.group, r.version, r.plural): r for r in _builtin()}

    def find(self, group: str, version: str, plural: str) -> Resource | None:
        return self._resources.get((group, version, plural))

    def builtin(self, group: str, plural: str) -> Resource:
        """A built-in kind, which is always there."""
        return self._resources[group, "v1", plural]

    def collection(self, group: str, plural: str) -> Resource | None:
        """The kind of a collection in the version it is stored in."""
        served = [r for r in self._resources.values() if (r.group, r.plural) == (group, plural)]
        return next((r for r in served if r.storage), served[0] if served else None)

    def of_kind(self, api_version: str, kind: str) -> Resource | None:
        matching = (r for r in self._resources.values() if (r.api_version, r.kind) == (api_version, kind))
        return next(matching, None)

    def __iter__(self) -> Iterator[Resource]:
        return iter(self._resources.values())

    def define(self, definition: Json) -> None:
        """Serves the versions of a CustomResourceDefinition, and no longer those it has dropped."""
        self.undefine(definition)
        self._resources |= {(r.group, r.version, r.plural): r for r in _custom(definition)}

    def undefine(self, definition: Json) -> None:
        group, plural = definition["spec"]["group"], definition["spec"]["names"]["plural"]
        gone = [place for place, r in self._resources.items() if (r.group, r.plural) == (group, plural)]
        for place in gone:
            del self._resources[place]
