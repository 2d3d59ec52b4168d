"""charts/lora-operator: the operator gets the rights that it needs and no others."""

from typing import Any

import pytest

from tests.support.chart import NAMESPACE, TYPICAL, Rights, of_kind, only, render, rights

IN_NAMESPACES: Rights = {
    (group, resource, verb)
    for group, resource, verbs in (
        ("lora-operator.io", "loratrainings", "get list watch"),
        ("lora-operator.io", "loratrainings/status", "patch"),
        ("lora-operator.io", "loratrainings/finalizers", "update"),
        ("batch", "jobs", "get list watch create patch delete"),
        ("", "pods", "list watch"),
        ("", "services", "get create delete"),
        ("", "events", "get list create patch"),
        ("kueue.x-k8s.io", "workloads", "list"),
    )
    for verb in verbs.split()
}
CLUSTER_WIDE: Rights = {
    ("apiextensions.k8s.io", "customresourcedefinitions", "list"),
    ("apiextensions.k8s.io", "customresourcedefinitions", "watch"),
}
NAMESPACED = TYPICAL["namespaced"]


def test_cluster_wide_the_rights_are_exactly_these() -> None:
    role = next(role for role in of_kind("ClusterRole") if role["metadata"]["name"] == "lora-lora-operator")

    assert rights(role) == IN_NAMESPACES | CLUSTER_WIDE


def test_in_namespaces_the_rights_are_exactly_these() -> None:
    roles = [role for role in of_kind("Role", NAMESPACED) if role["metadata"]["namespace"] != NAMESPACE]

    assert [role["metadata"]["namespace"] for role in roles] == ["team-a", "team-b"]
    assert all(rights(role) == IN_NAMESPACES for role in roles)


def test_in_namespaces_nothing_is_granted_cluster_wide() -> None:
    assert {manifest["kind"] for manifest in render(NAMESPACED)}.isdisjoint({"ClusterRole", "ClusterRoleBinding"})


@pytest.mark.parametrize("values", [{}, NAMESPACED], ids=["cluster-wide", "namespaced"])
def test_only_the_lease_of_the_release_can_be_read_and_changed(values: dict[str, Any]) -> None:
    [role] = [role for role in of_kind("Role", values) if role["metadata"]["namespace"] == NAMESPACE]
    [container] = only("Deployment", values)["spec"]["template"]["spec"]["containers"]
    environment = {entry["name"]: entry.get("value") for entry in container["env"]}
    create, change = role["rules"]

    assert rights(role) == {("coordination.k8s.io", "leases", verb) for verb in ("create", "get", "patch")}
    assert (create["verbs"], change["resourceNames"]) == (["create"], [environment["LORA_LEASE_NAME"]])
    assert environment["LORA_LEASE_NAMESPACE"] == role["metadata"]["namespace"]


def test_without_election_there_are_no_rights_on_leases() -> None:
    assert of_kind("Role", {"operator": {"replicas": 1, "leaderElection": {"enabled": False}}}) == []


@pytest.mark.parametrize("values", TYPICAL.values(), ids=TYPICAL)
def test_no_role_can_touch_secrets_or_everything(values: dict[str, Any]) -> None:
    granted = set().union(*(rights(role) for kind in ("Role", "ClusterRole") for role in of_kind(kind, values)))

    assert {right for right in granted if "secrets" in right[1] or "*" in right} == set()


@pytest.mark.parametrize(("role", "binding", "values"), [
    ("Role", "RoleBinding", NAMESPACED),
    ("ClusterRole", "ClusterRoleBinding", {}),
])  # fmt: skip
def test_bindings_give_the_role_to_the_account_that_the_operator_runs_as(
    role: str, binding: str, values: dict[str, Any]
) -> None:
    account = only("Deployment", values)["spec"]["template"]["spec"]["serviceAccountName"]
    names = {manifest["metadata"]["name"] for manifest in of_kind(role, values)}
    bindings = of_kind(binding, values)

    assert bindings
    for manifest in bindings:
        assert manifest["roleRef"]["kind"] == role
        assert manifest["roleRef"]["name"] in names
        assert manifest["subjects"] == [{"kind": "ServiceAccount", "name": account, "namespace": NAMESPACE}]


def test_editors_of_a_namespace_may_write_trainings_and_viewers_may_read_them() -> None:
    by_label = {
        label.removeprefix("rbac.authorization.k8s.io/aggregate-to-"): {verb for _, _, verb in rights(role)}
        for role in of_kind("ClusterRole")
        for label in role["metadata"]["labels"]
        if "aggregate-to" in label
    }

    assert by_label == {
        "edit": {"create", "update", "patch", "delete", "deletecollection"},
        "view": {"get", "list", "watch"},
    }


def test_an_account_that_is_not_created_must_be_named() -> None:
    assert of_kind("ServiceAccount", TYPICAL["minimal"]) == []
    pod = only("Deployment", TYPICAL["minimal"])["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == "theirs"
