"""Whether the spec of a training can be carried out; pure. Used by `reconcile` and `evaluation`."""

from lora_operator import manifests
from lora_operator.observed import Observed
from lora_operator.profiles import Profiles
from lora_operator.subject import Subject
from lora_operator.view import ACCEPTED, Acceptance


def judge(subject: Subject, observed: Observed, profiles: Profiles) -> Acceptance:
    """The answer, with what to correct."""
    if subject.training is None:
        return Acceptance(False, "InvalidSpec", subject.problem)
    wanted = subject.training.spec.profile
    if wanted not in profiles:
        known = ", ".join(sorted(profiles))
        message = f"spec.profile is {wanted}, but the operator has no such profile; use one of {known}, or add it"
        return Acceptance(False, "ProfileNotFound", message)
    profile = profiles[wanted]
    if observed.current_job is None and (
        size := manifests.oversize(manifests.resolve(subject.training, profile), profile)
    ):
        most = manifests.MAX_ANNOTATION_BYTES
        message = (
            f"the spec and the pod's annotations are {size} bytes, but pods can carry at most {most}; "
            "shorten the longest texts, such as spec.samples.prompts and spec.pod.annotations"
        )
        return Acceptance(False, "SpecTooLarge", message)
    return ACCEPTED
