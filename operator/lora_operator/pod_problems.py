"""What keeps a pod from starting that only a person can change: in the cluster's words, with the field and the cure;
pure. Used by `scheduled`.

Words come from the scheduler (PodScheduled), the kubelet (the waiting reason; FailedMount events, for volumes) and the
Job controller (FailedCreate events, for pods that the API server refuses).
"""

import re

from lora_api import LoraTraining
from lora_operator.observed import Waiting
from lora_operator.outcome import WILL_START
from lora_operator.references import Kind, Reference, references_of
from lora_operator.view import Finding

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
_BACK_OFF = re.compile(r'^Back-off pulling image "[^"]*"(?:: ErrImagePull: )?')
_NOT_FOUND = re.compile(r'\b(secret|configmap|persistentvolumeclaim) "([^"]+)" not found')
_KEY_NOT_FOUND = re.compile(r"couldn't find key (\S+) in (Secret|ConfigMap) \S*?([^/\s]+)$")
_VOLUME_KEY_NOT_FOUND = re.compile(r"references non-existent (secret|config) key: (\S+)")
_KINDS: dict[str, Kind] = {
    "secret": "Secret",
    "config": "ConfigMap",
    "configmap": "ConfigMap",
    "persistentvolumeclaim": "PersistentVolumeClaim",
}
_NO_CAUSE = "the kubelet tells no cause"


def explain_waiting(waiting: Waiting, training: LoraTraining | None) -> Finding | None:
    """What keeps a bound pod from starting, if it is more than a matter of time."""
    if waiting.reason in IMAGE_REASONS:
        return _image(waiting)
    if waiting.reason in CONTAINER_REASONS:
        return Finding("False", "ContainerFailed", waiting.message or waiting.reason)
    if waiting.reason not in {"CreateContainerConfigError", "FailedMount"}:
        return None
    return _missing(waiting.message, training) or Finding("False", "PodConfigFailed", waiting.message)


def explain_unschedulable(words: str, training: LoraTraining | None) -> Finding:
    """Why the scheduler finds no node: its own words, and what to do where the spec can help."""
    missing = _NOT_FOUND.search(words)
    if missing is not None and missing[1] == "persistentvolumeclaim":
        claim = missing[2]
        cure = f"; create PersistentVolumeClaim {claim}{_fields(training, 'PersistentVolumeClaim', claim)}"
    elif "unbound immediate PersistentVolumeClaims" in words:
        cure = "; a volume claim that the spec names is not bound: see `kubectl get pvc`"
    else:
        cure = ""
    return Finding("False", "Unschedulable", f"{words.rstrip('. ')}{cure}; {WILL_START}")


POD_REFUSALS = {"PodRefused", "QuotaExceeded"}
"""What `explain_refused_pod` may find."""


def explain_refused_pod(words: str) -> Finding:
    """Why the API server refuses the pod that the Job controller wants to create."""
    said = words.removeprefix("Error creating: ")
    return _quota(said) or Finding("False", "PodRefused", f"the API server refuses the pod: {said}")


def explain_refused_job(words: str) -> Finding:
    """Why the API server refuses the Job itself."""
    return _quota(words) or Finding("False", "JobRefused", f"the API server refuses it: {words}")


def _quota(words: str) -> Finding | None:
    if "exceeded quota" not in words and "failed quota" not in words:
        return None
    cure = "free what the quota of this namespace counts, or have it raised"
    return Finding("False", "QuotaExceeded", f"{words}; {cure}; {WILL_START}")


def keeps_the_words(before: str, now: str) -> bool:
    """Whether the older message of a failing image tells more: while it backs off, a kubelet may name no cause."""
    return _NO_CAUSE in now and bool(before) and _NO_CAUSE not in before


def _image(waiting: Waiting) -> Finding:
    words = _BACK_OFF.sub("", waiting.message)
    # One reason for both: kubelets go back and forth between trying and waiting, and nothing changes by that.
    reason = "ErrImagePull" if waiting.reason == "ImagePullBackOff" else waiting.reason
    cure = "check the image (spec.pod.image, else that of the profile) and imagePullSecrets of the profile"
    return Finding("False", "ImagePullFailed", f"{reason}: {words or _NO_CAUSE}; {cure}")


def _missing(words: str, training: LoraTraining | None) -> Finding | None:
    if found := _NOT_FOUND.search(words):
        kind, name = _KINDS[found[1]], found[2]
        return _finding(kind, f"{kind} {name}{_fields(training, kind, name)} does not exist; create it")
    if found := _KEY_NOT_FOUND.search(words):
        key, kind, name = found[1], _KINDS[found[2].lower()], found[3]
        return _finding(kind, f"{kind} {name}{_fields(training, kind, name, key)} has no key {key}; add it")
    if found := _VOLUME_KEY_NOT_FOUND.search(words):
        kind, key = _KINDS[found[1]], found[2]
        named = [one for one in _references(training) if one.kind == kind and one.key == key]
        names = " or ".join(dict.fromkeys(one.name for one in named)) or "that the profile names"
        return _finding(kind, f"{kind} {names}{_listed(named)} has no key {key}; add it")
    return None


def _finding(kind: Kind, message: str) -> Finding:
    reason = {"Secret": "SecretMissing", "ConfigMap": "ConfigMapMissing"}.get(kind, "PodConfigFailed")
    return Finding("False", reason, f"{message}; {WILL_START}")


def _references(training: LoraTraining | None) -> tuple[Reference, ...]:
    return references_of(training) if training is not None else ()


def _fields(training: LoraTraining | None, kind: Kind, name: str, key: str | None = None) -> str:
    """The fields that name an object, as ` (spec.storage.credentialsSecretRef)`."""
    named = [one for one in _references(training) if (one.kind, one.name) == (kind, name)]
    return _listed([one for one in named if one.key == key] or named)


def _listed(named: list[Reference]) -> str:
    fields = ", ".join(one.field for one in named)
    return f" ({fields})" if fields else " (named by the profile)"
