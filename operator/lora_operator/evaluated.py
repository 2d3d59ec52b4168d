"""The condition Evaluated: whether it is known which epoch is best; pure. For `conditions`, `evaluation_status`."""

from lora_api.status import EvaluationStatus
from lora_operator.view import Finding, View

COMPLETED, FAILED = "Completed", "Failed"
"""How an evaluation ends, in the trainer's words (`status.evaluation.reason`)."""
MEASURING = "Measuring"
PENDING = "Pending"
NOT_REQUESTED = "NotRequested"


def derive_evaluated(view: View) -> Finding:
    """What is known while the training goes on, and at its end."""
    found = view.evaluation
    if (end := told_end(found)) is not None:
        return end
    if view.ending is not None and not view.ending.succeeded:
        return Finding("False", "TrainingFailed", "the training failed before its epochs were compared")
    if view.training is not None and view.training.spec.evaluation is None:
        return Finding("False", NOT_REQUESTED, "spec.evaluation is not set")
    if view.ending is not None:
        return Finding("Unknown", PENDING, "the training has ended, and is to be evaluated")
    return Finding("Unknown", MEASURING, (found and found.message) or "no epoch is measured yet")


def told_end(found: EvaluationStatus | None) -> Finding | None:
    """How the evaluation ended, if the trainer says that it has."""
    if found is not None and found.reason == COMPLETED:
        return Finding("True", COMPLETED, found.message or "the epochs are compared")
    if found is not None and found.reason == FAILED:
        return Finding("False", FAILED, found.message or "the evaluation failed")
    return None
