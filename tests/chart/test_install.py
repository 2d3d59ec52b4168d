"""charts/lora-operator installed by Helm into the laptop-sized cluster: the operator runs, with the rights it has."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from lora_devcluster import ThreadedCluster
from lora_devcluster.cluster import ClusterSetting
from lora_devcluster.requests import RequestInfo
from lora_devcluster.scheduler import NodeSpec
from tests.support.chart import CHART, NAMESPACE, Rights, helm, of_kind, rights

EXAMPLE = CHART.parents[1] / "examples" / "first-lora.yaml"
KUBECTL = str(Path(sys.executable).with_name("kubectl"))
# Pods of the trainer succeed at once: training is not what is tested here.
IMAGES = {"lora-operator:*": ["python", "-m", "lora_operator"], "lora-trainer:*": "noop"}
CLUSTER_WIDE: dict[str, Any] = {"operator": {"listenAddress": "$(POD_IP)"}}
NAMESPACED: dict[str, Any] = {**CLUSTER_WIDE, "watchNamespaces": ["team-a"], "crds": {"enabled": False}}


@dataclass(frozen=True)
class Installation:
    """A cluster with Helm and kubectl for it."""

    cluster: ThreadedCluster
    environment: dict[str, str]

    def run(self, *command: str, text: str = "") -> str:
        """The output of a command that must succeed."""
        done = subprocess.run(
            command, env=self.environment, input=text, capture_output=True, text=True, check=False, timeout=90
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def kubectl(self, *arguments: str) -> str:
        return self.run(KUBECTL, *arguments)

    def helm(self, *arguments: str, values: dict[str, Any] | None = None) -> str:
        """Helm waits until everything is ready, or gone."""
        options = ["--namespace", NAMESPACE, "--wait", "--timeout", "60s"]
        if values is not None:
            options += ["--values", "-"]
        return self.run(helm(), *arguments, *options, text=yaml.safe_dump(values or {}))

    def train(self, namespace: str) -> None:
        """One training from its creation to its end."""
        here = ("--namespace", namespace)
        self.kubectl(*here, "create", "secret", "generic", "s3", "--from-literal=AWS_ACCESS_KEY_ID=x")
        self.kubectl(*here, "apply", "-f", str(EXAMPLE))
        self.kubectl(*here, "wait", "--for=condition=Finished", "lt/my-first-lora", "--timeout=60s")

    def asked_by(self, release: str) -> list[RequestInfo]:
        """What the operator of a release has asked of the API server."""
        account = f"system:serviceaccount:{NAMESPACE}:{release}-lora-operator"
        return [request for request in self.cluster.cluster.requests if request.user == account]


def used(requests: list[RequestInfo]) -> Rights:
    return {(request.group, request.target, request.verb) for request in requests}


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A cluster-wide release `lora`, a namespaced one `scoped`, and a training where each can see it."""
    folder = tmp_path_factory.mktemp("cluster")
    with ThreadedCluster(folder, ClusterSetting(images=IMAGES, node=NodeSpec(gpus=1))) as cluster:
        homes = {f"HELM_{kind}_HOME": str(folder / "helm") for kind in ("CACHE", "CONFIG", "DATA")}
        found = Installation(cluster, {**os.environ, **homes, "KUBECONFIG": str(cluster.kubeconfig)})
        found.helm("install", "lora", str(CHART), "--create-namespace", values=CLUSTER_WIDE)
        found.kubectl("create", "namespace", "team-a")
        found.helm("install", "scoped", str(CHART), values=NAMESPACED)
        found.train("default")
        found.train("team-a")
        yield found


def test_helm_sees_the_operator_become_ready(installation: Installation) -> None:
    query = "jsonpath={.items[*].status.readyReplicas}"

    assert installation.kubectl("--namespace", NAMESPACE, "get", "deployments", "-o", query) == "2 2"


@pytest.mark.parametrize("namespace", ["default", "team-a"])
def test_installed_operators_carry_out_trainings(installation: Installation, namespace: str) -> None:
    query = "jsonpath={.status.phase}"

    assert installation.kubectl("-n", namespace, "get", "lt", "my-first-lora", "-o", query) == "Succeeded"


def test_two_operators_start_no_second_job(installation: Installation) -> None:
    jobs = installation.kubectl("-n", "team-a", "get", "jobs", "-o", "name").split()

    assert jobs == ["job.batch/my-first-lora-a1", "job.batch/my-first-lora-data"]


def test_cluster_wide_nothing_is_asked_that_the_role_does_not_give(installation: Installation) -> None:
    role = next(role for role in of_kind("ClusterRole") if role["metadata"]["name"] == "lora-lora-operator")
    asked = used([request for request in installation.asked_by("lora") if request.target != "leases"])

    assert {("batch", "jobs", "create"), ("lora-operator.io", "loratrainings/status", "patch")} <= asked
    assert sorted(asked - rights(role)) == []


def test_the_lease_is_asked_for_where_the_operator_lives(installation: Installation) -> None:
    [role] = of_kind("Role")
    requests = [request for request in installation.asked_by("lora") if request.target == "leases"]

    assert {request.namespace for request in requests} == {NAMESPACE}
    assert sorted(used(requests) - rights(role)) == []


def test_namespaced_nothing_is_asked_outside_of_the_namespaces(installation: Installation) -> None:
    roles = {role["metadata"]["namespace"]: role for role in of_kind("Role", NAMESPACED)}
    requests = installation.asked_by("scoped")

    assert {request.namespace for request in requests} == {"team-a", NAMESPACE}
    for namespace, role in roles.items():
        asked = used([request for request in requests if request.namespace == namespace])
        assert sorted(asked - rights(role)) == []


def test_trainings_outlive_an_upgrade_and_the_removal_of_the_release(installation: Installation) -> None:
    installation.helm("upgrade", "lora", str(CHART), values=CLUSTER_WIDE)
    installation.helm("uninstall", "lora")

    assert "my-first-lora" in installation.kubectl("get", "loratrainings")
    assert "lora-lora-operator" not in installation.kubectl("-n", NAMESPACE, "get", "deployments", "-o", "name")
