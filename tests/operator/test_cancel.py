"""spec.cancel: a training ends for good, whatever it is at, and what it made stays."""

from typing import Any

import pytest

from lora_api import evaluation_digest, parse_training
from lora_operator.decision import Decision, Delete
from lora_operator.kueue import QueueState
from lora_operator.observed import Observed
from lora_operator.profiles import load_profiles
from lora_operator.reconcile import decide
from lora_operator.status import derive_status
from lora_operator.subject import Subject
from lora_operator.view import ACCEPTED
from tests.support.documents import make_document
from tests.support.observations import (
    COMPLETE,
    EARLIER,
    FAILED,
    JOB_UID,
    NOW,
    dead_pod,
    failing,
    make_evaluation_job,
    make_job,
    make_pod,
    make_preflight_job,
    make_subject,
    moment,
    observed,
    running_pod,
)
from tests.support.scenario import Scenario, condition

PROFILES = load_profiles("{default: {image: 'trainer:1', preflight: Off}, checked: {image: 'trainer:1'}}")
CANCEL = ("cancel", True)
RUNS = observed(make_job(status={"startTime": EARLIER}), running_pod())
HELD = observed(make_job(suspend=True), queue=QueueState("main", reason="Pending", message="no room"))
PAUSED = observed(make_job(suspend=True))
PENDING = observed(make_job(), make_pod(node=""))


def status_of(seen: Observed, *changes: tuple[str, Any]) -> dict[str, Any]:
    """The status as it stands in the cluster after the operator has seen this."""
    return derive_status(make_subject(*changes), seen, acceptance=ACCEPTED, now=NOW).to_document()


def look(subject: Subject, seen: Observed, *, seconds: float = 0.0) -> Decision:
    return decide(subject, seen, profiles=PROFILES, now=moment(seconds))


def told(decision: Decision, kind: str = "Succeeded") -> tuple[str, str]:
    assert decision.status is not None
    return next((c.status, c.reason) for c in decision.status.conditions if c.type == kind)


def test_the_job_is_deleted_and_the_end_waits_for_what_its_pod_saves() -> None:
    stop = look(make_subject(CANCEL, status=status_of(RUNS, CANCEL)), RUNS)
    saving = look(make_subject(CANCEL, status=status_of(RUNS)), observed(None, running_pod(gone_in=100)), seconds=1)

    assert stop.actions == (Delete("hina-a1", JOB_UID),)
    assert (saving.actions, told(saving)) == ((), ("Unknown", "Cancelling"))


def test_the_end_tells_the_state_that_was_saved_last() -> None:
    state = {"step": 30, "uri": "s3://b/run/state/step-30", "savedTime": EARLIER}
    word = dead_pod(75, {"message": "told to stop", "step": 30, "savedState": state}).terminated

    end = look(make_subject(CANCEL, status=status_of(RUNS)), observed(last_word=word and word.message), seconds=60)

    assert (told(end), told(end, "Finished")) == (("False", "Cancelled"), ("True", "Failed"))
    assert end.status is not None and end.status.failure is not None
    assert end.status.failure.step == 30
    assert "a new LoraTraining with the same output goes on" in end.status.failure.hint
    assert end.status.saved_state is not None and end.status.saved_state.step == 30


def test_a_cancelled_pod_is_no_interruption() -> None:
    word = {"message": "told to stop", "step": 30}
    gone = observed(last_word=dead_pod(75, word).terminated.message)  # type: ignore[union-attr]

    end = look(make_subject(CANCEL, status=status_of(RUNS)), gone, seconds=60)

    assert end.status is not None and end.status.attempts is not None
    assert (end.status.attempts.preemptions, end.status.attempts.failures) == (0, 0)


@pytest.mark.parametrize(
    ("seen", "changes", "before"),
    [
        (observed(), (), None),
        (PAUSED, (("suspend", True),), status_of(PAUSED, ("suspend", True))),
        (HELD, (("scheduling.queueName", "main"),), status_of(HELD, ("scheduling.queueName", "main"))),
        (observed(preflight=make_preflight_job()), (("profile", "checked"),), None),
        (PENDING, (), status_of(PENDING)),
        (observed(), (("profile", "nowhere"),), None),
    ],
    ids=["new", "paused", "queued", "data are checked", "pending", "not accepted"],
)
def test_where_nothing_trains_the_end_follows_soon_and_no_job_is_made(
    seen: Observed, changes: tuple[tuple[str, Any], ...], before: dict[str, Any] | None
) -> None:
    decision = look(make_subject(CANCEL, *changes, status=before), seen)
    if seen is PENDING:
        # What still has a Job that could run loses it first.
        assert decision.actions == (Delete("hina-a1", JOB_UID),)
        decision = look(make_subject(CANCEL, *changes, status=before), observed())

    assert told(decision) == ("False", "Cancelled")


