"""A cluster for every test of the node, and one shared by the tests that use clients."""

import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from lora_devcluster import DevCluster, ThreadedCluster
from lora_devcluster.cluster import ClusterSetting
from lora_devcluster.scheduler import NodeSpec
from tests.support.kubectl import Kubectl
from tests.support.node import Node

SETTING = ClusterSetting(
    images={"busybox:*": [], "entry:*": ["sh", "-c", 'echo "entry $0 $1"'], "noop:*": "noop"},
    node=NodeSpec(gpus=1, labels={"room": "attic"}),
    environment={"FROM_CLUSTER": "yes"},
    job_backoff_seconds=0.05,
    restart_seconds=0.05,
    retry_seconds=0.05,
)


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    async with DevCluster(tmp_path / "cluster", SETTING) as cluster:
        yield Node(cluster)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ThreadedCluster]:
    with ThreadedCluster(tmp_path_factory.mktemp("shared"), SETTING) as cluster:
        yield cluster


@pytest.fixture
def kubectl(shared: ThreadedCluster) -> Kubectl:
    """kubectl in a new namespace of the shared cluster."""
    namespace = f"t-{uuid.uuid4().hex[:8]}"
    Kubectl(shared.kubeconfig)("create", "namespace", namespace)
    return Kubectl(shared.kubeconfig, namespace)
