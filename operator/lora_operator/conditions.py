"""The conditions of a training, each a pure function of what is seen. Used by `status`."""

import re
from datetime import datetime

from lora_api.redaction import redact
from lora_api.status import Condition, ConditionType, Phase
from lora_operator.diagnosis import diagnose
from lora_operator.evaluated import derive_evaluated
from lora_operator.observed import Pod
from lora_operator.pod_problems import keeps_the_words
from lora_operator.queueing import WAITS, explain_hold, holding_queue
from lora_operator.scheduled import derive_scheduled
from lora_operator.stall import measure_silence
from lora_operator.timestamps import format_time
from lora_operator.view import Finding, View

MESSAGE_CHARACTERS = 2000
MAKING_STEPS = {"Training", "Sampling", "Saving", "Measuring"}
"""What a trainer does between its first and its last step."""
_DATA_FAILURES = {"InvalidDataset", "AccessDenied"}
_FETCHING = {"Downloading", "CheckingData"}
STALLED = "Stalled"
EVALUATING = "Evaluating"
_UNSAFE = re.compile(r"[^A-Za-z0-9_]")


def derive_conditions(view: View, *, previous: tuple[Condition, ...], generation: int) -> tuple[Condition, ...]:
    """All conditions, in the order of the API; the time of the last transition is kept while the status is."""
    before = {condition.type: condition for condition in previous}
    findings = {
        ConditionType.ACCEPTED: _accepted(view),
        ConditionType.DATASET_READY: _dataset_ready(view, before.get(ConditionType.DATASET_READY)),
        ConditionType.SCHEDULED: _scheduled(view, before.get(ConditionType.SCHEDULED)),
        ConditionType.RUNNING: derive_running(view, before.get(ConditionType.RUNNING)),
        ConditionType.CHECKPOINT_AVAILABLE: _checkpoint_available(view),
        ConditionType.SUSPENDED: derive_suspended(view),
        ConditionType.SUCCEEDED: _succeeded(view),
        ConditionType.FINISHED: _finished(view),
        ConditionType.EVALUATED: derive_evaluated(view),
        ConditionType.STALLED: _needs_help(view),
    }
    return tuple(
        build_condition(kind, finding, before.get(kind), generation=generation, now=view.now)
        for kind, finding in findings.items()
        if finding is not None
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
    scheduled = next((c.reason for c in conditions if c.type == ConditionType.SCHEDULED), "")
    if scheduled in WAITS:
        return Phase.QUEUED
    at_work = pod is not None and (ConditionType.SCHEDULED in true or pod.answers)
    return Phase.STARTING if at_work else Phase.PENDING


def build_condition(
    kind: str, finding: Finding, before: Condition | None, *, generation: int, now: datetime
) -> Condition:
    kept = before is not None and before.status == finding.status
    return Condition(
        type=kind,
        status=finding.status,
        # A reason may come from a cluster component or from the trainer: keep to the API's alphabet.
        reason=_UNSAFE.sub("", finding.reason)[:128].strip("_0123456789") or "Other",
        # Words of pods, registries and stores may hold signed addresses.
        message=redact(finding.message)[:MESSAGE_CHARACTERS],
        last_transition_time=before.last_transition_time if before and kept else format_time(now),
        observed_generation=generation,
    )


def _accepted(view: View) -> Finding:
    acceptance = view.acceptance
    return Finding("True" if acceptance.accepted else "False", acceptance.reason, acceptance.message)


def _scheduled(view: View, before: Condition | None) -> Finding:
    found = derive_scheduled(view)
    if before is not None and before.reason == found.reason and keeps_the_words(before.message, found.message):
        return Finding(found.status, found.reason, before.message)
    return found


def _dataset_ready(view: View, before: Condition | None) -> Finding:
    check, failure = view.observed.preflight, view.ending.failure if view.ending else None
    only_checked = check is not None and view.observed.job is None
    if failure and (only_checked or (failure.reason in _DATA_FAILURES and view.plan is None)):
        return Finding("False", failure.reason, failure.message)
    if view.is_checking:
        return _being_read(view) or Finding("False", "CheckingData", "the data are checked before a GPU is asked for")
    # A plan alone is no proof: the check that told it may have been deleted before its end.
    is_verified = view.observed.job is not None or only_checked or (before is not None and before.status == "True")
    if view.plan is not None and is_verified:
        regularization = view.plan.regularization_images
        text = f"{view.plan.images} pictures and {regularization} of the regularisation class"
        return Finding("True", "Verified", text)
    if only_checked:
        return Finding("True", "Verified", "the data were checked")
    return _being_read(view) or Finding("Unknown", "NotChecked", "the trainer has not read the pictures yet")


def _being_read(view: View) -> Finding | None:
    report = view.report
    if report is None or report.reason not in _FETCHING:
        return None
    return Finding("False", report.reason, report.message or "pictures and base model are being fetched")


def derive_running(view: View, before: Condition | None) -> Finding:
    if view.ending:
        return Finding("False", "Finished", "the training has ended")
    pod, report = view.pod, view.report
    taken = next((one for one in view.observed.newest_pods if one.is_disrupted and not one.is_over), None)
    if taken is not None and (cause := diagnose(taken)):
        return Finding("False", cause.reason, cause.message)
    if pod is None or not pod.answers:
        return Finding("False", "NotStarted", "no pod is running")
    if (stalled := _stalled(view, pod)) is not None:
        return stalled
    if report is None:
        return Finding("False", "Starting", f"pod {pod.name} runs and has not answered yet")
    # Pictures are drawn between the steps, and after the last one for the evaluation.
    if report.reason == EVALUATING or (before and before.reason == EVALUATING and report.reason in MAKING_STEPS):
        return Finding("True", EVALUATING, report.message or "the epochs are compared")
    if report.reason not in MAKING_STEPS:
        return Finding("False", report.reason, report.message or report.reason)
    return Finding("True", "Training", "steps are being made")


def _stalled(view: View, pod: Pod) -> Finding | None:
    report, training = view.report, view.training
    wish = training.spec.limits.stall_seconds if training is not None else None
    silence = measure_silence(report, running_since=pod.running_since, stall_seconds=wish, now=view.now)
    if silence is not None and silence.is_too_long:
        doing = f" while {report.reason}" if report is not None else ""
        text = f"pod {pod.name} has given no sign of life since {silence.since}{doing}"
        cure = "see its log; if it does not end by itself, delete it, and the next one goes on from the newest state"
        return Finding("False", STALLED, f"{text}, longer than the {silence.patience_seconds} s that are usual; {cure}")
    if report is not None and report.reason == STALLED:
        return Finding("False", STALLED, report.message or f"pod {pod.name} says that it hangs")
    return None


def _checkpoint_available(view: View) -> Finding:
    if not view.checkpoints:
        return Finding("False", "NoneYet", "no adapter is stored yet")
    newest = view.checkpoints[-1]
    return Finding("True", "Verified", f"epoch {newest.epoch}: {newest.uri}")


def derive_suspended(view: View) -> Finding:
    wanted = view.training is not None and view.training.spec.suspend
    if view.ending or not (wanted or (view.job and view.job.suspend)):
        return Finding("False", "NotSuspended", "the training is not paused")
    if not wanted and (queue := holding_queue(view)) is not None:
        return explain_hold(queue)
    is_stopped = view.job is None or view.job.is_suspended or view.job.end is not None
    pods = view.observed.job_pods if view.observed.job else view.observed.pods
    if is_stopped and all(pod.is_over for pod in pods):
        return Finding("True", "UserRequested", "paused by spec.suspend; set it to false to go on")
    return Finding("False", "Suspending", "the pod saves its state and stops")


def _succeeded(view: View) -> Finding:
    if view.ending is None:
        return Finding("Unknown", *_in_progress(view))
    return Finding("True" if view.ending.succeeded else "False", view.ending.reason, view.ending.message)


def _finished(view: View) -> Finding:
    if view.ending is None:
        return Finding("False", *_in_progress(view))
    if view.ending.succeeded:
        return Finding("True", "Succeeded", view.ending.message)
    return Finding("True", "Failed", f"{view.ending.reason}: {view.ending.message}")


def _needs_help(view: View) -> Finding | None:
    """Why nothing goes on; None: it does, or has ended well, and the condition is absent
    (github.com/kubernetes-sigs/cli-utils/tree/master/pkg/kstatus)."""
    if view.ending is not None:
        return None if view.ending.succeeded else Finding("True", view.ending.reason, view.ending.message)
    accepted = view.acceptance
    return None if accepted.accepted else Finding("True", accepted.reason, accepted.message)


def _in_progress(view: View) -> tuple[str, str]:
    """Reason and message until the end."""
    if view.is_cancelled:
        return "Cancelling", "spec.cancel is set: the pod saves its state and stops"
    return "InProgress", "the training has not ended"
