"""examples/gitops: what kubectl, Flux and Argo CD make of the folders."""

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from lora_api import parse_training
from lora_devcluster.pod_security import pod_security_faults
from tests.support.definition import refusals
from tests.support.flux import HealthChecks
from tests.support.kubectl import Kubectl
from tests.support.observations import COMPLETE, FAILED

GITOPS = Path(__file__).parents[2] / "examples" / "gitops"
NOWHERE = Kubectl(Path("/dev/null"), "ml")
WAVE = "argocd.argoproj.io/sync-wave"


def build(folder: str) -> list[dict[str, Any]]:
    """What `kubectl kustomize` makes of a folder."""
    return list(yaml.safe_load_all(NOWHERE("kustomize", str(GITOPS / folder))))


@pytest.fixture(scope="module")
def everything() -> dict[str, dict[str, Any]]:
    return {document["metadata"]["name"]: document for document in build(".")}


def load(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((GITOPS / "flux" / name).read_text())
    return found


def test_two_trainings_differ_in_rank_and_output_only(everything: dict[str, dict[str, Any]]) -> None:
    first, second = (everything[f"hina-rank-{rank}"]["spec"] for rank in (8, 32))

    assert {key for key in first if first[key] != second[key]} == {"network", "output"}
    assert (first["network"]["rank"], second["network"]["rank"]) == (8, 32)


@pytest.mark.parametrize("name", ["hina-rank-8", "hina-rank-32"])
def test_each_is_accepted_and_leaves_pauses_to_people(everything: dict[str, dict[str, Any]], name: str) -> None:
    document = everything[name]

    assert parse_training(document).name == name
    assert refusals(document) == []
    assert not {"suspend", "cancel"} & document["spec"].keys()


def test_the_comparison_reads_what_the_trainings_write(everything: dict[str, dict[str, Any]]) -> None:
    (container,) = everything["compare-hina"]["spec"]["template"]["spec"]["containers"]
    command, *places, out, _ = container["args"]

    assert command == "compare"
    assert places == [everything[f"hina-rank-{rank}"]["spec"]["output"]["uri"] for rank in (8, 32)]
    assert out.startswith("--out=s3://")


def test_the_comparison_fits_kubernetes_and_a_restricted_namespace(everything: dict[str, dict[str, Any]]) -> None:
    job = everything["compare-hina"]

    kubernetes_validate.validate(job, "1.37", strict=True)
    assert pod_security_faults(job["spec"]["template"]["spec"], "restricted") == []


def test_argo_cd_compares_a_wave_after_the_trainings(everything: dict[str, dict[str, Any]]) -> None:
    waves = {name: body["metadata"].get("annotations", {}).get(WAVE, "0") for name, body in everything.items()}

    assert waves == {"hina-rank-8": "0", "hina-rank-32": "0", "compare-hina": "1"}


@pytest.mark.parametrize("name", ["trainings.yaml", "trainings-accepted.yaml", "comparison.yaml"])
def test_flux_applies_a_folder_that_is_there_and_waits(name: str) -> None:
    spec = load(name)["spec"]

    assert build(str(Path(spec["path"]).relative_to("examples/gitops")))
    assert spec["wait"] is True


def test_flux_compares_after_the_trainings_are_trained() -> None:
    assert load("comparison.yaml")["spec"]["dependsOn"] == [{"name": load("trainings.yaml")["metadata"]["name"]}]


@pytest.mark.parametrize(
    ("status", "word"),
    [({}, "InProgress"), ({"active": 1}, "InProgress"), (COMPLETE, "Current"), (FAILED, "Failed")],
    ids=["new", "running", "complete", "failed"],
)
def test_flux_waits_for_the_end_of_the_comparison(status: dict[str, Any], word: str) -> None:
    checks = HealthChecks.of_file(GITOPS / "flux" / "comparison.yaml", "Job")

    assert checks.judge({"metadata": {"generation": 1}, "status": status}) == word


def test_both_ways_to_wait_are_of_one_kustomization() -> None:
    first, second = load("trainings.yaml"), load("trainings-accepted.yaml")

    assert first["metadata"] == second["metadata"]
    assert {key for key in first["spec"] if first["spec"][key] != second["spec"][key]} == {
        "timeout",
        "healthCheckExprs",
    }
