"""How long pods that have to end may still save and speak; pure. Used by `status` and `reconcile`.

The API server dates a deletion ahead by the grace period, so a deletionTimestamp says when the pod must be gone
(kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-termination). On a dead node nobody carries that out, and
the pod is told to be running for ever.
"""

import math
from collections.abc import Iterable
from datetime import datetime, timedelta

from lora_operator.observed import Pod, parse_time

KUBELET_PATIENCE_SECONDS = 60.0
"""A kubelet that has not told of the end so long after it was due is not there: the control plane itself calls a node
lost after 50 s of silence (--node-monitor-grace-period)."""


def seconds_to_save(pods: Iterable[Pod], *, since: str | None, now: datetime) -> float:
    """For how long the end of these pods is to be waited for; 0: all have ended, or will never say so.

    `since`: when their Job began to stop them; None: it is gone, and whoever was not told to stop yet still will be.
    """
    return max((_seconds_left(pod, since, now) for pod in pods if not pod.is_over), default=0.0)


def _seconds_left(pod: Pod, since: str | None, now: datetime) -> float:
    if pod.deletion_time is not None:
        due = parse_time(pod.deletion_time)
    elif since is not None:
        due = parse_time(since) + timedelta(seconds=pod.grace_seconds)
    else:
        return math.inf
    return max(0.0, KUBELET_PATIENCE_SECONDS + (due - now).total_seconds())
