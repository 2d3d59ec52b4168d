"""charts/lora-operator: every object of typical installations is what clusters of several versions accept."""

from typing import Any

import kubernetes_validate
import pytest
import yaml

from lora_api import names
from lora_devcluster.pod_security import pod_security_faults
from tests.support.chart import CHART, TYPICAL, hooks, of_kind, only, render, run_helm

VERSIONS = ("1.29", "1.37")
ROOT = CHART.parents[1]


def operator_pod(values: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = only("Deployment", values)["spec"]["template"]["spec"]
    return spec


@pytest.mark.parametrize("values", TYPICAL.values(), ids=TYPICAL)
def test_helm_finds_nothing_to_complain_about(values: dict[str, Any]) -> None:
    result = run_helm("lint", "--strict", str(CHART), values=values)

    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("values", TYPICAL.values(), ids=TYPICAL)
def test_every_object_fits_the_types_of_kubernetes(values: dict[str, Any], version: str) -> None:
    for manifest in (*render(values), *hooks(values)):
        if manifest["kind"] != names.KIND:
            kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize("values", TYPICAL.values(), ids=TYPICAL)
def test_the_operator_may_run_in_a_restricted_namespace(values: dict[str, Any]) -> None:
    assert pod_security_faults(operator_pod(values), "restricted") == []


@pytest.mark.parametrize("values", TYPICAL.values(), ids=TYPICAL)
def test_the_operator_cannot_write_to_its_image(values: dict[str, Any]) -> None:
    [container] = operator_pod(values)["containers"]

    assert container["securityContext"]["readOnlyRootFilesystem"] is True


ALONE = {"operator": {"replicas": 1, "leaderElection": {"enabled": False}}}


def test_an_upgrade_never_leaves_the_cluster_without_a_warm_operator() -> None:
    spec = only("Deployment")["spec"]

    assert spec["replicas"] == 2
    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}


def test_without_election_one_operator_is_replaced_and_never_joined_by_another() -> None:
    spec = only("Deployment", ALONE)["spec"]

    assert spec["replicas"] == 1
    assert spec["strategy"] == {"type": "Recreate"}


def test_operators_rather_run_in_different_zones_and_on_different_nodes() -> None:
    constraints = operator_pod({})["topologySpreadConstraints"]

    assert [one["topologyKey"] for one in constraints] == ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]
    assert {one["whenUnsatisfiable"] for one in constraints} == {"ScheduleAnyway"}
    for one in constraints:
        assert one["labelSelector"] == only("Deployment")["spec"]["selector"]


def test_a_spread_of_the_values_takes_the_place_of_the_charts() -> None:
    theirs = [{"topologyKey": "rack", "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule"}]

    assert operator_pod({"operator": {"topologySpreadConstraints": theirs}})["topologySpreadConstraints"] == theirs


def test_an_affinity_of_the_values_is_the_pods() -> None:
    theirs = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}}

    assert operator_pod({"operator": {"affinity": theirs}})["affinity"] == theirs


def test_drains_take_one_operator_at_a_time_and_are_never_stopped_by_a_single_one() -> None:
    spec = only("PodDisruptionBudget")["spec"]

    assert spec["maxUnavailable"] == 1
    assert spec["selector"] == only("Deployment")["spec"]["selector"]
    assert of_kind("PodDisruptionBudget", ALONE) == []


def test_a_budget_can_be_left_to_somebody_else() -> None:
    assert of_kind("PodDisruptionBudget", {"operator": {"podDisruptionBudget": {"enabled": False}}}) == []


def test_the_selector_finds_the_pods_of_the_release_only() -> None:
    spec = only("Deployment")["spec"]
    service = only("Service")["spec"]

    assert spec["selector"]["matchLabels"].items() <= spec["template"]["metadata"]["labels"].items()
    assert service["selector"] == spec["selector"]["matchLabels"]
    assert service["selector"]["app.kubernetes.io/instance"] == "lora"


def test_probes_and_service_point_at_the_port_that_the_operator_listens_on() -> None:
    values = {"operator": {"port": 9090}}
    [container] = operator_pod(values)["containers"]
    environment = {entry["name"]: entry.get("value") for entry in container["env"]}
    [port] = container["ports"]

    assert environment["LORA_HTTP_PORT"] == "9090"
    assert port["containerPort"] == 9090
    assert {container[probe]["httpGet"]["port"] for probe in ("livenessProbe", "readinessProbe")} == {port["name"]}
    assert only("Service", values)["spec"]["ports"][0]["targetPort"] == port["name"]


def test_large_numbers_reach_the_operator_as_they_were_written() -> None:
    [container] = operator_pod({"operator": {"resyncSeconds": 86400}})["containers"]

    assert {"name": "LORA_RESYNC_SECONDS", "value": "86400"} in container["env"]


def test_a_digest_takes_the_place_of_the_tag() -> None:
    image = {"repository": "r.example.com/o", "tag": "1.0", "digest": "sha256:" + "a" * 64}
    [container] = operator_pod({"operator": {"image": image}})["containers"]

    assert container["image"] == "r.example.com/o@sha256:" + "a" * 64


def test_images_default_to_the_version_of_the_project() -> None:
    [container] = operator_pod({})["containers"]
    version = next(
        line.split('"')[1] for line in (ROOT / "pyproject.toml").read_text().splitlines() if line.startswith("version")
    )

    assert container["image"] == f"lora-operator:{version}"
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["version"] == version


def test_the_definition_is_the_generated_one() -> None:
    generated = yaml.safe_load((ROOT / "crds" / "loratrainings.yaml").read_text())

    assert only("CustomResourceDefinition")["spec"] == generated["spec"]


@pytest.mark.parametrize(("keep", "policy"), [(True, "keep"), (False, None)])
def test_the_definition_outlives_the_release_unless_told_otherwise(keep: bool, policy: str | None) -> None:
    metadata = only("CustomResourceDefinition", {"crds": {"keep": keep}})["metadata"]

    assert metadata.get("annotations", {}).get("helm.sh/resource-policy") == policy


def test_the_definition_can_be_left_to_somebody_else() -> None:
    assert of_kind("CustomResourceDefinition", {"crds": {"enabled": False}}) == []


@pytest.mark.parametrize("values", TYPICAL.values(), ids=TYPICAL)
def test_no_two_objects_share_kind_namespace_and_name(values: dict[str, Any]) -> None:
    identities = [
        (manifest["kind"], manifest["metadata"].get("namespace"), manifest["metadata"]["name"])
        for manifest in render(values)
    ]

    assert len(identities) == len(set(identities))
