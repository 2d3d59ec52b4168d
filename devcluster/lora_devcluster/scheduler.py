"""The scheduler for the one node: binds pods that fit and says, as the real one does, why others do not."""

from collections import defaultdict
from dataclasses import dataclass, field
from fractions import Fraction

from lora_devcluster.api import Api
from lora_devcluster.claims import CLAIMS, claim_name, claim_obstacle
from lora_devcluster.conditions import condition, set_condition
from lora_devcluster.controller import Controller
from lora_devcluster.errors import Json
from lora_devcluster.events import Recorder
from lora_devcluster.job_policy import is_finished
from lora_devcluster.quantity import parse
from lora_devcluster.selectors import matches
from lora_devcluster.store import Change, Key

_SOURCE = "default-scheduler"
_PREEMPTION = " preemption: 0/1 nodes are available: 1 {}."
_NODE_OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist")


@dataclass(frozen=True)
class NodeSpec:
    """The one node: what it is called and what it can give. The amounts are claims; nothing enforces them."""

    name: str = "devcluster-node"
    cpu: str = "64"
    memory: str = "256Gi"
    pods: int = 1100
    gpus: int = 0
    gpu_resource: str = "nvidia.com/gpu"
    labels: dict[str, str] = field(default_factory=dict)
    taints: tuple[Json, ...] = ()

    def capacity(self) -> dict[str, str]:
        amounts = {"cpu": self.cpu, "memory": self.memory, "pods": str(self.pods), "ephemeral-storage": "100Gi"}
        return {**amounts, self.gpu_resource: str(self.gpus)} if self.gpus else amounts


def pod_requests(pod: Json) -> dict[str, Fraction]:
    """What the scheduler sets aside for a pod: the containers' sum, or an init container's need if that is more."""
    spec = pod["spec"]
    total: dict[str, Fraction] = defaultdict(Fraction)
    for container in spec["containers"]:
        for name, amount in (container["resources"].get("requests") or {}).items():
            total[name] += parse(amount)
    for container in spec.get("initContainers") or ():
        for name, amount in (container["resources"].get("requests") or {}).items():
            total[name] = max(total[name], parse(amount))
    total["pods"] = Fraction(1)
    return dict(total)


