"""The Jobs of a training as Kubernetes manifests; pure. Used by `reconcile`."""

import math
from dataclasses import dataclass

from lora_api import LoraTraining, codes_with, evaluation_digest, names, spec_digest
from lora_api.cluster_spec import Storage
from lora_api.spec import LoraTrainingSpec
from lora_operator.kueue import queue_labels
from lora_operator.observed import ANNOTATION_FAILURES_BEFORE, Job
from lora_operator.pod_template import Meeting, PodRole, build_pod_template, checks_in_pod, pod_annotations
from lora_operator.profiles import Profile
from lora_operator.subject import Manifest

MAX_ANNOTATION_BYTES = 256 * 1024
"""What Kubernetes takes of all annotations of an object, keys included
(https://kubernetes.io/docs/concepts/overview/working-with-objects/annotations/)."""
JOB_ANNOTATION_BYTES = 256
"""Left for what the Job controller and others write on a pod."""
MAX_GRACE_SECONDS = 86400
SAVE_FACTOR, SAVE_MARGIN_SECONDS = 2, 30
"""A pod that is told to stop gets this many times what saving took, and this much more."""


@dataclass(frozen=True)
class Used:
    """What earlier Jobs of a training used up, and taught."""

    failures: int = 0
    """Failures that count against `retry.maxFailures`."""
    active_seconds: int = 0
    """Running time."""
    save_seconds: float | None = None
    """How long saving a state took."""


UNUSED = Used()


def resolve(training: LoraTraining, profile: Profile) -> LoraTraining:
    """The training with what the profile adds to it: the object store, if it names none."""
    if training.spec.storage != Storage() or profile.storage == Storage():
        return training
    spec = training.spec.model_copy(update={"storage": profile.storage})
    return training.model_copy(update={"spec": spec})


def oversize(training: LoraTraining, profile: Profile) -> int | None:
    """Bytes of the pods' annotations, the (resolved) training among them, if Kubernetes takes no such pod."""
    found = pod_annotations(training, profile)
    size = sum(len(key.encode()) + len(value.encode()) for key, value in found.items()) + JOB_ANNOTATION_BYTES
    return size if size > MAX_ANNOTATION_BYTES else None


def build_job(training: LoraTraining, profile: Profile, *, attempt: int, used: Used = UNUSED) -> Manifest:
    """The Job of one attempt (1-based) of the (resolved) training."""
    spec = training.spec
    is_alone = spec.parallelism.nodes == 1
    meeting = None if is_alone else _meeting(training, attempt)
    labels = _labels(training, names.STAGE_TRAINING) | {names.LABEL_ATTEMPT: str(attempt)}
    role = PodRole(names.STAGE_TRAINING, attempt, labels, _grace_seconds(profile, used), meeting)
    containers = [names.TRAINER_CONTAINER]
    if checks_in_pod(spec, profile):
        containers.append(names.PREFLIGHT_CONTAINER)
    job = {
        **(_job_spec(spec, containers) if is_alone else _gang_spec(spec)),
        "backoffLimit": _retries_left(spec, used.failures) if is_alone else 0,
        "template": build_pod_template(training, profile, role),
    }
    _limit(job, spec, used)
    metadata = _metadata(training, names.job_name(training.name, attempt), labels | queue_labels(spec.scheduling))
    metadata["annotations"] |= {ANNOTATION_FAILURES_BEFORE: str(used.failures)}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": job}


def _meeting(training: LoraTraining, attempt: int) -> Meeting:
    address = names.rendezvous(training.name, attempt, training.metadata.namespace or "default")
    return Meeting(names.service_name(training.name), address)


def build_service(training: LoraTraining) -> Manifest | None:
    """The headless Service by which several pods of the training find each other; None: there is one pod."""
    if training.spec.parallelism.nodes == 1:
        return None
    labels = _labels(training, names.STAGE_TRAINING)
    metadata = _metadata(training, names.service_name(training.name), labels)
    del metadata["annotations"]
    spec = {
        "clusterIP": "None",
        # A pod is ready when the first has found all others, and so they must find it before.
        "publishNotReadyAddresses": True,
        "selector": labels,
        "ports": [{"name": "rendezvous", "port": names.RENDEZVOUS_PORT, "protocol": "TCP"}],
    }
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}


def build_preflight_job(training: LoraTraining, profile: Profile) -> Manifest:
    """The Job that checks the data of the (resolved) training, without a GPU."""
    spec = training.spec
    labels = _labels(training, names.STAGE_PREFLIGHT)
    role = PodRole(names.STAGE_PREFLIGHT, 1, labels, _grace_seconds(profile, UNUSED))
    job = {
        **_job_spec(spec, [names.TRAINER_CONTAINER]),
        "backoffLimit": spec.retry.max_failures,
        "template": build_pod_template(training, profile, role),
    }
    metadata = _metadata(training, names.preflight_job_name(training.name), labels)
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": job}


def build_evaluation_job(training: LoraTraining, profile: Profile, *, generation: int, attempts: int) -> Manifest:
    """The Job that evaluates the (resolved) training, which has succeeded, as this generation of its spec asks for.

    `attempts`: how many Jobs trained it. The number of its own pods is above theirs and those of earlier wishes: the
    output belongs to the highest.
    """
    spec = training.spec
    labels = _labels(training, names.STAGE_EVALUATION)
    role = PodRole(names.STAGE_EVALUATION, attempts + generation, labels, _grace_seconds(profile, UNUSED))
    job = {
        **_job_spec(spec, [names.TRAINER_CONTAINER]),
        "backoffLimit": spec.retry.max_failures,
        "template": build_pod_template(training, profile, role),
    }
    _limit(job, spec, UNUSED)
    name = names.evaluation_job_name(training.name, generation)
    metadata = _metadata(training, name, labels | queue_labels(spec.scheduling))
    metadata["annotations"] |= {names.ANNOTATION_EVALUATION_DIGEST: evaluation_digest(spec)}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": job}


