"""How much time is left: for a training to start and to run, for its pods to end; pure. Used by `status`, `reconcile`.

The API server dates the deletion of a pod ahead by its grace period: its deletionTimestamp says when it must be gone
(kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-termination). On a dead node nobody carries that out, and
the pod is told to be running for ever.
"""

import math
from collections.abc import Iterable
from datetime import datetime, timedelta

from lora_api import LoraTrainingSpec
from lora_api.status import Attempts
from lora_operator.attempts import seconds_to_run
from lora_operator.observed import Pod
from lora_operator.timestamps import parse_time

KUBELET_PATIENCE_SECONDS = 60.0
"""A kubelet that has not told of the end so long after it was due is not there: the control plane itself calls a node
lost after 50 s of silence (--node-monitor-grace-period)."""


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


def seconds_to_save(pods: Iterable[Pod], *, since: str | None, now: datetime) -> float:
    """For how long the end of these pods is to be waited for; 0: all have ended, or will never say so.

    `since`: when their Job began to stop them; None: it is gone, and whoever was not told to stop yet still will be.
    """
    return max((_seconds_to_end(pod, since, now) for pod in pods if not pod.is_over), default=0.0)


def _seconds_to_end(pod: Pod, since: str | None, now: datetime) -> float:
    if pod.deletion_time is not None:
        due = parse_time(pod.deletion_time)
    elif since is not None:
        due = parse_time(since) + timedelta(seconds=pod.grace_seconds)
    else:
        return math.inf
    return max(0.0, KUBELET_PATIENCE_SECONDS + (due - now).total_seconds())
