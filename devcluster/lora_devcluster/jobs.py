"""The Job controller: pods until enough of them succeeded, or the Job's rules say that it failed.

https://kubernetes.io/docs/concepts/workloads/controllers/job/
"""

from typing import Any

from lora_devcluster import clock
from lora_devcluster.api import Api, DeleteOptions, WriteOptions, random_suffix
from lora_devcluster.conditions import condition, is_true, set_condition
from lora_devcluster.controller import Controller
from lora_devcluster.documents import copied
from lora_devcluster.errors import ApiError, Json
from lora_devcluster.events import Recorder
from lora_devcluster.job_policy import format_indexes, is_finished, judge, parse_indexes
from lora_devcluster.ownership import Writer
from lora_devcluster.store import Change, Key

TRACKING = "batch.kubernetes.io/job-tracking"
INDEX = "batch.kubernetes.io/job-completion-index"
_SOURCE = "job-controller"
_LONGEST_BACKOFF_SECONDS = 600.0
_AS_CONTROLLER = WriteOptions(Writer("kube-controller-manager"))


def job_of(pod: Json) -> Json | None:
    """The reference to the Job that controls a pod."""
    references = pod["metadata"].get("ownerReferences") or ()
    return next((one for one in references if one.get("controller") and one["kind"] == "Job"), None)


