"""Stands for Kueue: Workloads for labelled Jobs, admission by quota, eviction. Installed by `DevCluster.install_queue`.

What it does to a Job and in which order, and its reasons and messages, follow Kueue's `pkg/controller/jobframework/
reconciler.go`, `pkg/controller/jobs/job/job_controller.go` and `pkg/scheduler/flavorassigner` (versions 0.8 to 0.19).
Every LocalQueue has a ClusterQueue with one flavor of its own; there are neither cohorts nor admission checks, and who
is preempted is the caller's choice (`preempt`). https://kueue.sigs.k8s.io/docs/concepts/workload/
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction

from lora_devcluster.api import MERGE_PATCH, Api, WriteOptions
from lora_devcluster.conditions import condition, is_true, set_condition
from lora_devcluster.controller import Controller
from lora_devcluster.errors import Json
from lora_devcluster.events import Recorder
from lora_devcluster.kueue_workload import (
    ANNOTATION_STOPPING,
    GROUP,
    LABEL_QUEUE,
    admission,
    count_eviction,
    new_workload,
    node_selector,
    set_evicted,
    set_requeued,
    workload_definition,
)
from lora_devcluster.ownership import Writer
from lora_devcluster.quantity import parse
from lora_devcluster.resources import Resource
from lora_devcluster.scheduler import pod_requests
from lora_devcluster.store import Change, Key

_SOURCE = "batch/job-kueue-controller"
_AS_KUEUE = WriteOptions(Writer("kueue"))
_ROUND = Key(GROUP, "workloads", "", "")
_WORKLOADS = (GROUP, "workloads")
_PREEMPTED = "Preempted to accommodate a workload (UID: {0}, JobUID: {0}) due to prioritization in the ClusterQueue"


@dataclass(frozen=True)
class QueueSetting:
    """The queues: what each LocalQueue may use (`pods` counts their pods), and how Kueue is configured."""

    quotas: Mapping[str, Mapping[str, str]]
    """Amounts by LocalQueue and resource; other resources are not counted."""
    node_labels: Mapping[str, str] = field(default_factory=dict)
    """Labels of the one ResourceFlavor: they go into the node selector of admitted Jobs."""
    priorities: Mapping[str, int] = field(default_factory=dict)
    """Values of the WorkloadPriorityClasses."""
    manages_all: bool = False
    """`manageJobsWithoutQueueName`."""
    statistics: bool = True
    """Whether Workloads have `status.schedulingStats`, as they do since Kueue 0.12."""
    version: str = "v1beta2"


class QueueController(Controller):
    """Suspends Jobs until their LocalQueue has room for them, and again when they are evicted."""

    def __init__(self, api: Api, recorder: Recorder, setting: QueueSetting) -> None:
        super().__init__()
        self._api = api
        self._recorder = recorder
        self._setting = setting
        self._quotas = {name: dict(amounts) for name, amounts in setting.quotas.items()}
        api.mutators.append(self._suspend_new)
        api.store.subscribe(self._listen)
        definitions = api.registry.builtin("apiextensions.k8s.io", "customresourcedefinitions")
        api.create(definitions, "", workload_definition(setting.version), _AS_KUEUE)
        for job in api.store.objects("batch", "jobs"):
            self.enqueue(_key(job, "batch", "jobs"))

    # What a test does.

    def set_quota(self, queue: str, amounts: Mapping[str, str]) -> None:
        """Changes what a LocalQueue may use; a new name is a new LocalQueue. What runs keeps running."""
        self._quotas[queue] = dict(amounts)
        self.enqueue(_ROUND)

    def preempt(self, namespace: str, job: str, *, for_uid: str = "UNKNOWN") -> None:
        """Takes the Job's quota away, as for a Workload of higher rank."""
        workload = self.workload(namespace, job)
        assert workload is not None, f"Job {job} has no Workload"
        message = _PREEMPTED.format(for_uid)
        self._evict(workload, "Preempted", message)
        self._change(workload, lambda w: set_condition(w["status"], "Preempted", "True", "InClusterQueue", message))

    def workload(self, namespace: str, job: str) -> Json | None:
        """The Workload of a Job."""
        found = self._api.store.get(Key("batch", "jobs", namespace, job))
        return self._workload_of(found) if found else None

    # What Kueue does.

    def _suspend_new(self, resource: Resource, obj: Json) -> None:
        """The mutating webhook: no Job of a queue starts before it is admitted."""
        if (resource.group, resource.plural) == ("batch", "jobs") and self._manages(obj):
            obj["spec"]["suspend"] = True

    def _manages(self, job: Json) -> bool:
        return self._setting.manages_all or bool(_queue_of(job))

    def _listen(self, change: Change) -> None:
        if change.key.collection == ("batch", "jobs") and change.type != "DELETED":
            self.enqueue(change.key)
        elif change.key.collection == _WORKLOADS:
            self.enqueue(_ROUND if change.type == "DELETED" else _owner_key(change.object))
        elif change.key.collection == ("apiextensions.k8s.io", "customresourcedefinitions"):
            for job in self._api.store.objects("batch", "jobs"):
                self.enqueue(_key(job, "batch", "jobs"))

    def reconcile(self, key: Key) -> None:
        if key == _ROUND:
            self._admit_who_fits()
            return
        job = self._api.store.get(key)
        served = self._resource() is not None
        if job is not None and served and not job["metadata"].get("deletionTimestamp") and self._manages(job):
            self._sync(job, self._workload_of(job))

    def _resource(self) -> Resource | None:
        return self._api.registry.of_kind(f"{GROUP}/{self._setting.version}", "Workload")

    def _workload_of(self, job: Json) -> Json | None:
        keys = self._api.store.dependents(job["metadata"]["uid"])
        return next((self._api.store.get(key) for key in keys if key.collection == _WORKLOADS), None)

    def _sync(self, job: Json, workload: Json | None) -> None:
        ended = next((k for k in ("Complete", "Failed") if is_true(job.get("status") or {}, k)), None)
        if ended is not None:
            if workload is not None:
                self._finish(workload, succeeded=ended == "Complete")
        elif workload is None:
            self._stop(job, None)
            self._create(job)
        elif is_true(workload["status"], "Evicted"):
            self._stop(job, workload)
            self._release(job, workload)
        elif workload["spec"].get("active") is False:
            self._evict(workload, "Deactivated", "The workload is deactivated")
        elif job["spec"]["suspend"] and is_true(workload["status"], "Admitted"):
            self._start(job, workload)
        elif not job["spec"]["suspend"] and not is_true(workload["status"], "Admitted"):
            self._stop(job, workload)
        elif workload["spec"]["queueName"] != _queue_of(job) and job["spec"]["suspend"]:
            self._change(workload, lambda w: w["spec"].update(queueName=_queue_of(job)))
            self.enqueue(_ROUND)

    def _create(self, job: Json) -> None:
        resource = self._resource()
        assert resource is not None
        body = new_workload(job, _queue_of(job), self._setting.priorities, version=self._setting.version)
        made = self._api.create(resource, job["metadata"]["namespace"], body, _AS_KUEUE).object
        self._change(made, lambda w: w.setdefault("status", {}).update(conditions=[]))
        words = f"Created Workload: {made['metadata']['namespace']}/{made['metadata']['name']}"
        self._recorder.normal(job, _SOURCE, "CreatedWorkload", words)
        self.enqueue(_ROUND)

    def _finish(self, workload: Json, *, succeeded: bool) -> None:
        if not is_true(workload["status"], "Finished"):
            reason, words = ("Succeeded", "Job finished successfully") if succeeded else ("Failed", "Job failed")
            self._change(workload, lambda w: set_condition(w["status"], "Finished", "True", reason, words))
            self.enqueue(_ROUND)

    def _evict(self, workload: Json, reason: str, message: str) -> None:
        def change(one: Json) -> None:
            set_evicted(one["status"], reason, message)
            if self._setting.statistics:
                count_eviction(one["status"], reason)

        self._change(workload, change)

    def _release(self, job: Json, workload: Json) -> None:
        """Quota is given back when the last pod is gone."""
        if is_true(workload["status"], "QuotaReserved") and not (job.get("status") or {}).get("active"):
            self._change(workload, lambda w: set_requeued(w["status"]))
            self.enqueue(_ROUND)

    def _start(self, job: Json, workload: Json) -> None:
        template = {
            "metadata": {
                "labels": {f"{GROUP}/podset": "main"},
                "annotations": {f"{GROUP}/workload": workload["metadata"]["name"]},
            },
            "spec": {"nodeSelector": {**node_selector(workload), **self._setting.node_labels}},
        }
        self._patch(job, {"spec": {"suspend": False, "template": template}})
        queue = workload["status"]["admission"]["clusterQueue"]
        self._recorder.normal(job, _SOURCE, "Started", f"Admitted by clusterQueue {queue}")

    def _stop(self, job: Json, workload: Json | None) -> None:
        """Suspends the Job, then clears its start time, then gives the template back: in this order, as Kueue must."""
        if job["spec"]["suspend"]:
            return
        stopping: Json = {"metadata": {"annotations": {ANNOTATION_STOPPING: "true"}}, "spec": {"suspend": True}}
        self._patch(job, stopping)
        self._api.modify(_key(job, "batch", "jobs"), _clear_start_time)
        restored: Json = {"metadata": {"annotations": {ANNOTATION_STOPPING: None}}}
        if workload is not None:
            added = set(job["spec"]["template"]["spec"].get("nodeSelector") or ()) - set(node_selector(workload))
            labels, notes = {f"{GROUP}/podset": None}, {f"{GROUP}/workload": None}
            meta = {"labels": labels, "annotations": notes}
            spec = {"nodeSelector": dict.fromkeys(added)}
            restored["spec"] = {"template": {"metadata": meta, "spec": spec}}
        self._patch(job, restored)
        evicted = condition(workload["status"], "Evicted") if workload else None
        words = (evicted or {}).get("message", "Not admitted by cluster queue")
        self._recorder.normal(job, _SOURCE, "Stopped", words)

    def _admit_who_fits(self) -> None:
        workloads = self._api.store.objects(*_WORKLOADS)
        open_ones = [w for w in workloads if not is_true(w.get("status") or {}, "Finished")]
        waiting = [w for w in open_ones if not is_true(w.get("status") or {}, "QuotaReserved")]
        for one in sorted(waiting, key=_rank):
            if one["spec"].get("active") is not False and one.get("status") is not None:
                self._consider(one)

    def _consider(self, workload: Json) -> None:
        queue = workload["spec"]["queueName"]
        quota = self._quotas.get(queue)
        if quota is None:
            self._refuse(workload, "Inadmissible", f"LocalQueue {queue} doesn't exist")
            return
        free = {name: parse(amount) - self._used(queue, name) for name, amount in quota.items()}
        missing = {name: _requests(workload).get(name, Fraction(0)) - free[name] for name in quota}
        short = [
            f"insufficient unused quota for {name} in flavor default-flavor, {amount} more needed"
            for name, amount in sorted(missing.items())
            if amount > 0
        ]
        if short:
            self._refuse(workload, "Pending", "couldn't assign flavors to pod set main: " + ", ".join(short))
        else:
            self._change(workload, lambda w: admission(w, queue, quota))

    def _used(self, queue: str, name: str) -> Fraction:
        holders = (
            w
            for w in self._api.store.objects(*_WORKLOADS)
            if w["spec"]["queueName"] == queue
            and is_true(w.get("status") or {}, "QuotaReserved")
            and not is_true(w["status"], "Finished")
        )
        return sum((_requests(w).get(name, Fraction(0)) for w in holders), Fraction(0))

    def _refuse(self, workload: Json, reason: str, message: str) -> None:
        self._change(workload, lambda w: set_condition(w["status"], "QuotaReserved", "False", reason, message))

    def _change(self, workload: Json, change: Callable[[Json], None]) -> None:
        self._api.modify(_key(workload, *_WORKLOADS), change)

    def _patch(self, job: Json, patch: Json) -> None:
        self._api.patch(
            self._api.registry.builtin("batch", "jobs"), _key(job, "batch", "jobs"), MERGE_PATCH, patch, _AS_KUEUE
        )


def _key(obj: Json, group: str, plural: str) -> Key:
    return Key(group, plural, obj["metadata"]["namespace"], obj["metadata"]["name"])


def _owner_key(workload: Json) -> Key:
    return Key("batch", "jobs", workload["metadata"]["namespace"], workload["metadata"]["ownerReferences"][0]["name"])


def _queue_of(job: Json) -> str:
    return str((job["metadata"].get("labels") or {}).get(LABEL_QUEUE, ""))


def _clear_start_time(job: Json) -> None:
    (job.get("status") or {}).pop("startTime", None)


def _requests(workload: Json) -> dict[str, Fraction]:
    pods = workload["spec"]["podSets"][0]
    return {name: amount * pods["count"] for name, amount in pod_requests(pods["template"]).items()}


def _rank(workload: Json) -> tuple[int, str, str]:
    meta = workload["metadata"]
    return -workload["spec"].get("priority", 0), meta["creationTimestamp"], meta["name"]
