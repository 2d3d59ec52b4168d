"""How much time a training has left to start and to run; pure. Used by `status`, `attempts`, `reconcile`."""

from datetime import datetime, timedelta

from lora_api import LoraTrainingSpec
from lora_api.status import Attempts
from lora_operator.observed import parse_time

JOB_PATIENCE_SECONDS = 10.0
"""The Job's own deadline comes first, and leaves it in place; a Job that a queue restarts has none that fits."""


def seconds_to_run(spec: LoraTrainingSpec, attempts: Attempts, now: datetime) -> float | None:
    """Running time left of `limits.activeSeconds`, negative when it is over; None: no limit."""
    if spec.limits.active_seconds is None:
        return None
    used = float(attempts.active_seconds)
    if attempts.active_since is None:
        return spec.limits.active_seconds - used
    used += (now - parse_time(attempts.active_since)).total_seconds()
    return spec.limits.active_seconds - used + JOB_PATIENCE_SECONDS


def is_time_over(spec: LoraTrainingSpec, attempts: Attempts, now: datetime) -> bool:
    """Whether the training has had all of its running time; never in a pause, for its limit can still be raised."""
    left = seconds_to_run(spec, attempts, now)
    return left is not None and left <= 0 and not spec.suspend


def seconds_to_start(spec: LoraTrainingSpec, attempts: Attempts, now: datetime) -> float | None:
    """Time left of `scheduling.startDeadlineSeconds`, negative when it is over; None: it does not run."""
    limit = spec.scheduling.start_deadline_seconds
    if limit is None or attempts.waiting_since is None:
        return None
    return (parse_time(attempts.waiting_since) + timedelta(seconds=limit) - now).total_seconds()


def seconds_to_next(spec: LoraTrainingSpec, attempts: Attempts, now: datetime) -> float | None:
    """Time until a deadline may be over; None: none is near."""
    running = seconds_to_run(spec, attempts, now) if attempts.active_since else None
    left = [seconds for seconds in (running, seconds_to_start(spec, attempts, now)) if seconds is not None]
    return max(0.0, min(left)) if left else None
