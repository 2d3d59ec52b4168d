"""lora_operator.reconcile"""

from typing import Any

import pytest

from lora_api import LoraTrainingStatus, ProgressReport
from lora_operator.decision import Create, Decision, Delete, PatchJob
from lora_operator.kueue import QueueState
from lora_operator.observed import Observed, parse_pod
from lora_operator.profiles import load_profiles
from lora_operator.reconcile import decide
from lora_operator.status import derive_status
from lora_operator.subject import Subject
from lora_operator.timestamps import format_time
from lora_operator.view import ACCEPTED
from tests.support.observations import (
    COMPLETE,
    EARLIER,
    FAILED,
    JOB_UID,
    NOW,
    dead_pod,
    failing,
    make_job,
    make_pod,
    make_preflight_job,
    make_subject,
    moment,
    observed,
    pod_body,
    running_pod,
    training_body,
)

PROFILES = load_profiles("{default: {image: 'trainer:1', preflight: Off}, checked: {image: 'trainer:1'}}")
FINISHED = observed(make_job(status=COMPLETE), dead_pod(0))


def status_after(seen: Observed, *changes: tuple[str, Any]) -> dict[str, Any]:
    """The status as it stands in the cluster after the operator has seen this."""
    return derive_status(make_subject(*changes), seen, acceptance=ACCEPTED, now=NOW).to_document()


def look(subject: Subject, seen: Observed, *, seconds: float = 0.0) -> Decision:
    return decide(subject, seen, profiles=PROFILES, now=moment(seconds))


def created(decision: Decision) -> list[str]:
    return [action.manifest["metadata"]["name"] for action in decision.actions if isinstance(action, Create)]


def told(decision: Decision, kind: str) -> str:
    assert decision.status is not None
    return next(condition.reason for condition in decision.status.conditions if condition.type == kind)


def test_a_new_training_gets_its_children_before_anything_is_told() -> None:
    decision = look(make_subject(), observed())

    assert created(decision) == ["hina-a1"]
    assert (decision.status, decision.events) == (None, ())


def test_what_is_done_is_not_done_again() -> None:
    seen = observed(make_job(), running_pod())
    subject = make_subject(status=status_after(seen))

    again = look(subject, seen, seconds=60)

    assert (again.actions, again.status, again.events) == ((), None, ())


def test_a_silent_pod_is_looked_at_when_its_silence_is_unusual() -> None:
    seen = observed(make_job(), running_pod(), report=ProgressReport(active_time=EARLIER, patience_seconds=3700))
    subject = make_subject(status=status_after(seen))

    assert look(subject, seen, seconds=60).requeue_after_seconds == 41


def test_pods_are_told_of_before_their_job_is_paused() -> None:
    seen = observed(make_job(), running_pod())
    paused = ("suspend", True)

    first = look(make_subject(paused, status=status_after(observed(make_job()))), seen)
    assert first.status is not None
    second = look(make_subject(paused, status=first.status.to_document()), seen)

    assert (first.actions, first.requeue_after_seconds) == ((), 0)
    assert [action.patch["spec"] for action in second.actions if isinstance(action, PatchJob)] == [{"suspend": True}]
    assert second.status is None


def test_a_training_that_is_being_deleted_is_left_to_the_garbage_collector() -> None:
    body = training_body()
    body["metadata"]["deletionTimestamp"] = "2026-11-22T11:59:00Z"
    from_body = make_subject()
    deleting = Subject(**{**from_body.__dict__, "is_deleting": True})

    assert look(deleting, observed()) == Decision()


def test_an_unknown_profile_starts_nothing() -> None:
    decision = look(make_subject(("profile", "big")), observed())

    assert decision.actions == ()
    assert told(decision, "Accepted") == "ProfileNotFound"
    assert [event.reason for event in decision.events] == ["ProfileNotFound"]


def test_a_profile_that_is_gone_does_not_stop_what_runs() -> None:
    decision = look(make_subject(("profile", "big")), observed(make_job(), running_pod()))

    assert decision.actions == ()
    assert told(decision, "Scheduled") == "Scheduled"


def test_a_spec_that_is_not_understood_starts_nothing() -> None:
    decision = look(make_subject(("network.rnk", 8)), observed())

    assert decision.actions == ()
    assert told(decision, "Accepted") == "InvalidSpec"


