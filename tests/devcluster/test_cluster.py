"""The cluster as one object, on a loop and in a thread."""

import threading
from pathlib import Path

import pytest

from lora_devcluster import DevCluster, ThreadedCluster
from lora_devcluster.cluster import ClusterSetting
from lora_devcluster.scheduler import NodeSpec


def test_images_and_gpus_are_part_of_the_setting(tmp_path: Path) -> None:
    setting = ClusterSetting(images={"a": "noop"}, node=NodeSpec(name="n"))

    made = DevCluster(tmp_path, setting, images={"b": "noop"}, gpus=3).setting

    assert (made.images, made.node.name, made.node.gpus) == ({"b": "noop"}, "n", 3)


def test_the_threads_store_is_reached_by_call(tmp_path: Path) -> None:
    with ThreadedCluster(tmp_path) as cluster:
        thread = cluster.call(threading.get_ident)
        names = cluster.call(lambda: [obj["metadata"]["name"] for obj in cluster.cluster.store.objects("", "nodes")])

    assert (thread != threading.get_ident(), names) == (True, ["devcluster-node"])


def test_a_port_in_use_is_an_error_and_leaves_no_thread(tmp_path: Path) -> None:
    with ThreadedCluster(tmp_path / "a") as first:
        port = int(first.url.rpartition(":")[2])
        before = threading.active_count()

        with (
            pytest.raises(OSError, match="address already in use"),
            ThreadedCluster(tmp_path / "b", ClusterSetting(port=port)),
        ):
            pass

        assert threading.active_count() == before


async def test_two_clusters_share_nothing(tmp_path: Path) -> None:
    async with DevCluster(tmp_path / "a") as first, DevCluster(tmp_path / "b") as second:
        assert first.url != second.url
        assert first.kubeconfig != second.kubeconfig


async def test_what_an_earlier_cluster_left_of_its_pods_goes(tmp_path: Path) -> None:
    old = tmp_path / "pods" / "some-uid"
    claim = tmp_path / "claims" / "default" / "data"
    old.mkdir(parents=True)
    claim.mkdir(parents=True)

    async with DevCluster(tmp_path):
        assert (old.exists(), claim.exists()) == (False, True)
