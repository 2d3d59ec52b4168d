"""The packaged chart on the laptop-sized cluster with its examples' values: operators run from it, trainings stay."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from lora_chart.golden import TYPICAL
from lora_devcluster import ThreadedCluster
from lora_devcluster.cluster import ClusterSetting
from lora_devcluster.scheduler import NodeSpec
from tests.support.chart import CHART, Manifest, Values, example, hooks
from tests.support.installation import NAMESPACE, NEW_COLUMN, RELEASE, Installer, pack, pack_with_column

ROOT = CHART.parents[1]
# One trainer is real: a `helm test` trains. The pods of the others succeed at once.
IMAGES = {
    "*/lora-operator[:@]*": ["python", "-m", "lora_operator"],
    "registry.example.com/lora-trainer:0.1.0": ["python", "-m", "lora_trainer"],
    "*/lora-trainer[:@]*": "noop",
}
HERE: Values = {"operator": {"listenAddress": "$(POD_IP)", "progressIntervalSeconds": 1}}
IN_NAMESPACES: Values = {"trainer": {"image": {"tag": "noop"}}}
NODE = NodeSpec(gpus=1, labels={"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB"})
WHERE = {"minimal": "ml", "namespaced": "team-b", "production": "ml", "air-gapped": "ml"}
"""Namespace of a training that somebody has beside the test's."""


LEFT = (
    "deployments,pods,services,serviceaccounts,configmaps,roles,rolebindings,"
    "networkpolicies,servicemonitors,podmonitors,prometheusrules"
)
OURS = f"--selector=app.kubernetes.io/instance={RELEASE}"


@dataclass(frozen=True)
class Course:
    """What was seen of one release, from its installation to its end."""

    variant: str
    deployment: Manifest
    test: str
    left_by_test: list[str]
    before: Manifest
    upgraded: Manifest
    after: Manifest
    left: list[str]
    definition: Manifest


@contextmanager
def open_installer(folder: Path) -> Iterator[Installer]:
    """A cluster whose namespaces take restricted pods only, with what the examples ask of it."""
    with ThreadedCluster(folder, ClusterSetting(images=IMAGES, node=NODE)) as cluster:
        found = Installer(folder, cluster.kubeconfig)
        found.apply(*(namespace(name) for name in (NAMESPACE, "team-a", "team-b", "ml", "monitoring")))
        found.apply(*(monitoring_kind(kind) for kind in ("ServiceMonitor", "PodMonitor", "PrometheusRule")))
        account = {"kind": "ServiceAccount", "metadata": {"name": "lora-trainer", "namespace": "ml"}}
        authority = {
            "kind": "ConfigMap",
            "metadata": {"name": "company-ca", "namespace": "ml"},
            "data": {"ca.crt": "PEM"},
        }
        found.apply({"apiVersion": "v1", **account}, {"apiVersion": "v1", **authority})
        yield found


def namespace(name: str) -> Manifest:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def monitoring_kind(kind: str) -> Manifest:
    """A definition that takes every object of the kind: it is the chart's choice of objects that is tested here."""
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"kind": kind, "plural": f"{kind.lower()}s", "singular": kind.lower(), "listKind": f"{kind}List"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.lower()}s.monitoring.coreos.com"},
        "spec": {"group": "monitoring.coreos.com", "scope": "Namespaced", "names": names, "versions": [version]},
    }


def values_for(variant: str) -> Values:
    """The values of the example, with what this cluster differs in."""
    found = merged(example(variant), HERE)
    return merged(found, IN_NAMESPACES) if variant == "namespaced" else found


def merged(values: Values, more: Values) -> Values:
    both = {key: merged(values[key], more[key]) for key in values.keys() & more.keys() if isinstance(more[key], dict)}
    return {**values, **more, **both}


def training(variant: str) -> Manifest:
    """Somebody's training, which the pods of this cluster need no GPU and no Secret for."""
    document: Manifest = yaml.safe_load((ROOT / "examples" / "first-lora.yaml").read_text())
    document["metadata"] = {"name": f"mine-{variant}", "namespace": WHERE[variant]}
    document["spec"] |= {
        "parallelism": {"gpusPerNode": 0},
        "storage": {"anonymous": True},
        "pod": {"image": "x/lora-trainer:noop"},
    }
    return document


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The chart, and one that comes after it."""
    folder = tmp_path_factory.mktemp("packages")
    return pack(folder, "0.1.0"), pack_with_column(folder, "0.2.0")


@pytest.fixture(scope="module", params=TYPICAL)
def course(
    packages: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Course:
    """One release in a cluster of its own, from its installation to its end."""
    with open_installer(tmp_path_factory.mktemp("cluster")) as installer:
        return take(installer, packages, request.param)


def take(installer: Installer, packages: tuple[Path, Path], variant: str) -> Course:
    values, mine = values_for(variant), training(variant)
    here = (f"--namespace={WHERE[variant]}", f"loratrainings/{mine['metadata']['name']}")
    if not brings_definition(variant):
        installer.kubectl("create", "--filename", str(ROOT / "crds" / "loratrainings.yaml"))
    installer.install(packages[0], values)
    deployment = installer.get(f"--namespace={NAMESPACE}", f"deployments/{RELEASE}")
    installer.apply(mine)
    test = installer.test()
    left_by_test = installer.kubectl("get", "pods,pvc,sa,roles,loratrainings", "-A", "-o", "name").split()
    installer.kubectl("wait", *here, "--for=condition=Finished", "--timeout=120s")
    before = installer.get(*here)
    installer.upgrade(packages[1], values)
    upgraded = installer.get(*here)
    installer.uninstall()
    return Course(
        variant=variant,
        deployment=deployment,
        test=test,
        left_by_test=[name for name in left_by_test if f"{RELEASE}-test" in name],
        before=before,
        upgraded=upgraded,
        after=installer.get(*here),
        left=installer.kubectl("get", LEFT, "--all-namespaces", OURS, "-o", "name").split(),
        definition=installer.get("crd", "loratrainings.lora-operator.io"),
    )


def brings_definition(variant: str) -> bool:
    return bool(example(variant).get("crds", {}).get("enabled", True))


def test_all_operators_run_from_the_chart(course: Course) -> None:
    wanted = course.deployment["spec"]["replicas"]

    assert course.deployment["status"]["readyReplicas"] == wanted
    assert course.deployment["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "Helm"


def test_helm_test_passes(course: Course) -> None:
    phases = re.findall(r"^Phase: +(\w+)$", course.test, re.M)

    assert phases == ["Succeeded"] * len(hooks(values_for(course.variant)))


def test_helm_test_leaves_nothing_behind(course: Course) -> None:
    assert course.left_by_test == []


def test_trainings_are_carried_out(course: Course) -> None:
    assert course.before["status"]["phase"] == "Succeeded"


def test_trainings_outlive_an_upgrade(course: Course) -> None:
    assert kept(course.upgraded) == kept(course.before)


def test_an_upgrade_brings_the_definition_that_belongs_to_it(course: Course) -> None:
    columns = [column["name"] for column in course.definition["spec"]["versions"][0]["additionalPrinterColumns"]]

    assert (NEW_COLUMN in columns) == brings_definition(course.variant)


def test_trainings_and_definition_outlive_the_release(course: Course) -> None:
    assert kept(course.after) == kept(course.before)
    assert "deletionTimestamp" not in course.definition["metadata"]


def test_nothing_else_outlives_the_release(course: Course) -> None:
    assert course.left == []


def kept(found: Manifest) -> tuple[Any, ...]:
    return found["metadata"]["uid"], found["spec"], found["status"]["phase"]
