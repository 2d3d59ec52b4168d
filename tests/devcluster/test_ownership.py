"""Server-side apply and the record of field owners."""

from typing import Any

import pytest

from lora_devcluster.builtin import schema_of
from lora_devcluster.errors import ApiError
from lora_devcluster.ownership import Writer, apply, from_fields_v1, record_update, to_fields_v1

DEPLOYMENT = schema_of("apps", "v1", "Deployment")
US, THEM = Writer("us", "Apply"), Writer("them", "Apply")


def deployment(containers: dict[str, str] | None = None, labels: dict[str, str] | None = None, **spec: Any) -> Any:
    listed = [{"name": name, "image": image} for name, image in (containers or {}).items()]
    template = {"template": {"spec": {"containers": listed}}} if listed else {}
    meta = {"name": "d", **({"labels": labels} if labels else {})}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": {**spec, **template}}


def applied(live: Any, wanted: Any, writer: Writer = US, *, force: bool = False) -> Any:
    return apply(DEPLOYMENT, live, wanted, writer, force=force, now="2026-01-01T00:00:00Z")


def images(obj: Any) -> dict[str, str]:
    return {one["name"]: one["image"] for one in obj["spec"]["template"]["spec"]["containers"]}


EMPTY: Any = {"metadata": {}}


def test_the_first_apply_makes_the_object() -> None:
    assert applied(EMPTY, deployment(replicas=2))["spec"] == {"replicas": 2}


def test_a_field_that_is_no_longer_applied_goes() -> None:
    live = applied(EMPTY, deployment(replicas=2, paused=True))

    assert applied(live, deployment(replicas=2))["spec"] == {"replicas": 2}


def test_a_list_element_that_is_no_longer_applied_goes() -> None:
    live = applied(EMPTY, deployment({"a": "1", "b": "1"}))

    assert images(applied(live, deployment({"a": "1"}))) == {"a": "1"}


def test_what_others_applied_stays() -> None:
    live = applied(EMPTY, deployment({"a": "1"}, {"x": "1"}))
    live = applied(live, deployment({"b": "1"}, {"y": "1"}), THEM)

    live = applied(live, deployment(replicas=1))

    assert (images(live), live["metadata"]["labels"]) == ({"b": "1"}, {"y": "1"})


def test_a_field_shared_with_another_stays_when_one_gives_it_up() -> None:
    live = applied(applied(EMPTY, deployment(replicas=2)), deployment(replicas=2), THEM)

    assert applied(live, deployment())["spec"] == {"replicas": 2}


def test_changing_anothers_field_is_a_conflict_that_names_owner_and_field() -> None:
    live = applied(EMPTY, deployment({"a": "1"}), THEM)

    with pytest.raises(ApiError) as refusal:
        applied(live, deployment({"a": "2"}))

    assert refusal.value.code == 409
    assert 'conflict with "them": .spec.template.spec.containers[name="a"].image' in refusal.value.message


def test_force_takes_the_field_over() -> None:
    live = applied(EMPTY, deployment(replicas=1), THEM)

    live = applied(live, deployment(replicas=2), force=True)

    owners = {entry["manager"] for entry in live["metadata"]["managedFields"]}
    assert (live["spec"]["replicas"], owners) == (2, {"us"})


def test_the_same_value_is_no_conflict() -> None:
    live = applied(EMPTY, deployment(replicas=1), THEM)

    assert applied(live, deployment(replicas=1))["spec"]["replicas"] == 1


def test_an_update_takes_what_it_changes_and_a_later_apply_conflicts() -> None:
    live = applied(EMPTY, deployment(replicas=1))
    updated = {**live, "spec": {"replicas": 5}}
    entries = record_update(DEPLOYMENT, updated, live, Writer("kubectl-edit"), "2026-01-01T00:00:00Z")
    updated["metadata"] = {**live["metadata"], "managedFields": entries}

    with pytest.raises(ApiError, match="kubectl-edit"):
        applied(updated, deployment(replicas=1))


def test_an_update_of_the_status_is_recorded_for_its_subresource() -> None:
    live = applied(EMPTY, deployment(replicas=1))
    updated = {**live, "status": {"replicas": 1}}

    entries = record_update(DEPLOYMENT, updated, live, Writer("kubelet", subresource="status"), "2026-01-01T00:00:00Z")

    mine = next(entry for entry in entries if entry["manager"] == "kubelet")
    assert (mine["subresource"], mine["fieldsV1"]) == ("status", {"f:status": {"f:replicas": {}}})


def test_paths_survive_their_written_form() -> None:
    paths = {("f:spec", "f:a"), ("f:spec", 'k:{"name":"x"}'), ("f:spec", 'k:{"name":"x"}', "f:image"), ("f:m", 'v:"1"')}

    assert set(from_fields_v1(to_fields_v1(paths))) == paths