def test_a_spec_that_is_no_longer_understood_can_be_cancelled() -> None:
    subject = make_subject(CANCEL, ("training.wrong", 1), status=status_of(RUNS))

    assert subject.training is None
    assert look(subject, RUNS).actions == (Delete("hina-a1", JOB_UID),)
    assert told(look(subject, observed())) == ("False", "Cancelled")


def test_its_end_is_a_normal_event() -> None:
    (event,) = look(make_subject(CANCEL), observed()).events

    assert (event.type, event.reason) == ("Normal", "Cancelled")


@pytest.mark.parametrize(
    ("seen", "end"),
    [
        (observed(make_job(status=COMPLETE), dead_pod(0)), ("True", "Completed")),
        (observed(make_job(status=FAILED), dead_pod(65)), ("False", "InvalidDataset")),
    ],
    ids=["completed", "failed"],
)
def test_an_end_that_came_first_stands(seen: Observed, end: tuple[str, str]) -> None:
    assert told(look(make_subject(CANCEL, status=status_of(RUNS)), seen)) == end


def test_a_job_that_is_failing_by_itself_tells_why() -> None:
    seen = observed(make_job(status=failing("PodFailurePolicy")), dead_pod(71), running_pod(name="hina-a1-0-later"))

    assert look(make_subject(CANCEL, status=status_of(seen)), seen).actions == ()


def test_an_attempt_of_several_pods_that_was_interrupted_is_not_followed_by_another() -> None:
    ended = [
        {**failing("BackoffLimitExceeded", -60)["conditions"][0], "type": kind} for kind in ("FailureTarget", "Failed")
    ]
    job = make_job(completions=2, parallelism=2, backoffLimit=0, status={"conditions": ended})
    seen = observed(job, dead_pod(75, name="first", index=0), dead_pod(75, name="second", index=1))

    decision = look(make_subject(CANCEL, ("parallelism", {"nodes": 2, "gpusPerNode": 1})), seen)

    assert (decision.actions, told(decision)) == ((), ("False", "Cancelled"))


def test_a_training_that_has_ended_only_answers_the_new_generation() -> None:
    before = status_of(observed(make_job(status=COMPLETE), dead_pod(0)))

    decision = look(make_subject(CANCEL, status=before, generation=2), observed())

    assert (decision.actions, decision.events) == ((), ())
    assert told(decision) == ("True", "Completed")
    assert decision.status is not None and decision.status.observed_generation == 2


WISH = ("evaluation", {"grid": {"weights": [0.5, 1]}})


def test_the_evaluation_of_a_training_that_has_succeeded_is_stopped_for_good() -> None:
    before = status_of(observed(make_job(status=COMPLETE), dead_pod(0)))
    begun = look(make_subject(WISH, status=before, generation=2), observed())
    assert begun.status is not None
    job = make_evaluation_job(evaluation_digest(parse_training(make_document(WISH)).spec))

    cancelled = make_subject(WISH, CANCEL, status=begun.status.to_document(), generation=3)
    stop = look(cancelled, observed(job, running_pod(job_uid=job.uid, stage="evaluation")))

    assert stop.actions == (Delete("hina-e2", "evaluation-2"),)
    assert (told(stop, "Evaluated"), told(stop)) == (("False", "Cancelled"), ("True", "Completed"))
    assert stop.status is not None and stop.events == ()
    assert make_subject(WISH, CANCEL, status=stop.status.to_document(), generation=3).is_settled


async def test_a_running_training_saves_ends_and_never_starts_again(scenario: Scenario) -> None:
    await scenario.start_operator()
    await scenario.create(env={"FAKE_GATE": scenario.folder / "never"})
    await scenario.until_phase("Running")

    await scenario.change({"spec": {"cancel": True}})
    body = await scenario.until_phase("Failed")
    await scenario.until(lambda: scenario.pod_count() == 0 and not scenario.jobs())
    await scenario.change({"spec": {"retry": {"maxFailures": 9}}})
    await scenario.until(lambda: (scenario.training() or {"status": {}})["status"]["observedGeneration"] == 3)

    assert (body["status"]["failure"]["reason"], body["status"]["failure"]["step"]) == ("Cancelled", 5)
    assert condition(body, "Finished")["status"] == "True"
    assert scenario.events()["Cancelled"]["type"] == "Normal"
    assert scenario.jobs() == []


async def test_a_paused_training_is_cancelled_without_waking_up(scenario: Scenario) -> None:
    starts = scenario.folder / "starts"
    await scenario.start_operator()
    await scenario.create(("suspend", True), env={"FAKE_STARTS": starts})
    await scenario.until_phase("Suspended")

    await scenario.change({"spec": {"cancel": True, "suspend": False}})
    await scenario.until_phase("Failed")
    await scenario.until(lambda: not scenario.jobs())

    assert not starts.exists()