class JobController(Controller):
    """Keeps every Job's pods and status. `backoff_seconds` is the first delay after a failure; it doubles."""

    def __init__(self, api: Api, recorder: Recorder, backoff_seconds: float) -> None:
        super().__init__()
        self._api = api
        self._recorder = recorder
        self._backoff_seconds = backoff_seconds
        self._failures: dict[str, tuple[int, Any]] = {}
        api.store.subscribe(self._listen)

    def _listen(self, change: Change) -> None:
        if change.key.collection == ("batch", "jobs"):
            if change.type == "DELETED":
                self._failures.pop(change.object["metadata"]["uid"], None)
            else:
                self.enqueue(change.key)
        elif change.key.collection == ("", "pods"):
            owner = job_of(change.object)
            if owner is not None:
                self.enqueue(Key("batch", "jobs", change.key.namespace, owner["name"]))
            if TRACKING in (change.object["metadata"].get("finalizers") or ()) and change.type != "DELETED":
                self.enqueue(change.key)

    def _release_orphan(self, key: Key) -> None:
        """A pod whose Job is gone waits for nobody to count it."""
        pod = self._api.store.get(key)
        owner = job_of(pod) if pod else None
        if pod and (owner is None or self._api.store.key_of(owner["uid"]) is None):
            self._api.modify(key, _release)

    def reconcile(self, key: Key) -> None:
        if key.plural == "pods":
            self._release_orphan(key)
            return
        job = self._api.store.get(key)
        if job is None:
            return
        pods = self._pods(job)
        ended = job.get("status") or {}
        if is_true(ended, "Complete") or is_true(ended, "Failed"):
            self._finish_off(key, job, pods)
            return
        job = copied(job)
        status = job.setdefault("status", {})
        if "startTime" not in status and not job["spec"]["suspend"]:
            status["startTime"] = clock.timestamp()
        self._count(job, pods)
        pods = self._pods(job)
        self._decide_end(key, job)
        if not job["metadata"].get("deletionTimestamp"):
            self._act(key, job, pods)
        self._report(key, job, self._pods(job))

    def _pods(self, job: Json) -> list[Json]:
        keys = self._api.store.dependents(job["metadata"]["uid"])
        pods = [self._api.store.get(key) for key in keys if key.plural == "pods"]
        return [pod for pod in pods if pod is not None]

    def _finish_off(self, key: Key, job: Json, pods: list[Json]) -> None:
        for pod in pods:
            self._api.modify(_key(pod), _release)
        seconds = job["spec"].get("ttlSecondsAfterFinished")
        ended = next(
            c for c in job["status"]["conditions"] if c["type"] in ("Complete", "Failed") and c["status"] == "True"
        )
        if seconds is None or job["metadata"].get("deletionTimestamp"):
            return
        left = seconds - (clock.now() - clock.parse(ended["lastTransitionTime"])).total_seconds()
        if left > 0:
            self.enqueue_after(key, left)
        else:
            self._api.discard(key, DeleteOptions(propagation="Foreground"))

    def _count(self, job: Json, pods: list[Json]) -> None:
        """Takes every newly finished pod into the status, once: its finalizer says whether that was done."""
        spec, status = job["spec"], job["status"]
        early = spec["podReplacementPolicy"] == "TerminatingOrFailed"
        done = parse_indexes(status.get("completedIndexes", ""))
        for pod in pods:
            terminating = early and pod["metadata"].get("deletionTimestamp")
            if TRACKING not in (pod["metadata"].get("finalizers") or ()) or not (is_finished(pod) or terminating):
                continue
            if pod["status"].get("phase") == "Succeeded":
                if spec["completionMode"] != "Indexed" or _index(pod) not in done:
                    status["succeeded"] = status.get("succeeded", 0) + 1
                done.add(_index(pod))
                self._failures.pop(job["metadata"]["uid"], None)
            else:
                self._count_failure(job, pod)
            self._api.modify(_key(pod), _release)
        if spec["completionMode"] == "Indexed":
            status["completedIndexes"] = format_indexes(done)

    def _count_failure(self, job: Json, pod: Json) -> None:
        verdict = judge(pod, job["spec"].get("podFailurePolicy"))
        if verdict.action == "Ignore":
            return
        job["status"]["failed"] = job["status"].get("failed", 0) + 1
        uid = job["metadata"]["uid"]
        self._failures[uid] = (self._failures.get(uid, (0, None))[0] + 1, clock.now())
        if verdict.action == "FailJob" and condition(job["status"], "FailureTarget") is None:
            set_condition(job["status"], "FailureTarget", "True", "PodFailurePolicy", verdict.message)

    def _decide_end(self, key: Key, job: Json) -> None:
        """Sets the condition that says how the Job will end, as soon as that is certain."""
        spec, status = job["spec"], job["status"]
        if condition(status, "FailureTarget") or condition(status, "SuccessCriteriaMet"):
            return
        wanted = spec.get("completions")
        if (wanted is not None and status.get("succeeded", 0) >= wanted) or (
            wanted is None and status.get("succeeded", 0) and not any(_is_active(pod) for pod in self._pods(job))
        ):
            words = "Reached expected number of succeeded pods"
            set_condition(status, "SuccessCriteriaMet", "True", "CompletionsReached", words)
        elif status.get("failed", 0) + self._restarts(job) > spec["backoffLimit"]:
            words = "Job has reached the specified backoff limit"
            set_condition(status, "FailureTarget", "True", "BackoffLimitExceeded", words)
        elif spec.get("activeDeadlineSeconds") is not None and "startTime" in status and not spec["suspend"]:
            self._check_deadline(key, job)

    def _restarts(self, job: Json) -> int:
        """Restarts inside pods count as failures when the pods restart their containers."""
        if job["spec"]["template"]["spec"]["restartPolicy"] != "OnFailure":
            return 0
        running = [pod for pod in self._pods(job) if _is_active(pod)]
        return sum(c["restartCount"] for pod in running for c in pod["status"].get("containerStatuses") or ())

    def _check_deadline(self, key: Key, job: Json) -> None:
        started = clock.parse(job["status"]["startTime"])
        left = job["spec"]["activeDeadlineSeconds"] - (clock.now() - started).total_seconds()
        if left > 0:
            self.enqueue_after(key, left)
        else:
            words = "Job was active longer than specified deadline"
            set_condition(job["status"], "FailureTarget", "True", "DeadlineExceeded", words)

    def _act(self, key: Key, job: Json, pods: list[Json]) -> None:
        status = job["status"]
        target = condition(status, "FailureTarget") or condition(status, "SuccessCriteriaMet")
        live = [pod for pod in pods if not is_finished(pod)]
        if target is not None:
            self._delete_pods(job, live)
            if not [pod for pod in self._pods(job) if not is_finished(pod)]:
                self._end(job, target)
        elif job["spec"]["suspend"]:
            self._suspend(job, live)
        else:
            self._resume(job)
            self._create_missing(key, job, live)

    def _delete_pods(self, job: Json, pods: list[Json]) -> None:
        for pod in pods:
            if not pod["metadata"].get("deletionTimestamp"):
                self._api.discard(_key(pod), DeleteOptions())
                self._recorder.normal(job, _SOURCE, "SuccessfulDelete", f"Deleted pod: {pod['metadata']['name']}")

    def _end(self, job: Json, target: Json) -> None:
        status = job["status"]
        kind = "Failed" if target["type"] == "FailureTarget" else "Complete"
        set_condition(status, kind, "True", target.get("reason", ""), target.get("message", ""))
        if kind == "Complete":
            status["completionTime"] = clock.timestamp()
            self._recorder.normal(job, _SOURCE, "Completed", "Job completed")
        else:
            self._recorder.warning(job, _SOURCE, target.get("reason", ""), target.get("message", ""))

    def _dismiss(self, job: Json, pods: list[Json]) -> None:
        """Deletes pods that did nothing wrong: released first, they never count as failures."""
        for pod in pods:
            self._api.modify(_key(pod), _release)
        self._delete_pods(job, pods)

    def _suspend(self, job: Json, live: list[Json]) -> None:
        self._dismiss(job, live)
        if not is_true(job["status"], "Suspended"):
            set_condition(job["status"], "Suspended", "True", "JobSuspended", "Job suspended")
            self._recorder.normal(job, _SOURCE, "Suspended", "Job suspended")
        job["status"].pop("startTime", None)

    def _resume(self, job: Json) -> None:
        if is_true(job["status"], "Suspended"):
            set_condition(job["status"], "Suspended", "False", "JobResumed", "Job resumed")
            job["status"]["startTime"] = clock.timestamp()
            self._recorder.normal(job, _SOURCE, "Resumed", "Job resumed")

    def _create_missing(self, key: Key, job: Json, live: list[Json]) -> None:
        spec, status = job["spec"], job["status"]
        active = [pod for pod in live if not pod["metadata"].get("deletionTimestamp")]
        occupied = live if spec["podReplacementPolicy"] == "Failed" else active
        remaining = spec["parallelism"]
        if spec.get("completions") is not None:
            remaining = min(remaining, spec["completions"] - status.get("succeeded", 0))
        elif status.get("succeeded", 0):
            remaining = 0
        missing = remaining - len(occupied)
        if missing < 0 and len(active) > remaining:
            self._dismiss(job, active[remaining:])
        wait = self._backoff_left(job)
        if missing > 0 and wait > 0:
            self.enqueue_after(key, wait)
        elif missing > 0:
            for index in self._free_indexes(job, occupied)[:missing]:
                self._create_pod(key, job, index)

    def _backoff_left(self, job: Json) -> float:
        count, last = self._failures.get(job["metadata"]["uid"], (0, None))
        if not count:
            return 0.0
        delay = min(self._backoff_seconds * 2.0 ** (count - 1), _LONGEST_BACKOFF_SECONDS)
        return delay - float((clock.now() - last).total_seconds())

    @staticmethod
    def _free_indexes(job: Json, occupied: list[Json]) -> list[int | None]:
        spec = job["spec"]
        if spec["completionMode"] != "Indexed":
            return [None] * spec["parallelism"]
        taken = parse_indexes(job["status"].get("completedIndexes", "")) | {_index(pod) for pod in occupied}
        return [index for index in range(spec["completions"]) if index not in taken]

    def _create_pod(self, key: Key, job: Json, index: int | None) -> None:
        body = _pod_for(job, index)
        resource = self._api.registry.builtin("", "pods")
        try:
            pod = self._api.create(resource, key.namespace, body, _AS_CONTROLLER).object
        except ApiError as error:
            words = f"Error creating: {error.message}"
            self._recorder.warning(job, _SOURCE, "FailedCreate", words)
            self.enqueue_after(key, self._backoff_seconds)
        else:
            self._recorder.normal(job, _SOURCE, "SuccessfulCreate", f"Created pod: {pod['metadata']['name']}")

    def _report(self, key: Key, job: Json, pods: list[Json]) -> None:
        status = job["status"]
        live = [pod for pod in pods if not is_finished(pod)]
        active = [pod for pod in live if not pod["metadata"].get("deletionTimestamp")]
        ready = [pod for pod in active if is_true(pod["status"], "Ready")]
        status |= {"terminating": len(live) - len(active), "ready": len(ready), "uncountedTerminatedPods": {}}
        status.pop("active", None)
        if active:
            status["active"] = len(active)
        self._api.modify(key, lambda obj: obj.update(status=status))


