"""The health checks of docs/kueue.md for Flux, evaluated over what a training's status shows in its life.

Flux gives each top-level field of the object to CEL as a variable (fluxcd.io/flux/cheatsheets/cel-healthchecks); what
cannot be evaluated, as for an object without any status, is in progress to it.
"""

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from cel_expr_python import cel

from lora_api import names
from lora_operator.kueue import QueueState
from lora_operator.observed import Observed
from lora_operator.status import derive_status
from lora_operator.view import ACCEPTED
from tests.support.observations import (
    COMPLETE,
    FAILED,
    NOW,
    dead_pod,
    make_job,
    make_subject,
    observed,
    running_pod,
    training_body,
)

PAGE = Path(__file__).parents[2] / "docs" / "kueue.md"
QUEUE = ("scheduling.queueName", "main")
VARIABLES = ("apiVersion", "kind", "metadata", "spec", "status")


@cache
def checks() -> dict[str, Any]:
    (block,) = re.findall(r"^ *```yaml\n( *healthCheckExprs:.*?)^ *```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    (entry,) = yaml.safe_load(block)["healthCheckExprs"]
    assert (entry["apiVersion"], entry["kind"]) == (names.API_VERSION, names.KIND)
    environment = cel.NewEnv(variables=dict.fromkeys(VARIABLES, cel.Type.DYN))
    return {word: environment.compile(entry[word]) for word in ("failed", "current")}


def health(body: dict[str, Any]) -> str:
    """Flux's word for the object: the first check that holds."""
    found = {word: program.eval(data=body) for word, program in checks().items()}
    return next((word for word, outcome in found.items() if outcome.value() is True), "in progress")


def status_of(seen: Observed, *changes: tuple[str, Any]) -> dict[str, Any]:
    return derive_status(make_subject(*changes), seen, acceptance=ACCEPTED, now=NOW).to_document()


HELD = observed(make_job(suspend=True), queue=QueueState("main", reason="Pending", message="no room"))
LIFE = {
    "created": (status_of(observed()), "in progress"),
    "queued": (status_of(HELD, QUEUE), "in progress"),
    "running": (status_of(observed(make_job(), running_pod())), "in progress"),
    "interrupted": (status_of(observed(make_job(), dead_pod(75))), "in progress"),
    "paused": (status_of(observed(make_job(suspend=True)), ("suspend", True)), "in progress"),
    "succeeded": (status_of(observed(make_job(status=COMPLETE), dead_pod(0))), "current"),
    "failed": (status_of(observed(make_job(status=FAILED), dead_pod(65))), "failed"),
}


@pytest.mark.parametrize(("status", "word"), LIFE.values(), ids=LIFE)
def test_flux_sees_the_end_and_no_other_moment_as_one(status: dict[str, Any], word: str) -> None:
    assert health(training_body(status=status)) == word


def test_a_status_without_conditions_is_no_error() -> None:
    outcomes = [
        program.eval(data=training_body() | {"status": {"observedGeneration": 1}}) for program in checks().values()
    ]

    assert [outcome.value() for outcome in outcomes] == [False, False]


def test_an_object_without_a_status_is_in_progress() -> None:
    assert health(training_body()) == "in progress"
