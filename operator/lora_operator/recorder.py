"""Writes events that `kubectl describe` shows; repeats of one are counted, not multiplied. Used by `controller`."""

import hashlib
from datetime import UTC, datetime

from lora_api import names
from lora_operator.changes import Event
from lora_operator.cluster import EVENTS, Cluster
from lora_operator.subject import Manifest, Subject
from lora_operator.timestamps import format_time

MESSAGE_CHARACTERS = 1000
"""Kubernetes keeps 1024 characters of a message."""


class EventRecorder:
    """Sends events about trainings."""

    def __init__(self, cluster: Cluster, identity: str) -> None:
        self._cluster = cluster
        self._identity = identity

    async def record(self, subject: Subject, event: Event) -> None:
        """Creates the event, or counts it if it is there. Raises the errors of `cluster`."""
        manifest = build_event(subject, event, identity=self._identity, now=datetime.now(UTC))
        if await self._cluster.create(EVENTS, manifest) is not None:
            return
        name = manifest["metadata"]["name"]
        known = await self._cluster.get(EVENTS, subject.key.namespace, name)
        if known is None:
            return
        patch = {"count": (known.get("count") or 1) + 1, "lastTimestamp": manifest["lastTimestamp"]}
        await self._cluster.patch(EVENTS, subject.key.namespace, name, patch)


def build_event(subject: Subject, event: Event, *, identity: str, now: datetime) -> Manifest:
    """The event; its name follows from what it says, so that the same thing said twice is one event."""
    content = "\0".join((subject.uid, event.type, event.reason, event.message))
    digest = hashlib.sha256(content.encode()).hexdigest()[:16]
    moment = format_time(now)
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{subject.key.name}.{digest}", "namespace": subject.key.namespace},
        "involvedObject": {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND,
            "namespace": subject.key.namespace,
            "name": subject.key.name,
            "uid": subject.uid,
            "resourceVersion": subject.resource_version,
        },
        "type": event.type,
        "reason": event.reason,
        "message": event.message[:MESSAGE_CHARACTERS],
        "source": {"component": names.MANAGER},
        "reportingComponent": names.MANAGER,
        "reportingInstance": identity,
        "firstTimestamp": moment,
        "lastTimestamp": moment,
        "count": 1,
    }
