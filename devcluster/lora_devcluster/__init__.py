"""A laptop-sized Kubernetes for the demo and the tests: API server, controllers, and pods as local processes."""

from lora_devcluster.cluster import DevCluster, ThreadedCluster

__all__ = ["DevCluster", "ThreadedCluster"]
