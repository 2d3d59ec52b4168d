"""A LoraTraining as the API server holds it, parsed. Kept by `cache`; read by `reconcile` and `status`."""

import json
from dataclasses import dataclass
from typing import Any, NamedTuple

from pydantic import ValidationError

from lora_api import InvalidTraining, LoraTraining, LoraTrainingStatus, names, parse_training
from lora_api.evaluation_spec import Evaluation
from lora_api.run_manifest import digest_of_evaluation
from lora_api.status import ConditionType
from lora_operator.errors import OperatorError

Manifest = dict[str, Any]


class Key(NamedTuple):
    """Which LoraTraining."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True)
class Subject:
    """A LoraTraining as the API server holds it."""

    key: Key
    uid: str
    generation: int
    resource_version: str
    is_deleting: bool
    training: LoraTraining | None
    """None when it cannot be understood; `problem` then says why."""
    problem: str
    status: LoraTrainingStatus
    raw_status: Manifest
    created: str
    ttl_seconds: int | None = None
    """How long its children outlive its end."""
    is_cancelled: bool = False
    """Somebody wants it to end for good, also if the rest of its spec cannot be understood."""
    checkpoint_request: str = ""
    """The state that somebody asks for, in the words of the annotation; empty: none."""
    gpus: int = 1
    """How many it asks for in all."""
    lacks_evaluation: bool = False
    """It has succeeded, and is not evaluated as its spec asks for."""

    @property
    def is_finished(self) -> bool:
        """Whether it has ended for ever, in the words of its own status."""
        return any(c.type == ConditionType.FINISHED and c.status == "True" for c in self.status.conditions)

    @property
    def is_settled(self) -> bool:
        """Whether nothing is left to do about it but to remove its children."""
        return self.is_finished and not self.lacks_evaluation

    @property
    def attempt(self) -> int:
        """Number of the newest Job that the status knows of; 0: none."""
        return self.status.attempts.number if self.status.attempts else 0


def parse_subject(body: Manifest) -> Subject:
    """A LoraTraining from its API document.

    Raises:
        OperatorError: its status cannot be read, so nothing is known about what was done already.
    """
    meta = body["metadata"]
    raw_status = body.get("status") or {}
    # The spec of a training that is settled decides nothing any more.
    training, problem = (None, "") if is_settled(body) else _parse_spec(body)
    return Subject(
        key=Key(meta["namespace"], meta["name"]),
        uid=meta["uid"],
        generation=meta.get("generation", 0),
        resource_version=meta["resourceVersion"],
        is_deleting="deletionTimestamp" in meta,
        training=training,
        problem=problem,
        status=_parse_status(raw_status),
        raw_status=raw_status,
        created=meta["creationTimestamp"],
        ttl_seconds=body["spec"].get("ttlSecondsAfterFinished"),
        checkpoint_request=checkpoint_request(body),
        is_cancelled=body["spec"].get("cancel") is True,
        gpus=_gpus(body),
        lacks_evaluation=_lacks_evaluation(body),
    )


def _gpus(body: Manifest) -> int:
    wish = body["spec"].get("parallelism") or {}
    return int(wish.get("nodes", 1) * wish.get("gpusPerNode", 1))


def checkpoint_request(body: Manifest) -> str:
    """The state that the API document of a training asks for by its annotation; empty: none."""
    annotations = body["metadata"].get("annotations") or {}
    return str(annotations.get(names.ANNOTATION_CHECKPOINT) or "")[: names.MAX_REQUEST_LENGTH]


def is_finished(body: Manifest) -> bool:
    """Whether the API document of a training says that it has ended for ever."""
    return _held(body).get(ConditionType.FINISHED) == "True"


def is_settled(body: Manifest) -> bool:
    """Whether the API document of a training says that nothing is left to do about it but to remove its children."""
    return is_finished(body) and not _lacks_evaluation(body)


def _lacks_evaluation(body: Manifest) -> bool:
    held, told = _held(body), (body.get("status") or {}).get("evaluation") or {}
    if held.get(ConditionType.FINISHED) != "True" or held.get(ConditionType.SUCCEEDED) != "True":
        return False
    if body["spec"].get("cancel") is True:
        # Nothing more is made; what was begun is to be stopped.
        return held.get(ConditionType.EVALUATED) == "Unknown"
    wish = body["spec"].get("evaluation")
    if wish is None:
        # One that was begun is to be stopped; one that failed is forgotten, so that it is tried when asked for again.
        has_failed = told.get("reason") == "Failed" and bool(told.get("digest"))
        return has_failed or held.get(ConditionType.EVALUATED) == "Unknown"
    try:
        return digest_of_evaluation(Evaluation.model_validate_json(json.dumps(wish))) != told.get("digest")
    except ValidationError:
        return True


def _held(body: Manifest) -> dict[str, str]:
    """The status of every condition."""
    return {c["type"]: c["status"] for c in (body.get("status") or {}).get("conditions") or ()}


def _parse_spec(body: Manifest) -> tuple[LoraTraining | None, str]:
    """The training, or what is wrong with it."""
    try:
        return parse_training({key: value for key, value in body.items() if key != "status"}), ""
    except InvalidTraining as error:
        return None, "; ".join(str(found) for found in error.problems)


def _parse_status(document: Manifest) -> LoraTrainingStatus:
    try:
        return LoraTrainingStatus.model_validate_json(json.dumps(document))
    except ValidationError as error:
        raise OperatorError(f"the status cannot be read: {error.errors(include_url=False)[0]}") from error