def test_a_refused_child_is_told_and_not_created_in_the_same_look() -> None:
    decision = look(make_subject(), observed(refusal="exceeded quota"))

    assert decision.actions == ()
    assert told(decision, "Scheduled") == "QuotaExceeded"


def test_a_job_that_is_gone_is_followed_by_the_next_attempt() -> None:
    subject = make_subject(status=status_after(observed(make_job(2), running_pod())))

    assert created(look(subject, observed())) == ["hina-a3"]


def test_no_pod_starts_while_one_of_an_earlier_job_ends() -> None:
    subject = make_subject(status=status_after(observed(make_job(), running_pod())))

    decision = look(subject, observed(None, running_pod()))

    assert decision.actions == ()
    assert told(decision, "Scheduled") == "WaitingForPods"
    assert decision.requeue_after_seconds == 5


def test_at_most_one_job_is_active() -> None:
    decision = look(make_subject(), observed(make_job(2), older_jobs=(make_job(1),)))

    assert decision.actions == (Delete("hina-a1", JOB_UID),)


@pytest.mark.parametrize("suspend", [True, False])
def test_suspend_is_mirrored_on_the_job(suspend: bool) -> None:
    decision = look(make_subject(("suspend", suspend)), observed(make_job(suspend=not suspend)))

    (action,) = decision.actions
    assert isinstance(action, PatchJob)
    assert action.patch["spec"] == {"suspend": suspend}


def test_a_job_that_has_ended_is_not_changed_any_more() -> None:
    assert look(make_subject(("suspend", True)), FINISHED).actions == ()


def test_an_end_is_told_and_looked_at_again() -> None:
    decision = look(make_subject(), FINISHED)

    assert told(decision, "Finished") == "Succeeded"
    assert decision.requeue_after_seconds == 0


@pytest.mark.parametrize("seen", [FINISHED, observed()], ids=["with its job", "without its job"])
def test_a_finished_training_never_starts_again(seen: Observed) -> None:
    subject = make_subject(status=status_after(FINISHED))

    assert look(subject, seen) == Decision()


def test_a_failed_training_never_starts_again() -> None:
    subject = make_subject(status=status_after(observed(make_job(status=FAILED), dead_pod(71))))

    assert look(subject, observed()) == Decision()


def test_a_job_that_runs_after_the_end_is_deleted() -> None:
    subject = make_subject(status=status_after(FINISHED))

    assert look(subject, observed(make_job())).actions == (Delete("hina-a1", JOB_UID),)


def test_a_change_after_the_end_is_seen() -> None:
    subject = make_subject(status=status_after(FINISHED), generation=2)

    decision = look(subject, FINISHED)

    assert isinstance(decision.status, LoraTrainingStatus)
    assert decision.status.observed_generation == 2
    assert decision.events == ()


def test_children_stay_while_their_time_lasts() -> None:
    subject = make_subject(("ttlSecondsAfterFinished", 7200), status=status_after(FINISHED))

    decision = look(subject, FINISHED)

    assert decision == Decision(requeue_after_seconds=3600)


def test_children_go_when_their_time_is_over_the_job_last() -> None:
    subject = make_subject(("ttlSecondsAfterFinished", 7200), status=status_after(FINISHED))

    decision = look(subject, FINISHED, seconds=3600)

    assert decision.actions == (Delete("hina-a1", JOB_UID),)


def test_without_a_time_to_live_children_stay() -> None:
    subject = make_subject(status=status_after(FINISHED))

    assert look(subject, FINISHED, seconds=10**8) == Decision()


@pytest.mark.parametrize(("waited", "expected"), [(0, 5), (10, 5), (40, 20), (120, 60), (3600, 60)])
def test_a_pod_that_does_not_start_is_looked_at_again_soon_and_ever_more_seldom(waited: int, expected: int) -> None:
    body = pod_body(state={"waiting": {"reason": "ContainerCreating"}})
    body["metadata"]["creationTimestamp"] = format_time(moment(-waited))

    decision = look(make_subject(), observed(make_job(), parse_pod(body)))

    assert decision.requeue_after_seconds == expected


CHECKED: tuple[str, Any] = ("profile", "checked")
DONE = make_preflight_job(status=COMPLETE)
VERIFIED = {"type": "DatasetReady", "status": "True", "reason": "Verified", "lastTransitionTime": EARLIER}


