"""The last known state of every object that the operator watches. Used by `controller`.

Only what is read of an object is kept: Jobs and pods as values, a finished training without its spec.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from lora_api import ProgressReport, TerminationMessage, names
from lora_operator.observed import Job, Observed, Pod, parse_job, parse_pod
from lora_operator.subject import Key, Manifest, Subject, checkpoint_request, is_settled, parse_subject

Kind = Literal["training", "job", "pod"]
KINDS: tuple[Kind, ...] = ("training", "job", "pod")
GONE_KEPT = 4096
"""Of so many objects that are gone it is remembered: more than go while one answer is on its way."""
SPEC_OF_SETTLED = ("ttlSecondsAfterFinished", "evaluation", "cancel", "parallelism")
STATUS_OF_SETTLED = (
    "observedGeneration", "phase", "startTime", "completionTime", "conditions", "progress", "evaluation", "plan",
    "attempts", "savedState", "memoryRungs",
)  # fmt: skip
"""What is still read of a settled training, beside its newest measured checkpoint; by both it is known again as
settled."""
_LEFT_OUT_OF_SETTLED = {"plan": {"buckets", "warnings"}, "attempts": {"pods"}}


@dataclass(frozen=True)
class _Entry:
    version: int
    """Versions of one collection grow; comparing them is sanctioned since Kubernetes 1.35 and was true before."""
    uid: str
    value: Any
    """Document of a training, `Job` or `Pod`."""


@dataclass
class _Family:
    """A training and its children, by name."""

    members: dict[Kind, dict[str, _Entry]] = field(default_factory=lambda: {kind: {} for kind in KINDS})
    report: tuple[str, ProgressReport] | None = None
    """Uid of the pod, and what it said last."""
    words: dict[str, tuple[tuple[str, str], TerminationMessage]] = field(default_factory=dict)
    """By stage: when the newest pod that left a last word was created and ended, and the word: a pod goes within
    moments of its end."""
    is_settled: bool = False
    parsed: tuple[_Entry, Subject] | None = None
    """The training as it was parsed last, and from what."""

    def keep_word(self, pod: Pod) -> None:
        """Keeps the last word of a pod that trained or evaluated, if it is the newest that speaks for the training."""
        message = pod.terminated.message if pod.terminated else None
        if message is None or pod.stage == names.STAGE_PREFLIGHT or pod.index:
            return
        times = pod.created, pod.ended
        if pod.stage not in self.words or self.words[pod.stage][0] <= times:
            self.words[pod.stage] = times, message

    def own_jobs(self) -> set[str]:
        """Uids of the Jobs that belong to the training."""
        owners = {entry.uid for entry in self.members["training"].values()}
        return {entry.uid for entry in self.members["job"].values() if entry.value.owner_uid in owners}

    def remembers(self, value: Any) -> bool:
        """Whether a pod that is gone still tells why others of its Job ended; the Job is not forgotten before."""
        jobs = self.members["job"].values()
        return isinstance(value, Pod) and value.tells_of_peers and any(job.value.uid == value.job_uid for job in jobs)


class Cache:
    """Objects as last seen, by training. Lives on one event loop."""

    def __init__(self) -> None:
        self._families: dict[Key, _Family] = {}
        self._gone: dict[str, int] = {}
        """Version at its end, by uid: an answer that was on its way may still tell of the object."""

    def __iter__(self) -> Iterator[Key]:
        return iter(tuple(self._families))

    def put(self, kind: Kind, body: Manifest) -> Key | None:
        """Keeps the object, unless this state or a newer one is known; the training to look at, if it is news."""
        key = key_of(kind, body)
        if key is None:
            return None
        meta = body["metadata"]
        version = int(meta["resourceVersion"])
        if self._gone.get(meta["uid"], 0) >= version:
            return None
        family = self._families.setdefault(key, _Family())
        members = family.members[kind]
        known = members.get(meta["name"])
        if known is not None and known.version >= version:
            # Also of another object that had its name before: what was asked for is answered later than watches tell.
            return None
        value = _value(kind, body)
        entry = _Entry(version, meta["uid"], value)
        if kind != "training" and known is not None and (known.uid, known.value) == (entry.uid, value):
            # Nothing that is read of it has changed.
            members[meta["name"]] = entry
            return None
        if isinstance(value, Pod):
            family.keep_word(value)
        if kind == "training":
            family.is_settled, family.parsed = is_settled(body), None
        members[meta["name"]] = entry
        if family.is_settled:
            family.words.clear()
            _forget_ended_pods(family)
        return None if kind == "pod" and meta["name"] not in members else key

    def drop(self, kind: Kind, body: Manifest) -> Key | None:
        """Forgets the object, unless another one has taken its name; the training to look at, if any."""
        key, meta = key_of(kind, body), body["metadata"]
        self._bury(meta["uid"], int(meta["resourceVersion"]))
        family = self._families.get(key) if key else None
        if key is None or family is None:
            return None
        known = family.members[kind].get(meta["name"])
        is_known = known is not None and known.uid == meta["uid"]
        if kind == "pod":
            # Its end may never have been an event of its own.
            pod = parse_pod(body)
            family.keep_word(pod)
            if is_known and pod.tells_of_peers:
                family.members[kind][meta["name"]] = _Entry(int(meta["resourceVersion"]), meta["uid"], pod)
                return key
        if is_known:
            self._remove(key, kind, meta["name"])
        return key

    def _bury(self, uid: str, version: int) -> None:
        self._gone[uid] = version
        if len(self._gone) > GONE_KEPT:
            del self._gone[next(iter(self._gone))]

    def drop_name(self, kind: Kind, key: Key, name: str, *, uid: str | None = None) -> None:
        """Forgets an object found to be gone; with a uid only that very one, for another may have taken its name."""
        known = self._families[key].members[kind].get(name) if key in self._families else None
        if known is not None and uid in {None, known.uid}:
            self._remove(key, kind, name)

    def _remove(self, key: Key, kind: Kind, name: str) -> None:
        family = self._families[key]
        family.members[kind].pop(name, None)
        if not any(family.members.values()):
            del self._families[key]

    def uids(self, kind: Kind, namespace: str | None = None) -> set[str]:
        """Uids of all known objects of a kind, in one namespace or in all."""
        return {
            entry.uid
            for key, family in self._families.items()
            if namespace in {None, key.namespace}
            for entry in family.members[kind].values()
        }

    def prune(self, kind: Kind, gone: set[str]) -> None:
        """Forgets the objects with these uids, but for pods that are remembered beyond their end."""
        found = [
            (key, name)
            for key, family in self._families.items()
            for name, entry in family.members[kind].items()
            if entry.uid in gone and not family.remembers(entry.value)
        ]
        for key, name in found:
            self._remove(key, kind, name)

    def subject(self, key: Key) -> Subject | None:
        """The training, or None when it is gone. Raises OperatorError when its status cannot be read."""
        family = self._families.get(key)
        entry = family.members["training"].get(key.name) if family else None
        if family is None or entry is None:
            return None
        if family.is_settled:
            # Seldom looked at, and there may be thousands.
            return parse_subject(entry.value)
        if family.parsed is None or family.parsed[0] is not entry:
            family.parsed = entry, parse_subject(entry.value)
        return family.parsed[1]

    def is_settled(self, key: Key) -> bool:
        """Whether nothing is left to do about the training but to remove its children."""
        family = self._families.get(key)
        return family is not None and family.is_settled

    def observed(self, subject: Subject) -> Observed:
        """What is known of the training's children."""
        family = self._families[subject.key]
        jobs = [entry.value for entry in family.members["job"].values() if entry.value.owner_uid == subject.uid]
        pods = [entry.value for entry in family.members["pod"].values()]
        (created, _), word = family.words.get(_stage(subject), (("", ""), None))
        see = Observed.of_finished if subject.is_finished else Observed.of
        return replace(see(jobs, pods, family.report), last_word=word if created >= subject.created else None)

    def report(self, key: Key, pod_uid: str) -> ProgressReport | None:
        """What the pod said last, if it was the last one to say something."""
        family = self._families.get(key)
        known = family.report if family else None
        return known[1] if known is not None and known[0] == pod_uid else None

    def put_report(self, key: Key, pod_uid: str, report: ProgressReport) -> bool:
        """Keeps what a pod said; true when it is something new."""
        family = self._families.get(key)
        if family is None or family.report == (pod_uid, report):
            return False
        family.report = (pod_uid, report)
        return True

    def open_request(self, key: Key) -> str:
        """The state that somebody asks for of a training and that no stored one has answered; empty: none."""
        family = self._families.get(key)
        entry = family.members["training"].get(key.name) if family else None
        if entry is None:
            return ""
        wish = checkpoint_request(entry.value)
        return "" if wish == (entry.value.get("status") or {}).get("checkpointRequest") else wish

    def running_pods(self) -> Iterable[tuple[Key, Pod]]:
        """Pods of a training's own Jobs that can be asked for their progress; anybody may label others like them."""
        for key, family in tuple(self._families.items()):
            jobs = family.own_jobs()
            for entry in tuple(family.members["pod"].values()):
                if entry.value.answers and entry.value.job_uid in jobs:
                    yield key, entry.value


