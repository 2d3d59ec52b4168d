"""What the end of one pod means: reason, message, hint, end of the log; pure. Used by `outcome` and `scheduled`.

What Kubernetes writes: kubernetes.io/docs/concepts/workloads/pods/disruptions/#pod-disruption-conditions (reasons of
DisruptionTarget), pkg/kubelet/eviction/{helpers,eviction_manager}.go (words of evictions; a pod that fills its own
volume gets no DisruptionTarget, so its Job counts the failure).
"""

import signal

from lora_api import ExitCode, codes_with, names, outcome_of
from lora_api.redaction import redact
from lora_api.status import Failure
from lora_operator.observed import Pod, Terminated

HOST_OUT_OF_MEMORY = "HostOutOfMemory"
EVICTED = "Evicted"
NODE_LOST = "NodeLost"
PREEMPTED = "Preempted"
CANCELLED = "Cancelled"
MESSAGE_CHARACTERS = 2000
LAST_LINE_CHARACTERS = 300
LOG_TAIL_CHARACTERS = 2000
"""What `Failure.logTail` holds at most."""
NO_WORDS = "it left no message"

_DISRUPTIONS = {
    "PreemptionByScheduler": (PREEMPTED, "gave way to a pod of higher priority"),
    "DeletionByTaintManager": (NODE_LOST, "was given up, because its node {node} does not answer or was tainted"),
    "DeletionByPodGC": (NODE_LOST, "was lost with its node {node}"),
    "EvictionByEvictionAPI": (EVICTED, "was evicted on request, as `kubectl drain` does"),
    "TerminationByKubelet": (EVICTED, "was evicted from node {node}"),
}
_EVICTION_HINTS = (
    ('EmptyDir volume "work"', "Raise workVolumeSize of the profile: base model and pictures must fit."),
    ('EmptyDir volume "shared-memory"', "Raise spec.pod.sharedMemory, or lower spec.dataset.workers."),
    ("ephemeral", "Raise spec.pod.resources.limits.ephemeral-storage: base model and pictures must fit."),
    ("memory", "Ask for what it needs by spec.pod.resources.requests.memory, so that a larger node is chosen."),
    ("disk", "The node's disk is full; set spec.pod.resources.requests.ephemeral-storage, or free space on the node."),
)


def diagnose(pod: Pod) -> Failure | None:
    """Why the pod failed; None when it did not, or when nothing tells."""
    if pod.phase == "Succeeded" or not (pod.is_over or pod.disruption or pod.terminated):
        return None
    ended = pod.terminated
    if pod.disruption is not None:
        return _disrupted(pod)
    if pod.reason == EVICTED and not (ended and ended.exit_code in codes_with("FailJob")):
        return _evicted(pod)
    if ended is None:
        return _rejected(pod)
    if ended.reason == "OOMKilled" or ended.exit_code == ExitCode.KILLED:
        return _killed(pod, ended)
    if ended.message is not None and ended.message.reason == outcome_of(ExitCode.KILLED).reason:
        # The trainer lived long enough to say that this machine gave it no more memory.
        return _failure(HOST_OUT_OF_MEMORY, describe(ended), _memory_hint(pod), ended)
    return _ended(ended)


def describe(terminated: Terminated) -> str:
    """What went wrong, in the trainer's words or, if it left none, by the last line of its log."""
    if terminated.message is not None and terminated.message.message:
        return redact(terminated.message.message)[:MESSAGE_CHARACTERS]
    last_line = redact(terminated.text.strip().rpartition("\n")[2])[-LAST_LINE_CHARACTERS:]
    return f"the trainer ended with {_exit(terminated.exit_code)}: {last_line or NO_WORDS}"


def _exit(code: int) -> str:
    try:
        return f"exit code {code} ({signal.Signals(code - 128).name})"
    except ValueError:
        return f"exit code {code}"


