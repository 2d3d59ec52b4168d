"""Many objects at once."""

from pathlib import Path

from lora_devcluster import DevCluster
from lora_devcluster.api import WriteOptions
from lora_devcluster.cluster import ClusterSetting
from lora_devcluster.conditions import is_true
from tests.support.devcluster import container, job, until

COUNT = 500


async def test_hundreds_of_jobs_come_to_their_end(tmp_path: Path) -> None:
    async with DevCluster(tmp_path, ClusterSetting(images={"noop:*": "noop"})) as cluster:
        jobs = cluster.api.registry.builtin("batch", "jobs")
        for number in range(COUNT):
            body = job(container(image="noop:1"), name=f"j{number}")
            cluster.api.create(jobs, "default", body, WriteOptions())
        done: set[str] = set()

        def all_complete() -> bool:
            for obj in cluster.store.objects("batch", "jobs"):
                if is_true(obj.get("status") or {}, "Complete"):
                    done.add(obj["metadata"]["name"])
            return len(done) == COUNT

        await until(cluster.store, all_complete, seconds=60)

        assert len(cluster.store.objects("", "pods")) == COUNT