def test_data_are_checked_before_the_first_attempt() -> None:
    assert created(look(make_subject(CHECKED), observed())) == ["hina-data"]


def test_no_gpu_is_asked_for_while_the_data_are_checked() -> None:
    decision = look(make_subject(CHECKED), observed(preflight=make_preflight_job()))

    assert decision.actions == ()


def test_a_check_that_goes_on_is_waited_for_although_the_profile_wants_none_by_now() -> None:
    decision = look(make_subject(), observed(preflight=make_preflight_job()))

    assert decision.actions == ()


def test_data_that_can_train_are_followed_by_the_first_attempt_in_the_same_look() -> None:
    decision = look(make_subject(CHECKED), observed(preflight=DONE))

    assert created(decision) == ["hina-a1"]
    assert decision.status is None


def test_data_that_cannot_train_are_followed_by_nothing() -> None:
    failed = make_preflight_job(status=FAILED)
    word = dead_pod(65, {"message": "no pictures"}, name="hina-data-0-x", job_uid="check", stage="preflight")

    decision = look(make_subject(CHECKED), observed(None, word, preflight=failed))

    assert decision.actions == ()
    assert told(decision, "Succeeded") == "InvalidDataset"


@pytest.mark.parametrize(
    ("status", "name"),
    [({"conditions": [VERIFIED]}, "hina-a1"), ({"attempts": {"number": 1}}, "hina-a2")],
    ids=["ready", "tried"],
)
def test_what_was_checked_is_not_checked_again(status: dict[str, Any], name: str) -> None:
    assert created(look(make_subject(CHECKED, status=status), observed())) == [name]


def test_without_gpus_nothing_is_checked_beforehand() -> None:
    assert created(look(make_subject(CHECKED, ("parallelism.gpusPerNode", 0)), observed())) == ["hina-a1"]


def test_a_check_is_paused_with_its_training() -> None:
    (action,) = look(make_subject(CHECKED, ("suspend", True)), observed(preflight=make_preflight_job())).actions

    assert isinstance(action, PatchJob)
    assert (action.name, action.patch["spec"]) == ("hina-data", {"suspend": True})


def test_a_check_that_a_queue_sets_going_is_deleted_in_a_pause() -> None:
    seen = observed(preflight=make_preflight_job(), queue=QueueState("", workload="check", admitted=True))
    told = look(make_subject(CHECKED, ("suspend", True)), seen).status

    assert told is not None
    decision = look(make_subject(CHECKED, ("suspend", True), status=told.to_document()), seen)
    assert decision.actions == (Delete("hina-data", "check"),)


def test_a_check_beside_a_job_that_trains_is_deleted() -> None:
    decision = look(make_subject(CHECKED), observed(make_job(), preflight=make_preflight_job()))

    assert decision.actions == (Delete("hina-data", "check"),)


def test_a_spec_that_pods_cannot_carry_is_refused_with_its_size_and_a_cure() -> None:
    notes = {f"note-{number}": "\U0001f600" * 1024 for number in range(32)}

    decision = look(make_subject(("pod.annotations", notes)), observed())

    assert decision.actions == ()
    assert told(decision, "Accepted") == "SpecTooLarge"
    assert "shorten" in decision.events[0].message


def test_time_that_is_used_up_starts_no_further_job() -> None:
    subject = make_subject(("limits.activeSeconds", 600), status={"attempts": {"number": 1, "activeSeconds": 600}})

    decision = look(subject, observed())

    assert decision.actions == ()
    assert told(decision, "Finished") == "Failed"
    assert told(decision, "Succeeded") == "DeadlineExceeded"


def test_time_that_is_used_up_does_not_end_a_pause() -> None:
    status = {"attempts": {"number": 1, "activeSeconds": 600}}
    subject = make_subject(("limits.activeSeconds", 600), ("suspend", True), status=status)

    assert told(look(subject, observed(make_job(suspend=True))), "Finished") == "InProgress"


LIMIT = ("limits.activeSeconds", 600)
RUNS_ON = observed(make_job(status={"startTime": EARLIER}), running_pod())
"""Its time is over, and its Job does not know that."""


def test_a_job_that_runs_on_after_its_time_is_stopped_before_the_end_is_told() -> None:
    stop = look(make_subject(LIMIT, status=status_after(RUNS_ON, LIMIT)), RUNS_ON)

    assert stop.actions == (Delete("hina-a1", JOB_UID),)
    assert stop.status is None
    assert stop.requeue_after_seconds == 5


