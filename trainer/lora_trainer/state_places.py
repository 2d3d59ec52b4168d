"""Where states lie in an output, which is the newest, and whether a run may go on from it.

Knows no torch: used by `states` and `preflight`.
"""

import logging
import re
from typing import Literal, NamedTuple

from lora_api.run_manifest import MANIFEST_NAME, RunManifest
from lora_trainer.errors import InvalidConfiguration
from lora_trainer.provenance import Provenance, check_resumable
from lora_trainer.results import PROVENANCE_PATH, RunIdentity, read_provenance
from lora_trainer.storage import Store, UnreadableManifest, read_manifest

logger = logging.getLogger(__name__)

_FOLDER = re.compile(r"state/step-(\d+)-epoch-(\d+)-start-(\d+)")


class StatePlace(NamedTuple):
    """Orders states: a later start went on from the newest state of its time, whatever its number of steps."""

    start: int
    step: int
    epoch: int

    @property
    def folder(self) -> str:
        """Where it lies in the output."""
        return f"state/step-{self.step}-epoch-{self.epoch}-start-{self.start}"


def state_places(store: Store) -> list[StatePlace]:
    """The states with a manifest, newest first."""
    suffix = f"/{MANIFEST_NAME}"
    folders = (key.removesuffix(suffix) for key in store.list("state/step-") if key.endswith(suffix))
    return sorted((place for folder in folders if (place := place_of(folder))), reverse=True)


def next_start(store: Store, token: int) -> int:
    """Number of this start: `token`, unless the count began anew because somebody removed the record of the owner."""
    folders = {key.rpartition("/")[0] for key in store.list("state/step-")}
    return max([token, *(place.start + 1 for folder in folders if (place := place_of(folder)))])


class Wanted(NamedTuple):
    """The run that wants to go on."""

    identity: RunIdentity
    provenance: Provenance
    on_change: Literal["Refuse", "Continue"]


def newest_state(store: Store) -> tuple[StatePlace, RunManifest] | None:
    """The newest state whose manifest can be read; whether its files are whole is not looked at."""
    for place in state_places(store):
        try:
            manifest = read_manifest(store, folder=place.folder)
        except UnreadableManifest as error:
            logger.warning("%s", error)
            continue
        if manifest is not None:
            return place, manifest
    return None


def is_changed(store: Store, place: StatePlace, manifest: RunManifest, wanted: Wanted) -> bool:
    """Whether the state at `place` is of other pictures or another base model, and the run goes on all the same.

    Raises:
        InvalidConfiguration: it is of other settings, or what changed is refused; names what differs.
    """
    if wanted.identity.matches(manifest):
        return False
    uri, before = store.uri_of(place.folder), read_provenance(store, f"{place.folder}/{PROVENANCE_PATH}")
    if before is None:
        raise InvalidConfiguration(
            f"spec.output.uri holds a state of another run ({uri}), which does not say what it was made from; "
            "choose another folder, or remove the folder state/ there"
        )
    return check_resumable(before, wanted.provenance, on_change=wanted.on_change, place=uri)


def place_of(folder: str) -> StatePlace | None:
    """The state that lies in `folder`; None: no state does."""
    found = _FOLDER.fullmatch(folder)
    if found is None:
        return None
    step, epoch, start = map(int, found.groups())
    return StatePlace(start=start, step=step, epoch=epoch)