def _value(kind: Kind, body: Manifest) -> Manifest | Job | Pod:
    """What is kept of an object."""
    if kind == "job":
        return parse_job(body)
    if kind == "pod":
        return parse_pod(body)
    # Who set which field is half of an object and of no use here.
    slim = {**body, "metadata": {name: value for name, value in body["metadata"].items() if name != "managedFields"}}
    return _without_work(slim) if is_settled(body) else slim


def _without_work(body: Manifest) -> Manifest:
    """A settled training as far as it is still read: thousands of them may lie about for months."""
    meta = {name: value for name, value in body["metadata"].items() if name not in {"annotations", "labels"}}
    status = {name: value for name, value in body["status"].items() if name in STATUS_OF_SETTLED}
    checkpoints = body["status"].get("checkpoints") or []
    measured = [checkpoint for checkpoint in checkpoints if checkpoint.get("validationLoss") is not None]
    status["checkpoints"] = (measured or checkpoints)[-1:]
    for name in _LEFT_OUT_OF_SETTLED.keys() & status.keys():
        left_out = _LEFT_OUT_OF_SETTLED[name]
        status[name] = {field: value for field, value in status[name].items() if field not in left_out}
    spec = {name: value for name, value in body["spec"].items() if name in SPEC_OF_SETTLED}
    return {**body, "metadata": meta, "spec": spec, "status": status}


def _stage(subject: Subject) -> str:
    """What the training is at."""
    return names.STAGE_EVALUATION if subject.is_finished else names.STAGE_TRAINING


def _forget_ended_pods(family: _Family) -> None:
    """How a pod ended matters until its training has; one that still runs is a writer whoever owns it."""
    pods = family.members["pod"]
    for name in [name for name, entry in pods.items() if entry.value.is_over]:
        del pods[name]


def key_of(kind: Kind, body: Manifest) -> Key | None:
    """The training that an object is or belongs to."""
    meta = body["metadata"]
    name = meta["name"] if kind == "training" else (meta.get("labels") or {}).get(names.LABEL_TRAINING)
    return Key(meta["namespace"], name) if name else None