def test_a_job_that_its_queue_could_set_going_again_after_its_time_is_deleted_while_its_pod_saves() -> None:
    suspended = {"type": "Suspended", "status": "True", "lastTransitionTime": format_time(NOW)}
    job = make_job(suspend=True, status={"conditions": [suspended]})
    evicted = observed(job, running_pod(is_deleting=True), queue=QueueState("main"))
    subject = make_subject(LIMIT, ("scheduling.queueName", "main"), status=status_after(RUNS_ON, LIMIT))

    assert look(subject, evicted).actions == (Delete("hina-a1", JOB_UID),)


@pytest.mark.parametrize("is_told", [True, False], ids=["told in between", "operator killed in between"])
def test_what_a_pod_saves_after_its_time_is_told_with_the_end(is_told: bool) -> None:
    state = {"step": 30, "uri": "s3://b/run/state/step-30", "savedTime": EARLIER}
    word = dead_pod(75, {"message": "told to stop", "step": 30, "savedState": state}).terminated
    before = status_after(RUNS_ON, LIMIT)
    saving = look(make_subject(LIMIT, status=before), observed(None, running_pod(gone_in=100)), seconds=1)
    assert saving.status is not None
    between = saving.status.to_document() if is_told else before

    end = look(make_subject(LIMIT, status=between), observed(last_word=word and word.message), seconds=60)

    assert (saving.actions, told(saving, "Finished"), saving.requeue_after_seconds) == ((), "InProgress", 5)
    assert (end.actions, told(end, "Succeeded")) == ((), "DeadlineExceeded")
    assert end.status is not None
    assert end.status.saved_state is not None
    assert end.status.saved_state.step == 30
    assert end.status.failure is not None
    assert end.status.failure.step == 30
    assert end.status.attempts is not None
    assert (end.status.attempts.preemptions, end.status.attempts.failures) == (0, 0)


def test_a_pod_of_a_dead_node_does_not_keep_a_training_whose_time_is_over() -> None:
    subject = make_subject(LIMIT, status=status_after(RUNS_ON, LIMIT))

    assert told(look(subject, observed(None, running_pod(gone_in=-60))), "Succeeded") == "DeadlineExceeded"


def test_a_pod_that_ends_after_its_time_is_waited_for_at_rest_until_it_cannot_be_alive() -> None:
    subject = make_subject(("limits.activeSeconds", 600), status={"attempts": {"number": 1, "activeSince": EARLIER}})

    decision = look(subject, observed(make_job(status=failing("DeadlineExceeded")), running_pod(gone_in=10)))

    assert told(decision, "Finished") == "InProgress"
    assert decision.requeue_after_seconds == 70


def test_a_start_deadline_is_looked_at_when_it_is_over() -> None:
    subject = make_subject(("scheduling.startDeadlineSeconds", 3700), status=status_after(observed(make_job())))

    decision = look(subject, observed(make_job(suspend=False), make_pod(node="")), seconds=98)

    assert decision.requeue_after_seconds == 2


def test_progress_waits_until_the_interval_is_over() -> None:
    subject = make_subject(status=status_after(observed(make_job())))
    seen = observed(make_job(), running_pod(), written=NOW)

    early = decide(subject, seen, profiles=PROFILES, now=moment(10), status_interval_seconds=30)
    due = decide(subject, seen, profiles=PROFILES, now=moment(30), status_interval_seconds=30)

    assert (early.status, early.requeue_after_seconds) == (None, 20)
    assert due.status is not None


def test_an_end_waits_for_nothing() -> None:
    subject = make_subject(status=status_after(observed(make_job(), running_pod())))
    seen = observed(make_job(status=COMPLETE), dead_pod(0), written=NOW)

    decision = decide(subject, seen, profiles=PROFILES, now=moment(1), status_interval_seconds=3600)

    assert told(decision, "Finished") == "Succeeded"


def test_failures_of_earlier_jobs_use_up_the_budget_of_the_next() -> None:
    subject = make_subject(status={"attempts": {"number": 1, "failures": 2}})

    (action,) = look(subject, observed()).actions

    assert isinstance(action, Create)
    assert action.manifest["spec"]["backoffLimit"] == 1
