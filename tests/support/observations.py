"""Builders of what the operator sees: trainings, Jobs and pods as the API server tells them."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from lora_api import names
from lora_operator.observed import ANNOTATION_INDEX, Job, Observed, Pod, parse_job, parse_pod
from lora_operator.subject import Subject, parse_subject
from lora_operator.timestamps import format_time
from tests.support.documents import make_document

Manifest = dict[str, Any]

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
EARLIER = "2026-11-22T11:00:00Z"
UID = "training-uid"
JOB_UID = "job-uid"


def moment(seconds: float) -> datetime:
    """So many seconds after the present of the tests."""
    return NOW + timedelta(seconds=seconds)


def training_body(*changes: tuple[str, Any], status: Manifest | None = None, generation: int = 1) -> Manifest:
    """A LoraTraining as the API server holds it."""
    body = make_document(*changes)
    body["metadata"] |= {"uid": UID, "resourceVersion": "7", "generation": generation, "creationTimestamp": EARLIER}
    return {**body, "status": status} if status else body


def make_subject(*changes: tuple[str, Any], status: Manifest | None = None, generation: int = 1) -> Subject:
    return parse_subject(training_body(*changes, status=status, generation=generation))


def job_body(attempt: int = 1, *, status: Manifest | None = None, **changes: Any) -> Manifest:
    """A Job of the training; `changes` to its spec."""
    return {
        "metadata": {
            "name": f"hina-a{attempt}",
            "namespace": "ml",
            "uid": JOB_UID if attempt == 1 else f"{JOB_UID}-{attempt}",
            "resourceVersion": "8",
            "creationTimestamp": EARLIER,
            "labels": {names.LABEL_TRAINING: "hina", names.LABEL_ATTEMPT: str(attempt)},
            "ownerReferences": [{"uid": UID, "controller": True}],
        },
        "spec": {"suspend": False, "backoffLimit": 3, **changes},
        "status": status or {},
    }


def make_job(attempt: int = 1, *, status: Manifest | None = None, **changes: Any) -> Job:
    return parse_job(job_body(attempt, status=status, **changes))


def make_preflight_job(*, status: Manifest | None = None, **changes: Any) -> Job:
    """The Job that checks the data; its uid is `check`."""
    body = job_body(status=status, **changes)
    labels = {names.LABEL_TRAINING: "hina", names.LABEL_STAGE: names.STAGE_PREFLIGHT}
    return parse_job({**body, "metadata": {**body["metadata"], "name": "hina-data", "uid": "check", "labels": labels}})


def make_evaluation_job(digest: str, generation: int = 2, *, status: Manifest | None = None, **changes: Any) -> Job:
    """The Job that evaluates, for the wish with this digest; its uid is `evaluation-<generation>`."""
    body = job_body(status=status, **changes)
    meta = {
        "name": f"hina-e{generation}",
        "uid": f"evaluation-{generation}",
        "labels": {names.LABEL_TRAINING: "hina", names.LABEL_STAGE: names.STAGE_EVALUATION},
        "annotations": {names.ANNOTATION_EVALUATION_DIGEST: digest},
    }
    return parse_job({**body, "metadata": {**body["metadata"], **meta}})


def ended(kind: str, reason: str, message: str = "") -> Manifest:
    """The status of a Job that has ended."""
    condition = {"type": kind, "status": "True", "reason": reason, "message": message, "lastTransitionTime": EARLIER}
    return {"conditions": [condition]}


def failing(reason: str, seconds: float = 0.0) -> Manifest:
    """The status of a Job that has been stopping its pods since so many seconds after the present."""
    condition = {"type": "FailureTarget", "status": "True", "reason": reason, "message": ""}
    return {"conditions": [condition | {"lastTransitionTime": format_time(moment(seconds))}]}


COMPLETE = ended("Complete", "CompletionsReached")
FAILED = ended("Failed", "PodFailurePolicy")


def pod_body(*, state: Manifest | None = None, **changes: Any) -> Manifest:
    """A pod of the training's Job; `state`: that of its container; `gone_in`: seconds until it has to be gone; `index`:
    its place among several that train together."""
    name = changes.pop("name", "hina-a1-0-abcde")
    gone_in = changes.pop("gone_in", 10.0 if changes.pop("is_deleting", False) else None)
    deletion = {} if gone_in is None else {"deletionTimestamp": format_time(moment(gone_in))}
    containers = [{"name": names.TRAINER_CONTAINER, "state": state}] if state else []
    index = changes.pop("index", None)
    place = {} if index is None else {"annotations": {ANNOTATION_INDEX: str(index)}}
    if reason := changes.pop("status_reason", None):
        changes["reason"] = reason
    return {
        "metadata": {
            "name": name,
            "namespace": "ml",
            "uid": f"uid-of-{name}",
            "resourceVersion": "9",
            "creationTimestamp": changes.pop("created", EARLIER),
            "labels": {names.LABEL_TRAINING: "hina", names.LABEL_STAGE: changes.pop("stage", names.STAGE_TRAINING)},
            "ownerReferences": [{"uid": changes.pop("job_uid", JOB_UID), "controller": True}],
            **deletion,
            **place,
        },
        "spec": {
            "nodeName": changes.pop("node", "node-1"),
            "containers": [_container(changes.pop("memory", None))],
            "terminationGracePeriodSeconds": 120,
            **({} if index is None else {"subdomain": "hina-nodes"}),
        },
        "status": {
            "phase": "Pending",
            "podIP": "127.0.0.9",
            "containerStatuses": containers,
            **changes,
        },
    }


def _container(memory: str | None) -> Manifest:
    return {"name": names.TRAINER_CONTAINER, "resources": {"limits": {"memory": memory}} if memory else {}}


def disrupted(reason: str, message: str) -> list[Manifest]:
    """The conditions of a pod that the cluster takes away."""
    return [{"type": "DisruptionTarget", "status": "True", "reason": reason, "message": message}]


def make_pod(*, state: Manifest | None = None, **changes: Any) -> Pod:
    return parse_pod(pod_body(state=state, **changes))


RUNNING: Manifest = {"running": {"startedAt": "2026-11-22T11:59:00Z"}}


def running_pod(**changes: Any) -> Pod:
    return make_pod(state=RUNNING, phase="Running", **changes)


def waiting_pod(reason: str, message: str = "") -> Pod:
    return make_pod(state={"waiting": {"reason": reason, "message": message}})


def dead_pod(code: int, word: Manifest | str | None = None, *, reason: str = "Error", **changes: Any) -> Pod:
    """A pod that ended with an exit code and a last word."""
    text = word if isinstance(word, str) else json.dumps({"exitCode": code, **(word or {})})
    state = {"terminated": {"exitCode": code, "reason": reason, "message": text}}
    return make_pod(state=state, phase="Failed" if code else "Succeeded", **changes)


def observed(job: Job | None = None, *pods: Pod, **changes: Any) -> Observed:
    return Observed(job=job, pods=pods, **changes)
