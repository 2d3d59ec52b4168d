"""The operator's ServiceAccount and its rights as the chart gives them, for the laptop-sized cluster."""

from pathlib import Path
from typing import Any

from lora_devcluster import DevCluster
from lora_devcluster.api import WriteOptions
from lora_devcluster.kubelet import kubeconfig
from lora_operator.settings import Election
from tests.support.chart import NAMESPACE, only, render

LEASE = Election(NAMESPACE, "lora-lora-operator")
"""The Lease that the chart names to the operator and gives it the rights to."""
RBAC_KINDS = ("Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")


def values_for(namespaces: tuple[str, ...]) -> dict[str, Any]:
    """The chart's values for an operator of these namespaces; none: of all."""
    return {"watchNamespaces": list(namespaces)} if namespaces else {}


def operator_user(namespaces: tuple[str, ...] = ()) -> str:
    """The user as which the operator's pod talks to the API server."""
    account = only("Deployment", values_for(namespaces))["spec"]["template"]["spec"]["serviceAccountName"]
    return f"system:serviceaccount:{NAMESPACE}:{account}"


def install_rights(cluster: DevCluster, namespaces: tuple[str, ...]) -> Path:
    """Creates the chart's roles and bindings; a kubeconfig of the ServiceAccount that has them."""
    for manifest in render(values_for(namespaces)):
        if manifest["kind"] in RBAC_KINDS:
            resource = cluster.api.registry.of_kind(manifest["apiVersion"], manifest["kind"])
            assert resource is not None
            cluster.api.create(resource, manifest["metadata"].get("namespace", ""), manifest, WriteOptions())
    path = cluster.folder / f"operator-{'-'.join(namespaces) or 'all'}.kubeconfig"
    path.write_text(kubeconfig(cluster.url, operator_user(namespaces), NAMESPACE))
    return path
