"""`helm test` on the laptop-sized cluster after one that failed, whatever that one left behind."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import yaml

from lora_devcluster import ThreadedCluster
from lora_devcluster.cluster import ClusterSetting
from lora_devcluster.scheduler import NodeSpec
from tests.support.chart import Values
from tests.support.installation import NAMESPACE, RELEASE, Installer, pack

IMAGES = {"lora-operator:*": ["python", "-m", "lora_operator"], "lora-trainer:*": ["python", "-m", "lora_trainer"]}
HERE: Values = {"operator": {"listenAddress": "$(POD_IP)", "progressIntervalSeconds": 1, "replicas": 1}}
IN_VAIN: Values = {**HERE, "test": {"timeoutSeconds": 10, "gpus": 1}}
"""No node has a GPU."""
TEST = f"{RELEASE}-test"
MADE = "pods,persistentvolumeclaims,loratrainings,serviceaccounts,roles"


@dataclass(frozen=True)
class Failed:
    """A release whose test has failed once, and now would not."""

    installer: Installer
    said: str
    left: list[str]


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Failed]:
    folder = tmp_path_factory.mktemp("cluster")
    package = pack(folder, "0.1.0")
    with ThreadedCluster(folder, ClusterSetting(images=IMAGES, node=NodeSpec(gpus=0))) as cluster:
        installer = Installer(folder, cluster.kubeconfig)
        installer.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        installer.install(package, IN_VAIN)
        with pytest.raises(AssertionError) as told:
            installer.test()
        remains = left(installer)
        installer.upgrade(package, HERE)
        yield Failed(installer, str(told.value), remains)


def left(installer: Installer) -> list[str]:
    found = installer.kubectl("get", MADE, f"--namespace={NAMESPACE}", "-o", "name").split()
    return [name for name in found if TEST in name]


def leave_a_whole_test(installer: Installer) -> None:
    """Everything that Helm makes for a test, as one that is killed leaves it, with a training that has ended.

    The pod that tells the result is still that of the test that failed.
    """
    made = [one for one in yaml.safe_load_all(installer.hooks()) if one]
    hooks = [one for one in made if not one["metadata"]["name"].endswith("-result")]
    hooks.sort(key=lambda one: int(one["metadata"]["annotations"]["helm.sh/hook-weight"]))
    here = f"--namespace={NAMESPACE}"
    for one in {(one["kind"], one["metadata"]["name"]): one for one in hooks}.values():
        installer.apply(one)
        if one["metadata"]["name"].endswith("-inputs"):
            installer.kubectl(
                "wait", here, f"pod/{TEST}-inputs", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=120s"
            )
    installer.kubectl("wait", here, f"loratraining/{TEST}", "--for=condition=Finished", "--timeout=120s")


def test_a_failed_test_says_why(failed: Failed) -> None:
    assert "not finished after 10 s" in failed.said
    assert "Insufficient nvidia.com/gpu" in failed.said


def test_a_failed_test_leaves_the_pod_that_failed(failed: Failed) -> None:
    assert [name for name in failed.left if name.startswith("pod/")] == [f"pod/{TEST}-result"]


def test_a_test_works_after_one_that_failed_and_after_one_that_was_killed(failed: Failed) -> None:
    leave_a_whole_test(failed.installer)
    held = left(failed.installer)

    failed.installer.test()

    assert f"persistentvolumeclaim/{TEST}-inputs-data" in held
    assert left(failed.installer) == []
