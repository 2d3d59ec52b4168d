"""Whether a trainer has fallen silent for longer than its work explains; pure. Used by `conditions`, `reconcile` and
`evaluation`.

The trainer gives a sign of life for every step, picture and byte, and says how long a silence is usual for what it
does: loading a model takes longer than a step. The operator judges by its own clock, for a process that hangs may not
even say that it does.
"""

from dataclasses import dataclass
from datetime import datetime

from lora_api import ProgressReport
from lora_operator.observed import Observed
from lora_operator.subject import Subject
from lora_operator.timestamps import parse_time

DEFAULT_PATIENCE_SECONDS = 900
"""Longer than any step, picture, file or upload should take."""
_LONGEST_PATIENCE_SECONDS = 86400
"""What pods say is not trusted: none may ask for more patience than a person may."""


@dataclass(frozen=True)
class Silence:
    """For how long nothing was heard, and how long that is usual."""

    since: str
    seconds: float
    patience_seconds: int

    @property
    def is_too_long(self) -> bool:
        """Whether the trainer is called stalled."""
        return self.seconds > self.patience_seconds


def measure_silence(
    report: ProgressReport | None, *, running_since: str | None, stall_seconds: int | None, now: datetime
) -> Silence | None:
    """The silence of a running pod; None: it answers and gives no times, or it is not known since when it runs.

    `stall_seconds`: `spec.limits.stallSeconds`, for trainers that do not say how patient to be.
    """
    since = _last_sign(report) if report is not None else running_since
    if since is None:
        return None
    told = report.patience_seconds if report is not None else None
    patience = min(told or stall_seconds or DEFAULT_PATIENCE_SECONDS, _LONGEST_PATIENCE_SECONDS)
    return Silence(since, (now - parse_time(since)).total_seconds(), patience)


def seconds_to_stall(subject: Subject, observed: Observed, now: datetime) -> float | None:
    """When a running pod that says nothing more will have been silent for too long; None: it does not run, or was."""
    pod = observed.pod
    if pod is None or not (pod.is_running or pod.is_checking):
        return None
    limit = subject.training.spec.limits.stall_seconds if subject.training is not None else None
    silence = measure_silence(observed.report, running_since=pod.running_since, stall_seconds=limit, now=now)
    if silence is None or silence.is_too_long:
        return None
    return silence.patience_seconds - silence.seconds + 1


def _last_sign(report: ProgressReport) -> str | None:
    return report.active_time or (report.progress.updated_time if report.progress else None)
