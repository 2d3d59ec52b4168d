"""The laptop-sized cluster as a process of its own whose kubelet is silent: `fake_node` is its node.

    python -m benchmarks.scale_cluster FOLDER

Prints the path of its kubeconfig and serves until SIGTERM. Started and ended by `scale_site`.
"""

import asyncio
import signal
import sys
from pathlib import Path

from benchmarks.fake_node import LABEL, NODE
from lora_devcluster import DevCluster
from lora_devcluster.cluster import ClusterSetting
from lora_devcluster.scheduler import NodeSpec

HISTORY = 100_000
"""Changes that a slow watcher may still ask for: as many as a real API server holds in a few minutes."""
SETTING = ClusterSetting(node=NodeSpec(name=NODE, labels={LABEL: "true"}), history=HISTORY, job_backoff_seconds=0.1)


async def serve(folder: Path) -> None:
    """Is the cluster until it is told to stop."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with DevCluster(folder, SETTING) as cluster:
        cluster.kubelet.vanish()
        print(cluster.kubeconfig, flush=True)
        await stop.wait()


def main() -> None:
    """Serves until SIGTERM."""
    asyncio.run(serve(Path(sys.argv[1])))


if __name__ == "__main__":
    main()
