"""The conditions of a training, each a pure function of what is seen. Used by `status`."""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from lora_api import LoraTraining, ProgressReport, outcome_of
from lora_api.status import Artifacts, Checkpoint, Condition, ConditionType, Phase, Plan, Progress
from lora_operator.observed import Job, Observed, Pod, Waiting, format_time, parse_time
from lora_operator.outcome import Ending, describe

MESSAGE_CHARACTERS = 2000
STALLED_AFTER = timedelta(minutes=15)
"""Longer than any step, sample sheet or upload should take."""
IMAGE_REASONS = {
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "ImageInspectError",
    "RegistryUnavailable",
    "SignatureValidationFailed",
}
CONTAINER_REASONS = {"CreateContainerError", "RunContainerError", "InvalidContainerConfig", "StartError"}
MAKING_STEPS = {"Training", "Sampling", "Saving"}
"""What a trainer does between its first and its last step."""
_MISSING_SECRET = re.compile(r'secret "([^"]+)" not found')
_MISSING_SECRET_KEY = re.compile(r"couldn't find key (\S+) in Secret (\S+)")
_UNSAFE = re.compile(r"[^A-Za-z0-9_]")

Truth = Literal["True", "False", "Unknown"]


@dataclass(frozen=True)
class Acceptance:
    """Whether the spec can be carried out."""

    accepted: bool
    reason: str
    message: str


ACCEPTED = Acceptance(True, "Valid", "the spec can be carried out")


@dataclass(frozen=True)
class View:
    """Everything that conditions are derived from."""

    acceptance: Acceptance
    training: LoraTraining | None
    observed: Observed
    report: ProgressReport | None
    """What the trainer said last, dead or alive."""
    ending: Ending | None
    plan: Plan | None
    progress: Progress | None
    checkpoints: tuple[Checkpoint, ...]
    artifacts: Artifacts | None
    now: datetime

    @property
    def job(self) -> Job | None:
        return self.observed.job

    @property
    def pod(self) -> Pod | None:
        return self.observed.pod


@dataclass(frozen=True)
class _Finding:
    status: Truth
    reason: str
    message: str


def derive_conditions(view: View, *, previous: tuple[Condition, ...], generation: int) -> tuple[Condition, ...]:
    """All conditions, in the order of the API; the time of the last transition is kept while the status is."""
    findings = {
        ConditionType.ACCEPTED: _accepted(view),
        ConditionType.DATASET_READY: _dataset_ready(view),
        ConditionType.SCHEDULED: _scheduled(view),
        ConditionType.RUNNING: _running(view),
        ConditionType.CHECKPOINT_AVAILABLE: _checkpoint_available(view),
        ConditionType.SUSPENDED: _suspended(view),
        ConditionType.SUCCEEDED: _succeeded(view),
        ConditionType.FINISHED: _finished(view),
    }
    before = {condition.type: condition for condition in previous}
    return tuple(
        _condition(kind, finding, before.get(kind), generation=generation, now=view.now)
        for kind, finding in findings.items()
    )


def derive_phase(conditions: tuple[Condition, ...], pod: Pod | None) -> Phase:
    """One word for people."""
    true = {condition.type for condition in conditions if condition.status == "True"}
    if ConditionType.FINISHED in true:
        return Phase.SUCCEEDED if ConditionType.SUCCEEDED in true else Phase.FAILED
    if ConditionType.SUSPENDED in true:
        return Phase.SUSPENDED
    if ConditionType.RUNNING in true:
        return Phase.RUNNING
    return Phase.STARTING if ConditionType.SCHEDULED in true and pod is not None else Phase.PENDING


def _condition(kind: str, finding: _Finding, before: Condition | None, *, generation: int, now: datetime) -> Condition:
    kept = before is not None and before.status == finding.status
    return Condition(
        type=kind,
        status=finding.status,
        # A reason may come from a cluster component or from the trainer: keep to the API's alphabet.
        reason=_UNSAFE.sub("", finding.reason)[:128].strip("_0123456789") or "Other",
        message=finding.message[:MESSAGE_CHARACTERS],
        last_transition_time=before.last_transition_time if before and kept else format_time(now),
        observed_generation=generation,
    )


def _accepted(view: View) -> _Finding:
    acceptance = view.acceptance
    return _Finding("True" if acceptance.accepted else "False", acceptance.reason, acceptance.message)


def _dataset_ready(view: View) -> _Finding:
    plan, failure = view.plan, view.ending.failure if view.ending else None
    if failure and failure.reason in {"InvalidDataset", "AccessDenied"} and plan is None:
        return _Finding("False", failure.reason, failure.message)
    if plan is not None:
        text = f"{plan.images} pictures and {plan.regularization_images} of the regularisation class"
        return _Finding("True", "Verified", text)
    if view.report is not None and view.report.reason == "Downloading":
        return _Finding("False", "Downloading", view.report.message or "pictures and base model are being fetched")
    return _Finding("Unknown", "NotChecked", "the trainer has not read the pictures yet")