def _key(pod: Json) -> Key:
    return Key("", "pods", pod["metadata"]["namespace"], pod["metadata"]["name"])


def _release(pod: Json) -> None:
    finalizers = pod["metadata"].get("finalizers") or []
    pod["metadata"]["finalizers"] = [name for name in finalizers if name != TRACKING]


def _is_active(pod: Json) -> bool:
    return not is_finished(pod) and not pod["metadata"].get("deletionTimestamp")


def _index(pod: Json) -> int:
    return int((pod["metadata"].get("annotations") or {}).get(INDEX, -1))


def _pod_for(job: Json, index: int | None) -> Json:
    meta, template = job["metadata"], copied(job["spec"]["template"])
    pod_meta = template.get("metadata") or {}
    labels, annotations = pod_meta.get("labels") or {}, pod_meta.get("annotations") or {}
    spec, name = template["spec"], meta["name"]
    if index is not None:
        labels, annotations = {**labels, INDEX: str(index)}, {**annotations, INDEX: str(index)}
        name = f"{name}-{index}"
        spec.setdefault("hostname", name)
        source = {"fieldRef": {"fieldPath": f"metadata.labels['{INDEX}']"}}
        for container in [*(spec.get("initContainers") or ()), *spec["containers"]]:
            container["env"] = [*(container.get("env") or ()), {"name": "JOB_COMPLETION_INDEX", "valueFrom": source}]
    owner = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "name": meta["name"],
        "uid": meta["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
    pod_name = f"{name}-{random_suffix()}"
    kept = {"labels": labels, "annotations": annotations, "ownerReferences": [owner], "finalizers": [TRACKING]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": pod_name, "generateName": f"{name}-", **kept},
        "spec": spec,
    }
