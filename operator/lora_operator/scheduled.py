"""The condition Scheduled: whether a pod has its place, and if not, why; pure. Used by `conditions`."""

from lora_operator.diagnosis import EVICTED, NODE_LOST, PREEMPTED, diagnose
from lora_operator.observed import Job, Pod
from lora_operator.pod_problems import explain_refused_job, explain_refused_pod, explain_unschedulable, explain_waiting
from lora_operator.queueing import explain_wait, holding_queue
from lora_operator.view import Finding, View

ALL_AGAIN = "all pods of the training start again from the newest state"


def derive_scheduled(view: View) -> Finding:
    """Whether the training's newest pod is bound to a node and can start."""
    if view.ending:
        return Finding("False", "Finished", "the training has ended")
    if view.observed.refusal:
        return explain_refused_job(view.observed.refusal)
    job, pod = view.job, view.pod
    if job is None or (job.end and job is view.observed.preflight):
        return _no_job(view)
    if (queue := holding_queue(view)) is not None:
        return explain_wait(queue)
    if job.suspend:
        return Finding("False", "Suspended", "no pods while the training is suspended")
    if job.is_gang:
        return _all_placed(view, job)
    return _one_placed(view, job, pod)


def _one_placed(view: View, job: Job, pod: Pod | None) -> Finding:
    if pod is None:
        refused = view.observed.pod_refusal
        return (
            explain_refused_pod(refused)
            if refused
            else _awaited(view, f"Job {job.name} has no pod yet", "WaitingForPod")
        )
    if pod.disruption is not None or pod.phase == "Failed":
        return _why_again(pod)
    return _placed(view, pod)


def _all_placed(view: View, job: Job) -> Finding:
    """Whether all pods that train together have their places: none of them can begin without the others."""
    by_index = {pod.index: pod for pod in view.observed.newest_pods}
    found = [_one_placed(view, job, by_index.get(index)) for index in range(job.nodes)]
    placed = sum(one.status == "True" for one in found)
    if placed == job.nodes:
        nodes = ", ".join(sorted({pod.node for pod in by_index.values()}))
        return Finding("True", "Scheduled", f"all {job.nodes} pods of Job {job.name} are bound: {nodes}")
    # What takes pods away says more than what keeps others from coming, and both more than what only takes time.
    worst = min(found, key=lambda one: ("False", "Unknown", "True").index(one.status))
    return Finding(worst.status, worst.reason, f"{worst.message} ({placed} of {job.nodes} pods have their place)")


def _no_job(view: View) -> Finding:
    if not view.acceptance.accepted:
        return Finding("Unknown", "NotAccepted", "the spec cannot be carried out")
    live = [pod for pod in view.observed.pods if not pod.is_over]
    if (failed := view.observed.failed_job) is not None and not live:
        return _next_attempt(view, failed)
    if live:
        return Finding("False", "WaitingForPods", f"pod {live[-1].name} of an earlier Job is not gone yet")
    if view.training is not None and view.training.spec.suspend:
        return Finding("False", "Suspended", "no pods while the training is suspended")
    return Finding("Unknown", "Creating", "the Job is being created")


def _next_attempt(view: View, failed: Job) -> Finding:
    """What ended the last attempt of pods that train together."""
    cause = view.observed.gang_failure
    failure = diagnose(cause) if cause is not None else None
    what = "was interrupted" if failure is None else f"ended with {failure.reason}: {failure.message}"
    return Finding("False", "Retrying", f"a pod of Job {failed.name} {what}; {ALL_AGAIN}")


def _placed(view: View, pod: Pod) -> Finding:
    if pod.unschedulable:
        found = explain_unschedulable(pod.unschedulable, view.training)
        return Finding(found.status, found.reason, found.message + _before(view))
    if not pod.node:
        return _awaited(view, f"pod {pod.name} has no node yet", "WaitingForScheduler")
    if pod.waiting and (blocked := explain_waiting(pod.waiting, view.training)):
        return blocked
    if view.is_checking and pod is view.pod and view.observed.job is None:
        return Finding("Unknown", "CheckingData", f"pod {pod.name} checks the data; a GPU is asked for after that")
    return Finding("True", "Scheduled", f"pod {pod.name} is bound to node {pod.node}")


def _awaited(view: View, what: str, reason: str) -> Finding:
    """A pod that only needs time; what took the pod before away stays told until the next one has its place."""
    before = _previous(view)
    if before is not None and before.disruption is not None and (cause := diagnose(before)):
        return Finding("False", _disruption_reason(cause.reason), f"{cause.message}; {what}")
    return Finding("Unknown", reason, what)


def _previous(view: View) -> Pod | None:
    pods = [pod for pod in view.observed.job_pods if pod.index == 0 and (view.pod is None or pod.uid != view.pod.uid)]
    return pods[-1] if pods else None


def _before(view: View) -> str:
    before = _previous(view)
    cause = diagnose(before) if before is not None else None
    return f". Before: {cause.message}" if cause is not None else ""


def _why_again(pod: Pod) -> Finding:
    """Why a pod ended or is about to; its Job waits until it is gone, and goes on."""
    again = ALL_AGAIN if pod.has_peers else "the Job starts another one"
    cause = diagnose(pod)
    if cause is None:
        return Finding("False", "Retrying", f"pod {pod.name} ended ({pod.words or pod.phase}); {again}")
    if pod.disruption is not None:
        cure = f". {cause.hint}" if cause.hint else ""
        return Finding("False", _disruption_reason(cause.reason), f"{cause.message}; {again}{cure}")
    return Finding("False", "Retrying", f"pod {pod.name} ended with {cause.reason}: {cause.message}; {again}")


def _disruption_reason(reason: str) -> str:
    return reason if reason in {EVICTED, NODE_LOST, PREEMPTED} else "Retrying"