def _scheduled(view: View) -> _Finding:
    if view.ending:
        return _Finding("False", "Finished", "the training has ended")
    if view.observed.refusal:
        return _Finding("False", "JobRefused", f"the API server refuses it: {view.observed.refusal}")
    if view.job is None:
        return _no_job(view)
    if view.job.suspend:
        return _Finding("False", "Suspended", "no pods while the training is suspended")
    pod = view.pod
    if pod is None:
        return _Finding("Unknown", "WaitingForPod", f"Job {view.job.name} has no pod yet")
    if pod.is_over:
        return _Finding("False", "Retrying", _why_again(pod))
    if pod.unschedulable:
        return _Finding("False", "Unschedulable", pod.unschedulable)
    if not pod.node:
        return _Finding("Unknown", "WaitingForScheduler", f"pod {pod.name} has no node yet")
    if pod.waiting and (blocked := _blocked(pod.waiting, view.training)):
        return blocked
    return _Finding("True", "Scheduled", f"pod {pod.name} is bound to node {pod.node}")


def _no_job(view: View) -> _Finding:
    if not view.acceptance.accepted:
        return _Finding("Unknown", "NotAccepted", "the spec cannot be carried out")
    if view.observed.pods:
        newest = view.observed.pods[-1].name
        return _Finding("False", "WaitingForPods", f"pod {newest} of an earlier Job is not gone yet")
    return _Finding("Unknown", "Creating", "the Job is being created")


def _why_again(pod: Pod) -> str:
    if pod.terminated is None:
        return f"pod {pod.name} ended ({pod.words or pod.phase}); the Job starts another one"
    reason = outcome_of(pod.terminated.exit_code).reason
    return f"pod {pod.name} ended with {reason}: {describe(pod.terminated)}; the Job starts another one"


def _blocked(waiting: Waiting, training: LoraTraining | None) -> _Finding | None:
    """What keeps a bound pod from starting, if it is more than a matter of time."""
    if waiting.reason in IMAGE_REASONS:
        return _Finding("False", "ImagePullFailed", f"{waiting.reason}: {waiting.message}")
    if waiting.reason in CONTAINER_REASONS:
        return _Finding("False", "ContainerFailed", waiting.message or waiting.reason)
    if waiting.reason not in {"CreateContainerConfigError", "FailedMount"}:
        return None
    if missing := _MISSING_SECRET.search(waiting.message):
        name = missing.group(1)
        text = f"Secret {name}{_named_by(name, training)} does not exist; create it and the pod starts by itself"
        return _Finding("False", "SecretMissing", text)
    if missing := _MISSING_SECRET_KEY.search(waiting.message):
        key, place = missing.groups()
        text = f"Secret {place.rsplit('/', 1)[-1]} has no key {key}; add it and the pod starts by itself"
        return _Finding("False", "SecretMissing", text)
    return _Finding("False", "PodConfigFailed", waiting.message)


def _named_by(secret: str, training: LoraTraining | None) -> str:
    """The field that names a Secret, as ` (spec.storage.credentialsSecretRef)`."""
    if training is None:
        return ""
    spec = training.spec
    credentials, token = spec.storage.credentials_secret_ref, spec.base_model.token_secret_ref
    if credentials and credentials.name == secret:
        return " (spec.storage.credentialsSecretRef)"
    if token and token.name == secret:
        return " (spec.baseModel.tokenSecretRef)"
    return ""


def _running(view: View) -> _Finding:
    if view.ending:
        return _Finding("False", "Finished", "the training has ended")
    pod, report = view.pod, view.report
    if pod is None or not pod.is_running:
        return _Finding("False", "NotStarted", "no pod is running")
    if report is None:
        return _Finding("False", "Starting", f"pod {pod.name} runs and has not answered yet")
    if report.reason not in MAKING_STEPS:
        return _Finding("False", report.reason, report.message or report.reason)
    if (silent := _silent_since(view)) is not None:
        return _Finding("False", "Stalled", f"no step was reported since {silent}; see the pod's log")
    return _Finding("True", "Training", "steps are being made")


def _silent_since(view: View) -> str | None:
    updated = view.progress.updated_time if view.progress else None
    return updated if updated and view.now - parse_time(updated) > STALLED_AFTER else None


def _checkpoint_available(view: View) -> _Finding:
    if not view.checkpoints:
        return _Finding("False", "NoneYet", "no adapter is stored yet")
    newest = view.checkpoints[-1]
    return _Finding("True", "Verified", f"epoch {newest.epoch}: {newest.uri}")


def _suspended(view: View) -> _Finding:
    wanted = view.training is not None and view.training.spec.suspend
    if view.ending or not (wanted or (view.job and view.job.suspend)):
        return _Finding("False", "NotSuspended", "the training is not paused")
    if view.job and view.job.is_suspended and all(pod.is_over for pod in view.observed.job_pods):
        return _Finding("True", "UserRequested", "paused by spec.suspend; set it to false to go on")
    return _Finding("False", "Suspending", "the pod saves its state and stops")


def _succeeded(view: View) -> _Finding:
    if view.ending is None:
        return _Finding("Unknown", "InProgress", "the training has not ended")
    return _Finding("True" if view.ending.succeeded else "False", view.ending.reason, view.ending.message)


def _finished(view: View) -> _Finding:
    if view.ending is None:
        return _Finding("False", "InProgress", "the training has not ended")
    if view.ending.succeeded:
        return _Finding("True", "Succeeded", view.ending.message)
    return _Finding("True", "Failed", f"{view.ending.reason}: {view.ending.message}")