def needs_preflight_job(spec: LoraTrainingSpec, profile: Profile) -> bool:
    """Whether a Job of its own checks the data before a GPU is asked for.

    Where several pods train it does so also for a profile that wants the check in the pod: one check is enough.
    """
    in_job = profile.preflight == "Job" or (profile.preflight == "InitContainer" and spec.parallelism.nodes > 1)
    return in_job and spec.parallelism.gpus_per_node > 0


def _job_spec(spec: LoraTrainingSpec, containers: list[str]) -> Manifest:
    """What all kinds of Job share: one pod at a time, and failures are left to the policy."""
    return {
        "completionMode": "Indexed",
        "completions": 1,
        "parallelism": 1,
        "suspend": spec.suspend,
        # No pod is replaced before it is gone: two must never write to one folder.
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": build_pod_failure_policy(containers),
    }


def _gang_spec(spec: LoraTrainingSpec) -> Manifest:
    """The same of pods that train together: all at once, and the first that fails, for whatever cause, ends the Job.

    What that means is for `gang` to judge, and the next Job makes all pods anew: a pod that the Job replaced would find
    the others gone, or waiting for the one before it.
    """
    nodes = spec.parallelism.nodes
    return {
        "completionMode": "Indexed",
        "completions": nodes,
        "parallelism": nodes,
        "suspend": spec.suspend,
        "podReplacementPolicy": "Failed",
    }


def _limit(job: Manifest, spec: LoraTrainingSpec, used: Used) -> None:
    """Adds to the spec of a Job what holds for those that may use a GPU."""
    if spec.scheduling.queue_name is not None:
        # From here on the queue decides, even if its webhook is down.
        job["suspend"] = True
    if spec.limits.active_seconds is not None:
        job["activeDeadlineSeconds"] = _seconds_left(spec.limits.active_seconds, used)


def build_pod_failure_policy(containers: list[str]) -> Manifest:
    """What the Job does about each exit code; a pod that was disrupted is nobody's failure, whatever its code.

    Containers are named, so that one which a mesh adds to the pod decides nothing.
    """
    disrupted = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    by_code = [
        {
            "action": action,
            "onExitCodes": {"containerName": name, "operator": "In", "values": list(codes_with(action))},
        }
        for action in ("FailJob", "Ignore")
        for name in containers
    ]
    return {"rules": [disrupted, *by_code]}


def build_job_patch(spec: LoraTrainingSpec, job: Job, used: Used, *, queued: bool = False) -> Manifest | None:
    """The merge patch that brings the mutable fields of a Job in line with the spec; None: nothing to do.

    `queued`: a queue decides whether the Job runs, although the Job names none. The other fields are still ours: Kueue
    compares only the pods' number, resources and tolerations (its `pkg/util/equality/podset.go`).
    """
    wanted: dict[str, tuple[int | None, int | None]] = {}
    if not job.is_gang:
        wanted["backoffLimit"] = (_retries_left(spec, job.failures_before), job.backoff_limit)
    if not (queued or job.queue_name):
        wanted["suspend"] = (spec.suspend, job.suspend)
    # Kubernetes starts its own clock anew on resuming: what is left is said together with that.
    if not spec.suspend and job.stage != names.STAGE_PREFLIGHT:
        limit = spec.limits.active_seconds
        deadline = None if limit is None else _seconds_left(limit, used)
        wanted["activeDeadlineSeconds"] = (deadline, job.active_deadline_seconds)
    changes = {field: new for field, (new, old) in wanted.items() if new != old}
    if not changes:
        return None
    # The version guards against deciding from an old view of the Job.
    return {"metadata": {"resourceVersion": job.resource_version}, "spec": changes}


def _retries_left(spec: LoraTrainingSpec, failures: int) -> int:
    return max(0, spec.retry.max_failures - failures)


def _seconds_left(limit: int, used: Used) -> int:
    return max(1, limit - used.active_seconds)


def _grace_seconds(profile: Profile, used: Used) -> int:
    """Time for saving: what the profile says, or what saving was seen to need."""
    # Bounded first: trainers are not trusted with numbers either.
    taken = min(used.save_seconds or 0.0, MAX_GRACE_SECONDS)
    seen = 0 if used.save_seconds is None else math.ceil(SAVE_FACTOR * taken) + SAVE_MARGIN_SECONDS
    return min(max(profile.termination_grace_period_seconds, seen), MAX_GRACE_SECONDS)


def _labels(training: LoraTraining, stage: str) -> dict[str, str]:
    return {
        names.LABEL_MANAGED_BY: names.MANAGER,
        names.LABEL_NAME: names.APP_NAME,
        names.LABEL_TRAINING: training.name,
        names.LABEL_STAGE: stage,
    }


def _metadata(training: LoraTraining, name: str, labels: dict[str, str]) -> Manifest:
    """Nothing is copied from the training: tools that track it by label would take its children for their own."""
    owner = {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "name": training.name,
        "uid": training.metadata.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }
    return {
        "name": name,
        "namespace": training.metadata.namespace,
        "labels": labels,
        "annotations": {names.ANNOTATION_SPEC_DIGEST: spec_digest(training.spec)},
        "ownerReferences": [owner],
    }