def _log_tail(terminated: Terminated | None) -> str:
    """The end of the log, by whole lines if there are any."""
    if terminated is None:
        return ""
    text = terminated.message.log_tail if terminated.message is not None else terminated.text
    text = redact(text.strip())
    if len(text) <= LOG_TAIL_CHARACTERS:
        return text
    cut = text[-LOG_TAIL_CHARACTERS:]
    return cut.partition("\n")[2] or cut


def _failure(reason: str, message: str, hint: str, ended: Terminated | None) -> Failure:
    told = ended.message if ended is not None else None
    code = ended.exit_code if ended is not None and -1 <= ended.exit_code <= 255 else None
    return Failure(
        reason=reason,
        exit_code=code,
        step=told.step if told is not None else None,
        message=message[:MESSAGE_CHARACTERS],
        hint=redact(hint),
        log_tail=_log_tail(ended),
    )


def _disrupted(pod: Pod) -> Failure:
    assert pod.disruption is not None
    reason, words = _DISRUPTIONS.get(pod.disruption.reason, (EVICTED, "was taken away by the cluster"))
    said = redact(pod.disruption.message.strip().rstrip(".")) or pod.disruption.reason
    message = f"pod {pod.name} {words.format(node=pod.node or 'unknown')}: {said}"
    hint = _eviction_hint(pod.disruption.message) if pod.disruption.reason == "TerminationByKubelet" else ""
    return _failure(reason, message, hint, pod.terminated)


def _evicted(pod: Pod) -> Failure:
    said = redact(pod.words.partition(": ")[2].strip().rstrip(".")) or NO_WORDS
    message = f"the kubelet of node {pod.node or 'unknown'} evicted pod {pod.name}: {said}"
    return _failure(EVICTED, message, _eviction_hint(said), pod.terminated)


def _eviction_hint(words: str) -> str:
    return next((hint for part, hint in _EVICTION_HINTS if part in words), "See the events of the pod and its node.")


def _rejected(pod: Pod) -> Failure | None:
    """The kubelet may refuse a pod that the scheduler gave it, such as when a GPU has just failed."""
    if not pod.words:
        return None
    message = f"node {pod.node or 'unknown'} refused pod {pod.name}: {redact(pod.words)}"
    return _failure("PodRejected", message, "Is the node well? See its device plugin: `kubectl describe node`.", None)


def _killed(pod: Pod, ended: Terminated) -> Failure:
    if ended.reason != "OOMKilled" and pod.was_stopped:
        outcome = outcome_of(ExitCode.KILLED)
        message = f"pod {pod.name} was told to stop and had not ended when its grace period was over"
        hint = "What was not saved is made again; raise terminationGracePeriodSeconds of the profile."
        return _failure(outcome.reason, message, hint, ended)
    limit = pod.memory_limit
    if ended.reason == "OOMKilled" and limit:
        message = f"the trainer needed more memory than its limit of {limit} and was killed"
    else:
        known = f"its own limit is {limit}" if limit else "it has no limit of its own"
        why = "most often because the node has no memory left"
        message = f"the trainer was killed ({_exit(ended.exit_code)}), {why}; {known}"
    return _failure(HOST_OUT_OF_MEMORY, message, _memory_hint(pod), ended)


def _memory_hint(pod: Pod) -> str:
    checks = pod.stage == names.STAGE_PREFLIGHT
    field = "preflightPod.resources.limits.memory of the profile" if checks else "spec.pod.resources.limits.memory"
    lower = "dataset.workers" if checks else "dataset.workers, dataset.latentCache"
    now = pod.memory_limit or "none"
    return f"Raise {field} (now {now}) and requests.memory, or lower what is held in memory: {lower}."


def _ended(ended: Terminated) -> Failure:
    outcome = outcome_of(ended.exit_code)
    hint = (ended.message.hint if ended.message is not None else "") or outcome.hint
    return _failure(outcome.reason, describe(ended), hint, ended)
