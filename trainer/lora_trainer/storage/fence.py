"""Lets one process at a time write to an output: each start takes it over, and who was there before finds out.

Used by `run` and `Publisher`. Kubernetes may start a pod twice, and a pod of a lost node may come back; so the newest
start owns the output (`state/owner.json`), and every process asks before it publishes whether that is still itself.
"""

import json
import logging
from dataclasses import asdict, dataclass
from uuid import uuid4

from lora_trainer.errors import InvalidConfiguration, StorageUnavailable, Superseded
from lora_trainer.storage.store import ABSENT, Changed, MissingFile, Store, Version

logger = logging.getLogger(__name__)

OWNER_KEY = "state/owner.json"
RUN_FOLDERS = ("adapters/", "evaluation/", "logs/", "samples/", "state/")
"""Where a run's files lie below its output; what another run has elsewhere below it is not ours."""
_TRIES = 10


@dataclass(frozen=True)
class _Record:
    """Content of `state/owner.json`."""

    owner: str
    attempt: int
    pod: str
    token: int
    starts: int
    """How many pods of this owner have started, this one included."""
    start: str
    """Random: two starts never write the same record, even on a store without conditional writes."""

    def describe(self) -> str:
        return f"{self.owner}, attempt {self.attempt}{f', pod {self.pod}' if self.pod else ''}"


class Fence:
    """The right of this process to write below an output, until another one takes it over."""

    def __init__(self, store: Store, record: _Record) -> None:
        self._store = store
        self._record = record

    @classmethod
    def acquire(cls, store: Store, *, owner: str, attempt: int, pod: str) -> "Fence":
        """Takes the output over from whoever had it, and discards what that one left half uploaded.

        `owner` names the training, the same at each of its starts; `attempt` is the number of its Job, `pod` may be
        empty outside a cluster.

        Raises:
            Superseded: a later attempt of the same training has begun.
            InvalidConfiguration: `state/owner.json` is none of ours.
            AccessDenied, StorageUnavailable: as the store answers.
        """
        for _ in range(_TRIES):
            found, version = _read(store)
            if found is not None and found.owner == owner and found.attempt > attempt:
                raise Superseded(f"attempt {attempt} comes after {found.describe()} has begun, and writes nothing")
            # Before the put: what is unfinished now was begun by those that this start supersedes.
            _discard_unfinished(store)
            token = 1 if found is None else found.token + 1
            record = _Record(owner, attempt, pod, token, _starts(found, owner, pod), start=uuid4().hex)
            try:
                store.put_bytes(_encode(record), OWNER_KEY, only_if=version)
            except Changed:
                continue
            if found is not None and found.owner != owner:
                logger.warning("%s was the output of %s before", store.uri_of(""), found.describe())
            return cls(store, record)
        raise StorageUnavailable(f"{store.uri_of(OWNER_KEY)} is being changed by others all the time")

    @property
    def token(self) -> int:
        """Number of this start: larger than that of every start before."""
        return self._record.token

    @property
    def starts(self) -> int:
        """How many pods of the owner have started here, this one included; starts outside a cluster count each."""
        return self._record.starts

    def check(self) -> None:
        """Asks the store, by one small read, whether this process is still the newest.

        What remains possible: a process that is stopped for long between this answer and its next write (a
        frozen node) makes that one write. `Publisher` therefore writes manifests conditionally as well, and a
        reader trusts only what a manifest names and whose digest fits.

        Raises:
            Superseded: another start of the same training has taken over.
            InvalidConfiguration: another training has.
            AccessDenied, StorageUnavailable: as the store answers.
        """
        found, _ = _read(self._store)
        if found is None:
            self._claim_again()
        elif found != self._record:
            raise self._lost_to(found)

    def _claim_again(self) -> None:
        """Somebody tidied up the folder: that is no successor, but one may come at any time."""
        logger.warning("%s was removed and is written again", self._store.uri_of(OWNER_KEY))
        try:
            self._store.put_bytes(_encode(self._record), OWNER_KEY, only_if=ABSENT)
        except Changed:
            self.check()

    def _lost_to(self, found: _Record) -> Superseded | InvalidConfiguration:
        if found.owner == self._record.owner:
            return Superseded(f"{found.describe()} has taken over; this process writes nothing more")
        return InvalidConfiguration(
            f"spec.output.uri: another training writes to {self._store.uri_of('')} now ({found.describe()}); "
            "give each training an output folder of its own"
        )


def _starts(found: _Record | None, owner: str, pod: str) -> int:
    if found is None or found.owner != owner:
        return 1
    return found.starts if pod and found.pod == pod else found.starts + 1


def _decode(content: bytes) -> _Record:
    """Another version of the trainer may say more, and one before it counted starts said less."""
    said = json.loads(content)
    token = int(said["token"])
    starts = int(said.get("starts", token))
    return _Record(said["owner"], int(said["attempt"]), said["pod"], token, starts, said["start"])


def _read(store: Store) -> tuple[_Record | None, Version]:
    try:
        found = store.get_versioned(OWNER_KEY)
    except MissingFile:
        return None, ABSENT
    try:
        return _decode(found.content), found.version
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InvalidConfiguration(
            f"spec.output.uri: {store.uri_of(OWNER_KEY)} is not ours; choose another folder or remove it"
        ) from error


def _encode(record: _Record) -> bytes:
    return json.dumps(asdict(record), indent=2).encode() + b"\n"


def _discard_unfinished(store: Store) -> None:
    count = store.discard_unfinished(RUN_FOLDERS)
    if count:
        logger.info("discarded %s unfinished uploads that earlier processes left in %s", count, store.uri_of(""))