class Scheduler(Controller):
    """Looks at all waiting pods together, by priority and age, whenever one comes or another frees its place."""

    _ROUND = Key("", "pods", "", "")

    def __init__(self, api: Api, recorder: Recorder, node: NodeSpec) -> None:
        super().__init__()
        self._api = api
        self._recorder = recorder
        self._node = node
        self._key = Key("", "nodes", "", node.name)
        self._used: dict[str, dict[str, Fraction]] = {}
        self._in_use: dict[str, Fraction] = {}
        """The sum of all that is used."""
        self._pending: dict[Key, Json] = {}
        api.store.subscribe(self._listen)

    def _listen(self, change: Change) -> None:
        if change.key.collection in (CLAIMS, ("", "nodes")) and self._pending:
            self.enqueue(self._ROUND)
        if change.key.collection != ("", "pods"):
            return
        pod, uid = change.object, change.object["metadata"]["uid"]
        over = change.type == "DELETED" or is_finished(pod)
        if over or pod["spec"].get("nodeName") or pod["metadata"].get("deletionTimestamp"):
            self._pending.pop(change.key, None)
        elif change.key not in self._pending or change.type == "ADDED":
            self._pending[change.key] = pod
            self.enqueue(self._ROUND)
        if over and (freed := self._used.pop(uid, None)) is not None:
            _take(self._in_use, freed)
            if self._pending:
                self.enqueue(self._ROUND)
        elif not over and pod["spec"].get("nodeName") and uid not in self._used:
            self._used[uid] = requests = pod_requests(pod)
            _take(self._in_use, {name: -amount for name, amount in requests.items()})

    def reconcile(self, key: Key) -> None:
        def order(item: tuple[Key, Json]) -> tuple[int, str, str]:
            pod = item[1]
            return (
                -pod["spec"].get("priority", 0),
                pod["metadata"]["creationTimestamp"],
                pod["metadata"]["resourceVersion"],
            )

        node = self._api.store.get(self._key)
        if node is None:
            return
        free = {name: parse(amount) for name, amount in node["status"]["allocatable"].items()}
        _take(free, self._in_use)
        for waiting, _ in sorted(self._pending.items(), key=order):
            pod = self._api.store.get(waiting)
            if pod is not None and pod["spec"].get("schedulerName") == _SOURCE:
                self._schedule(waiting, pod, node, free)

    def _schedule(self, key: Key, pod: Json, node: Json, free: dict[str, Fraction]) -> None:
        if pod["spec"].get("schedulingGates"):
            self._hold(key, pod, "SchedulingGated", "Scheduling is blocked due to non-empty scheduling gates")
            return
        requests = pod_requests(pod)
        obstacle = self._obstacle(pod, node) or self._shortage(requests, free)
        if obstacle:
            self._hold(key, pod, "Unschedulable", obstacle)
            return
        _take(free, requests)

        def bind(obj: Json) -> None:
            obj["spec"]["nodeName"] = self._node.name
            set_condition(obj["status"], "PodScheduled", "True")

        self._api.modify(key, bind)
        words = f"Successfully assigned {key.namespace}/{key.name} to {self._node.name}"
        self._recorder.normal(pod, _SOURCE, "Scheduled", words)

    def _obstacle(self, pod: Json, node: Json) -> str:
        """Why the node does not suit the pod, however empty it is."""
        spec, labels = pod["spec"], node["metadata"]["labels"]
        if node["spec"].get("unschedulable"):
            return _nowhere("node(s) were unschedulable")
        wrong_label = any(labels.get(name) != value for name, value in (spec.get("nodeSelector") or {}).items())
        if wrong_label or not _affinity_fits(spec, labels):
            return _nowhere("node(s) didn't match Pod's node affinity/selector")
        for taint in node["spec"].get("taints") or ():
            if taint["effect"] != "PreferNoSchedule" and not _tolerates(spec, taint):
                return _nowhere(f"node(s) had untolerated taint {{{taint['key']}: {taint.get('value', '')}}}")
        for volume in spec.get("volumes") or ():
            name = claim_name(pod, volume)
            claim = self._api.store.get(Key(*CLAIMS, pod["metadata"]["namespace"], name))
            if name and (words := claim_obstacle(pod, volume, claim)):
                return f"0/1 nodes are available: {words}." + _unhelpful()
        return ""

    @staticmethod
    def _shortage(requests: dict[str, Fraction], free: dict[str, Fraction]) -> str:
        short = [name for name, amount in requests.items() if amount > free.get(name, Fraction(0))]
        if not short:
            return ""
        words = ", ".join("1 Too many pods" if name == "pods" else f"1 Insufficient {name}" for name in sorted(short))
        return f"0/1 nodes are available: {words}." + _PREEMPTION.format("No preemption victims found for incoming pod")

    def _hold(self, key: Key, pod: Json, reason: str, message: str) -> None:
        before = condition(pod["status"], "PodScheduled")
        if before and (before.get("reason"), before.get("message")) == (reason, message):
            return
        self._api.modify(key, lambda obj: set_condition(obj["status"], "PodScheduled", "False", reason, message))
        if reason == "Unschedulable":
            self._recorder.warning(pod, _SOURCE, "FailedScheduling", message)


def _take(free: dict[str, Fraction], amounts: dict[str, Fraction]) -> None:
    for name, amount in amounts.items():
        free[name] = free.get(name, Fraction(0)) - amount


def _unhelpful() -> str:
    return _PREEMPTION.format("Preemption is not helpful for scheduling")


def _nowhere(why: str) -> str:
    return f"0/1 nodes are available: 1 {why}." + _unhelpful()


def _affinity_fits(spec: Json, labels: dict[str, str]) -> bool:
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if not required:
        return True
    terms = required.get("nodeSelectorTerms") or ()
    return any(_term_fits(term.get("matchExpressions") or [], labels) for term in terms)


def _term_fits(rules: list[Json], labels: dict[str, str]) -> bool:
    known = all(rule["operator"] in _NODE_OPERATORS for rule in rules)
    return known and bool(rules) and matches({"matchExpressions": rules}, labels)


def _tolerates(spec: Json, taint: Json) -> bool:
    for toleration in spec.get("tolerations") or ():
        same_key = toleration.get("key") in (None, "", taint["key"])
        same_effect = toleration.get("effect") in (None, "", taint["effect"])
        exists = toleration.get("operator") == "Exists"
        if same_key and same_effect and (exists or toleration.get("value", "") == taint.get("value", "")):
            return True
    return False
