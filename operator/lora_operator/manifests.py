"""The children of a training as Kubernetes manifests; pure. Used by `reconcile`."""

import json
import re
from datetime import datetime

from lora_api import LoraTraining, codes_with, names, spec_digest
from lora_api.cluster_spec import Storage
from lora_api.spec import LoraTrainingSpec
from lora_operator.observed import ANNOTATION_ACTIVE_SECONDS, Job, Manifest, parse_time
from lora_operator.pod_template import build_pod_template
from lora_operator.profiles import Profile

_NOT_PRINTABLE_IN_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


def resolve(training: LoraTraining, profile: Profile) -> LoraTraining:
    """The training with what the profile adds to it: the object store, if it names none."""
    if training.spec.storage != Storage() or profile.storage == Storage():
        return training
    spec = training.spec.model_copy(update={"storage": profile.storage})
    return training.model_copy(update={"spec": spec})


def build_config_map(training: LoraTraining) -> Manifest:
    """The ConfigMap from which the trainer reads the (resolved) training."""
    meta = {"name": training.name, "namespace": training.metadata.namespace, "uid": training.metadata.uid}
    document = {
        "apiVersion": training.api_version,
        "kind": training.kind,
        "metadata": {key: value for key, value in meta.items() if value},
        "spec": training.spec.to_document(),
    }
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _metadata(training, names.config_map_name(training.name), {}),
        "data": {names.CONFIG_FILE: _dump(document)},
    }


def _dump(document: Manifest) -> str:
    """JSON, which every YAML reader takes: text such as `1e-2` or `no` stays text without further care."""
    text = json.dumps(document, indent=2, ensure_ascii=False)
    return _NOT_PRINTABLE_IN_YAML.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def build_job(training: LoraTraining, profile: Profile, attempt: int) -> Manifest:
    """The Job of one attempt (1-based) of the (resolved) training."""
    spec = training.spec
    labels = _labels(training, attempt)
    job = {
        "completionMode": "Indexed",
        "completions": 1,
        "parallelism": 1,
        "backoffLimit": spec.retry.max_failures,
        "suspend": spec.suspend,
        # No pod is replaced before it is gone: two must never write to one folder.
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": build_pod_failure_policy(),
        "template": build_pod_template(training, profile, attempt=attempt, labels=labels),
    }
    if spec.limits.active_seconds is not None:
        job["activeDeadlineSeconds"] = spec.limits.active_seconds
    metadata = _metadata(training, names.job_name(training.name, attempt), labels)
    metadata["annotations"] = {names.ANNOTATION_SPEC_DIGEST: spec_digest(spec)}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": job}


def build_pod_failure_policy() -> Manifest:
    """What the Job does about each exit code; a pod that was disrupted is nobody's failure, whatever its code."""
    disrupted = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    return {
        "rules": [
            disrupted,
            *(
                {
                    "action": action,
                    "onExitCodes": {
                        "containerName": names.TRAINER_CONTAINER,
                        "operator": "In",
                        "values": list(codes_with(action)),
                    },
                }
                for action in ("FailJob", "Ignore")
            ),
        ]
    }


def build_job_patch(spec: LoraTrainingSpec, job: Job, now: datetime) -> Manifest | None:
    """The merge patch that brings the mutable fields of a Job in line with the spec; None: nothing to do."""
    used = job.active_seconds
    suspends = spec.suspend and not job.suspend
    if suspends and job.start_time:
        used += int((now - parse_time(job.start_time)).total_seconds())
    deadline = None if spec.limits.active_seconds is None else max(1, spec.limits.active_seconds - used)
    wanted = {
        "suspend": (spec.suspend, job.suspend),
        "activeDeadlineSeconds": (deadline, job.active_deadline_seconds),
        "backoffLimit": (spec.retry.max_failures, job.backoff_limit),
    }
    changes = {field: new for field, (new, old) in wanted.items() if new != old}
    if not changes:
        return None
    # The version guards against counting the running time twice from an old view of the Job.
    metadata: Manifest = {"resourceVersion": job.resource_version}
    if suspends:
        metadata["annotations"] = {ANNOTATION_ACTIVE_SECONDS: str(used)}
    return {"metadata": metadata, "spec": changes}


def _labels(training: LoraTraining, attempt: int) -> dict[str, str]:
    return {
        names.LABEL_MANAGED_BY: names.MANAGER,
        names.LABEL_NAME: names.APP_NAME,
        names.LABEL_TRAINING: training.name,
        names.LABEL_ATTEMPT: str(attempt),
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
    standard = {
        names.LABEL_MANAGED_BY: names.MANAGER,
        names.LABEL_NAME: names.APP_NAME,
        names.LABEL_TRAINING: training.name,
    }
    return {
        "name": name,
        "namespace": training.metadata.namespace,
        "labels": {**standard, **labels},
        "ownerReferences": [owner],
    }
