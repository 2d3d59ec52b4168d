"""What a cluster does to pods against their will, on demand of a test: preemption, eviction, a lost node.

Conditions, reasons and words are those of the real components:
https://kubernetes.io/docs/concepts/workloads/pods/disruptions/#pod-disruption-conditions, and in the sources
pkg/scheduler/framework/preemption (PreemptionByScheduler), pkg/kubelet/eviction/{helpers,eviction_manager}.go (Evicted;
a pod that fills its own volume gets no DisruptionTarget), pkg/controller/tainteviction (DeletionByTaintManager),
pkg/controller/podgc (DeletionByPodGC), pkg/controller/nodelifecycle (taints of a node that is silent).
"""

from lora_devcluster import clock
from lora_devcluster.api import Api, DeleteOptions
from lora_devcluster.conditions import set_condition
from lora_devcluster.errors import Json
from lora_devcluster.events import Recorder
from lora_devcluster.job_policy import is_finished
from lora_devcluster.kubelet import Kubelet
from lora_devcluster.store import Key

_AT_ONCE = 1
"""Grace of a hard eviction, in seconds (immediateEvictionGracePeriodSeconds)."""
_UNREACHABLE = "node.kubernetes.io/unreachable"


class Disruptions:
    """Disrupts pods of one cluster, each by its namespace and name."""

    def __init__(self, api: Api, kubelet: Kubelet, recorder: Recorder, node: str) -> None:
        self._api = api
        self._kubelet = kubelet
        self._recorder = recorder
        self._node = Key("", "nodes", "", node)

    def preempt(self, namespace: str, name: str) -> None:
        """The scheduler needs its place for a pod of higher priority."""
        words = "default-scheduler: preempting to accommodate a higher priority pod"
        self._mark(namespace, name, "PreemptionByScheduler", words)
        self._api.discard(_pod_key(namespace, name), DeleteOptions())

    def evict_under_pressure(self, namespace: str, name: str, resource: str) -> None:
        """The node is short of `memory` or `ephemeral-storage`: the kubelet ends the pod at once."""
        words = f"The node was low on resource: {resource}. "
        self._mark(namespace, name, "TerminationByKubelet", words)
        self._evict(namespace, name, words)

    def evict_for_volume(self, namespace: str, name: str, volume: str, limit: str) -> None:
        """The pod has filled an emptyDir beyond its size limit: its own doing, so no DisruptionTarget."""
        self._evict(namespace, name, f'Usage of EmptyDir volume "{volume}" exceeds the limit "{limit}". ')

    def lose_node(self) -> None:
        """The node falls silent: its processes are gone, its pods are told to go and cannot."""
        self._kubelet.vanish()

        def taint(node: Json) -> None:
            words = "Kubelet stopped posting node status."
            set_condition(node["status"], "Ready", "Unknown", "NodeStatusUnknown", words)
            node["spec"]["taints"] = [
                {"key": _UNREACHABLE, "effect": effect, "timeAdded": clock.timestamp()}
                for effect in ("NoSchedule", "NoExecute")
            ]

        self._api.modify(self._node, taint)
        for pod in self._bound_pods():
            meta = pod["metadata"]
            words = "Taint manager: deleting due to NoExecute taint"
            self._mark(meta["namespace"], meta["name"], "DeletionByTaintManager", words)
            self._api.discard(_pod_key(meta["namespace"], meta["name"]), DeleteOptions())

    def forget_node(self) -> None:
        """The silent node is given up, and a new one takes its place: its pods are failed and removed by force."""
        for pod in self._bound_pods():
            key = _pod_key(pod["metadata"]["namespace"], pod["metadata"]["name"])
            self._mark(key.namespace, key.name, "DeletionByPodGC", "PodGC: node no longer exists")
            self._api.modify(key, _fail)
        self._api.modify(self._node, _heal)
        self._kubelet.return_empty()

    def _bound_pods(self) -> list[Json]:
        found = self._api.store.objects("", "pods")
        return [pod for pod in found if pod["spec"].get("nodeName") == self._node.name and not is_finished(pod)]

    def _mark(self, namespace: str, name: str, reason: str, words: str) -> None:
        def mark(pod: Json) -> None:
            set_condition(pod["status"], "DisruptionTarget", "True", reason, words)

        self._api.modify(_pod_key(namespace, name), mark)

    def _evict(self, namespace: str, name: str, words: str) -> None:
        pod = self._api.store.get(_pod_key(namespace, name))
        if pod is not None:
            self._recorder.warning(pod, "kubelet", "Evicted", words)
            self._kubelet.end(pod, _AT_ONCE, "Evicted", words)


def _pod_key(namespace: str, name: str) -> Key:
    return Key("", "pods", namespace, name)


def _fail(pod: Json) -> None:
    pod["status"]["phase"] = "Failed"
    pod["metadata"]["deletionGracePeriodSeconds"] = 0


def _heal(node: Json) -> None:
    set_condition(node["status"], "Ready", "True", "KubeletReady", "the kubelet is ready")
    node["spec"].pop("taints", None)
