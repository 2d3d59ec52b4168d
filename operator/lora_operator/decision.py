"""What can be decided about a training. Made by `reconcile`, carried out by `controller`."""

from dataclasses import dataclass

from lora_api import LoraTrainingStatus
from lora_operator.changes import Event
from lora_operator.subject import Manifest


@dataclass(frozen=True)
class Create:
    """Create a Job, or the Service of its pods, unless it is there."""

    manifest: Manifest


@dataclass(frozen=True)
class PatchJob:
    """Change mutable fields of a Job."""

    name: str
    patch: Manifest


@dataclass(frozen=True)
class Delete:
    """Delete a Job and its pods."""

    name: str
    uid: str | None = None
    """Delete only this very object."""


@dataclass(frozen=True)
class DeleteService:
    """Delete the training's own Service of this name."""

    name: str


Action = Create | PatchJob | Delete | DeleteService


@dataclass(frozen=True)
class Decision:
    """What is to be done: actions in order, then the status, then events, then another look."""

    actions: tuple[Action, ...] = ()
    status: LoraTrainingStatus | None = None
    """None: what is written there is still right."""
    events: tuple[Event, ...] = ()
    requeue_after_seconds: float | None = None
