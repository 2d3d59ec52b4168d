"""The last known state of every object that the operator watches. Used by `controller`."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from lora_api import ProgressReport, names
from lora_operator.observed import (
    Job,
    Key,
    Manifest,
    Observed,
    Pod,
    Subject,
    parse_job,
    parse_pod,
    parse_subject,
)

Kind = Literal["training", "job", "pod"]
KINDS: tuple[Kind, ...] = ("training", "job", "pod")


@dataclass(frozen=True)
class _Entry:
    version: int
    """Versions of one collection grow; comparing them is sanctioned since Kubernetes 1.35 and was true before."""
    uid: str
    body: Manifest


@dataclass
class _Family:
    """A training and its children, by name."""

    members: dict[Kind, dict[str, _Entry]] = field(default_factory=lambda: {kind: {} for kind in KINDS})
    report: tuple[str, ProgressReport] | None = None
    """Uid of the pod, and what it said last."""


class Cache:
    """Objects as last seen, by training. Lives on one event loop."""

    def __init__(self) -> None:
        self._families: dict[Key, _Family] = {}

    def __iter__(self) -> Iterator[Key]:
        return iter(tuple(self._families))

    def put(self, kind: Kind, body: Manifest) -> Key | None:
        """Keeps the object, unless this state or a newer one is known; the training to look at, if it is news."""
        key = key_of(kind, body)
        if key is None:
            return None
        meta = body["metadata"]
        # Who set which field is half of an object and of no use here.
        slim = {name: value for name, value in meta.items() if name != "managedFields"}
        entry = _Entry(int(meta["resourceVersion"]), meta["uid"], {**body, "metadata": slim})
        members = self._families.setdefault(key, _Family()).members[kind]
        known = members.get(meta["name"])
        if known is not None and known.uid == entry.uid and known.version >= entry.version:
            return None
        members[meta["name"]] = entry
        return key

    def drop(self, kind: Kind, body: Manifest) -> Key | None:
        """Forgets the object, unless another one has taken its name; the training to look at, if any."""
        key, meta = key_of(kind, body), body["metadata"]
        family = self._families.get(key) if key else None
        if key is None or family is None:
            return None
        known = family.members[kind].get(meta["name"])
        if known is not None and known.uid == meta["uid"]:
            self._remove(key, kind, meta["name"])
        return key

    def drop_name(self, kind: Kind, key: Key, name: str) -> None:
        """Forgets an object that was found to be gone."""
        if key in self._families:
            self._remove(key, kind, name)

    def _remove(self, key: Key, kind: Kind, name: str) -> None:
        family = self._families[key]
        family.members[kind].pop(name, None)
        if not any(family.members.values()):
            del self._families[key]

    def uids(self, kind: Kind) -> set[str]:
        """Uids of all known objects of a kind."""
        return {entry.uid for family in self._families.values() for entry in family.members[kind].values()}

    def prune(self, kind: Kind, gone: set[str]) -> None:
        """Forgets the objects with these uids."""
        found = [
            (key, name)
            for key, family in self._families.items()
            for name, entry in family.members[kind].items()
            if entry.uid in gone
        ]
        for key, name in found:
            self._remove(key, kind, name)

    def subject(self, key: Key) -> Subject | None:
        """The training, or None when it is gone. Raises OperatorError when its status cannot be read."""
        family = self._families.get(key)
        entry = family.members["training"].get(key.name) if family else None
        return parse_subject(entry.body) if entry else None

    def observed(self, subject: Subject) -> Observed:
        """What is known of the training's children."""
        family = self._families[subject.key]
        jobs = sorted(self._jobs(family, subject.uid), key=lambda job: job.attempt)
        found = (parse_pod(entry.body) for entry in family.members["pod"].values())
        pods = sorted(found, key=lambda pod: (pod.created, pod.name))
        observed = Observed(job=jobs[-1] if jobs else None, older_jobs=tuple(jobs[:-1]), pods=tuple(pods))
        pod = observed.pod
        if family.report is None or pod is None or family.report[0] != pod.uid:
            return observed
        return Observed(observed.job, observed.older_jobs, observed.pods, family.report[1])

    def _jobs(self, family: _Family, owner_uid: str) -> Iterator[Job]:
        for entry in family.members["job"].values():
            job = parse_job(entry.body)
            if job.owner_uid == owner_uid:
                yield job

    def put_report(self, key: Key, pod_uid: str, report: ProgressReport) -> bool:
        """Keeps what a pod said; true when it is something new."""
        family = self._families.get(key)
        if family is None or family.report == (pod_uid, report):
            return False
        family.report = (pod_uid, report)
        return True

    def running_pods(self) -> Iterable[tuple[Key, Pod]]:
        """Pods that can be asked for their progress."""
        for key, family in tuple(self._families.items()):
            for entry in tuple(family.members["pod"].values()):
                pod = parse_pod(entry.body)
                if pod.is_running and pod.ip:
                    yield key, pod


def key_of(kind: Kind, body: Manifest) -> Key | None:
    """The training that an object is or belongs to."""
    meta = body["metadata"]
    name = meta["name"] if kind == "training" else (meta.get("labels") or {}).get(names.LABEL_TRAINING)
    return Key(meta["namespace"], name) if name else None
