"""RBAC for service accounts, as a real API server has it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from lora_devcluster import DevCluster
from lora_devcluster.authorization import Authorizer
from lora_devcluster.errors import ApiError
from lora_devcluster.requests import RequestInfo
from tests.support.control import NAMESPACE, Plane

USER = "system:serviceaccount:apps:bot"
GET = RequestInfo("get", "batch", "v1", NAMESPACE, "jobs", "j", user=USER)
API = "rbac.authorization.k8s.io/v1"
BOT = {"kind": "ServiceAccount", "name": "bot", "namespace": "apps"}


def rule(groups: str, resources: str, verbs: str, **more: Any) -> dict[str, Any]:
    return {"apiGroups": [groups], "resources": [resources], "verbs": [verbs], **more}


def grant(plane: Plane, *rules: dict[str, Any], kind: str = "Role", subject: dict[str, Any] = BOT) -> None:
    namespace = "" if kind == "ClusterRole" else NAMESPACE
    plane.create({"apiVersion": API, "kind": kind, "metadata": {"name": "r"}, "rules": [*rules]}, namespace=namespace)
    binding = {"apiVersion": API, "kind": f"{kind}Binding", "metadata": {"name": "b"}, "subjects": [subject]}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": "r"}
    plane.create({**binding, "roleRef": reference}, namespace=namespace)


def authorizer(plane: Plane) -> Authorizer:
    return Authorizer(plane.store, plane.api.registry)


def allows(info: RequestInfo, *rules: dict[str, Any], **options: Any) -> bool:
    plane = Plane()
    grant(plane, *rules, **options)
    return authorizer(plane).allows(info)


def test_without_a_binding_a_service_account_may_do_nothing() -> None:
    with pytest.raises(ApiError, match=r'jobs\.batch "j" is forbidden') as caught:
        authorizer(Plane()).check(GET)

    assert caught.value.code == 403
    assert str(caught.value).endswith(
        f'User "{USER}" cannot get resource "jobs" in API group "batch" in the namespace "default"'
    )


def test_everybody_else_is_an_administrator() -> None:
    asked = authorizer(Plane())

    asked.check(replace(GET, user="kubernetes-admin"))

    assert asked.checked == set()


@pytest.mark.parametrize(
    ("given", "allowed"),
    [
        (rule("batch", "jobs", "get"), True),
        (rule("*", "*", "*"), True),
        (rule("", "jobs", "get"), False),
        (rule("batch", "jobs", "list"), False),
        (rule("batch", "jobs/status", "get"), False),
        (rule("batch", "jobs", "get", resourceNames=["j"]), True),
        (rule("batch", "jobs", "get", resourceNames=["other"]), False),
    ],
    ids=str,
)
def test_a_rule_must_name_group_resource_verb_and_object(given: dict[str, Any], allowed: bool) -> None:
    assert allows(GET, given) is allowed


@pytest.mark.parametrize(("resources", "allowed"), [("jobs/status", True), ("*/status", True), ("jobs", False)])
def test_a_subresource_is_a_right_of_its_own(resources: str, allowed: bool) -> None:
    assert allows(replace(GET, subresource="status"), rule("batch", resources, "get")) is allowed


@pytest.mark.parametrize(("namespace", "allowed"), [(NAMESPACE, True), ("other", False), ("", False)])
def test_a_role_holds_in_its_namespace_only(namespace: str, allowed: bool) -> None:
    assert allows(replace(GET, namespace=namespace), rule("batch", "jobs", "get")) is allowed


@pytest.mark.parametrize("namespace", [NAMESPACE, "other", ""])
def test_a_cluster_role_bound_to_the_cluster_holds_everywhere(namespace: str) -> None:
    assert allows(replace(GET, namespace=namespace), rule("batch", "jobs", "get"), kind="ClusterRole")


@pytest.mark.parametrize(
    ("subject", "allowed"),
    [
        ({"kind": "Group", "name": "system:serviceaccounts"}, True),
        ({"kind": "Group", "name": "system:serviceaccounts:apps"}, True),
        ({"kind": "Group", "name": "system:serviceaccounts:other"}, False),
        ({"kind": "User", "name": USER}, True),
        ({"kind": "ServiceAccount", "name": "bot", "namespace": "other"}, False),
    ],
)
def test_who_is_meant_by_a_binding(subject: dict[str, Any], allowed: bool) -> None:
    assert allows(GET, rule("batch", "jobs", "get"), subject=subject) is allowed


def test_blocking_the_deletion_of_an_owner_needs_the_right_to_its_finalizers() -> None:
    plane, owner = Plane(), {"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": "1"}
    create = replace(GET, verb="create", group="", resource="pods", name="")
    asked = authorizer(plane)

    asked.check_owners(create, {"metadata": {"ownerReferences": [owner]}})
    with pytest.raises(ApiError, match='cannot update resource "jobs/finalizers"'):
        asked.check_owners(create, {"metadata": {"ownerReferences": [{**owner, "blockOwnerDeletion": True}]}})
    grant(plane, rule("batch", "jobs/finalizers", "update"))
    asked.check_owners(create, {"metadata": {"ownerReferences": [{**owner, "blockOwnerDeletion": True}]}})


def test_what_was_needed_is_remembered_once() -> None:
    plane = Plane()
    grant(plane, rule("batch", "jobs", "get"))
    asked = authorizer(plane)

    asked.check(GET)
    asked.check(replace(GET, user_agent="another"))

    assert asked.checked == {replace(GET, version="")}


async def test_a_service_account_is_told_what_it_may_do_and_held_to_it(tmp_path: Path) -> None:
    reviews = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    async with (
        DevCluster(tmp_path) as cluster,
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {USER}"}) as bot,
    ):
        review = {"spec": {"resourceAttributes": {"verb": "list", "resource": "secrets"}}}
        async with bot.post(cluster.url + reviews, json=review) as answer:
            told = (await answer.json())["status"]
        async with bot.get(f"{cluster.url}/api/v1/secrets") as answer:
            code = answer.status

    assert (told, code) == ({"allowed": False}, 403)
