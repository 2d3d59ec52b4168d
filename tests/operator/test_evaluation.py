"""lora_operator.evaluation and lora_operator.evaluation_status"""

from typing import Any

import pytest

from lora_api import LoraTrainingStatus, ProgressReport, evaluation_digest, names, outcome_of, parse_training
from lora_api.status import Condition
from lora_operator.decision import Create, Decision, Delete, PatchJob
from lora_operator.kueue import QueueState
from lora_operator.observed import Job, Observed, Pod
from lora_operator.outcome import MOST_IN_VAIN
from lora_operator.profiles import load_profiles
from lora_operator.reconcile import decide
from lora_operator.status import derive_status, without_report
from lora_operator.subject import Subject
from lora_operator.timestamps import format_time
from lora_operator.view import ACCEPTED
from tests.support.documents import make_document
from tests.support.observations import (
    COMPLETE,
    FAILED,
    NOW,
    dead_pod,
    ended,
    failing,
    make_evaluation_job,
    make_job,
    make_pod,
    make_subject,
    moment,
    observed,
    running_pod,
)

PROFILES = load_profiles("{default: {image: 'trainer:1', preflight: Off}}")
WISH = ("evaluation", {"grid": {"weights": [0.5, 1]}})
OTHER = ("evaluation", {"grid": {"weights": [0.75]}})
MEASURED = {"digest": "old", "reason": "Completed", "message": "epoch 7 is best", "bestEpoch": 7, "confidence": "Low"}
MADE = {"adapterUri": "s3://r/a", "gridUri": "s3://r/old.png", "reportUri": "s3://r/old.html"}
END = observed(make_job(status=COMPLETE), dead_pod(0, {"evaluation": MEASURED, "artifacts": MADE}))
JOB_UID = "evaluation-2"


def digest(wish: tuple[str, Any] = WISH) -> str:
    return evaluation_digest(parse_training(make_document(wish)).spec)


def finished(*changes: tuple[str, Any], seen: Observed = END) -> dict[str, Any]:
    """The status of a training that has ended, evaluated by itself, before any wish was changed."""
    return derive_status(make_subject(*changes), seen, acceptance=ACCEPTED, now=NOW).to_document()


def look(subject: Subject, seen: Observed, *, seconds: float = 0.0, interval: float = 0.0) -> Decision:
    return decide(subject, seen, profiles=PROFILES, now=moment(seconds), status_interval_seconds=interval)


def told(decision: Decision) -> LoraTrainingStatus:
    assert decision.status is not None
    return decision.status


def evaluated(status: LoraTrainingStatus) -> Condition:
    return next(condition for condition in status.conditions if condition.type == "Evaluated")


def begun(*changes: tuple[str, Any], wish: tuple[str, Any] = WISH) -> Subject:
    """A finished training with a new wish, of which the first look has told."""
    before = make_subject(wish, *changes, status=finished(*changes), generation=2)
    return make_subject(wish, *changes, status=told(look(before, observed())).to_document(), generation=2)


def job(wish: tuple[str, Any] = WISH, **changes: Any) -> Job:
    return make_evaluation_job(digest(wish), **changes)


def pod(code: int | None = None, word: dict[str, Any] | None = None, **changes: Any) -> Pod:
    """A pod of the Job that evaluates: running, or ended with a code."""
    mine = {"job_uid": JOB_UID, "stage": names.STAGE_EVALUATION, **changes}
    return running_pod(**mine) if code is None else dead_pod(code, word, **mine)


def test_what_was_known_is_taken_back_before_anything_writes_over_it() -> None:
    decision = look(make_subject(WISH, status=finished(), generation=2), observed())

    status = told(decision)
    assert (decision.actions, decision.requeue_after_seconds, decision.events) == ((), 0, ())
    assert (evaluated(status).status, evaluated(status).reason) == ("Unknown", "Pending")
    assert status.evaluation is not None and status.evaluation.digest == ""
    assert (status.evaluation.best_epoch, status.summary and status.summary.best) == (7, "7?")
    assert status.observed_generation == 2


def test_then_one_job_is_made_for_it() -> None:
    decision = look(begun(), observed())

    (action,) = decision.actions
    assert isinstance(action, Create)
    assert action.manifest["metadata"]["name"] == "hina-e2"
    assert action.manifest["metadata"]["annotations"][names.ANNOTATION_EVALUATION_DIGEST] == digest()
    assert decision.status is None


def test_its_pods_take_the_output_over_from_the_last_attempt() -> None:
    status = begun().status.to_document() | {"attempts": {"number": 3}}

    (action,) = look(make_subject(WISH, status=status, generation=2), observed()).actions

    assert isinstance(action, Create)
    (container,) = action.manifest["spec"]["template"]["spec"]["containers"]
    assert {"name": names.ENV_ATTEMPT, "value": "5"} in container["env"]


def test_a_training_that_ended_without_the_evaluation_it_asked_for_gets_a_job_at_once() -> None:
    silent = finished(WISH, seen=observed(make_job(status=COMPLETE), dead_pod(0)))

    (action,) = look(make_subject(WISH, status=silent), observed()).actions

    assert isinstance(action, Create)
    assert action.manifest["metadata"]["name"] == "hina-e1"


UNWANTED = {
    "the same wish": (finished(WISH), (WISH,)),
    "no wish": (finished(), ()),
    "the wish with its defaults said": (finished(("evaluation", {})), (("evaluation", {"report": True}),)),
    "a training that failed": (
        finished(seen=observed(make_job(status=FAILED), dead_pod(71))),
        (WISH,),
    ),
}


@pytest.mark.parametrize(("status", "changes"), UNWANTED.values(), ids=UNWANTED)
def test_without_a_new_wish_nothing_is_done(status: dict[str, Any], changes: tuple[tuple[str, Any], ...]) -> None:
    assert look(make_subject(*changes, status=status), observed()) == Decision()


@pytest.mark.parametrize(
    ("subject", "seen"),
    [
        (begun(), observed(None, running_pod())),
        (begun(), observed(job(OTHER))),
        (begun(("suspend", True)), observed()),
        (begun(("profile", "gone")), observed()),
    ],
    ids=["pods are left", "a job for another wish", "paused", "no profile"],
)
def test_no_job_is_made_while(subject: Subject, seen: Observed) -> None:
    assert not any(isinstance(action, Create) for action in look(subject, seen).actions)


@pytest.mark.parametrize("status", [{}, COMPLETE], ids=["running", "ended"])
def test_a_job_for_another_wish_goes_first(status: dict[str, Any]) -> None:
    decision = look(begun(), observed(job(OTHER, generation=3, status=status)))

    assert decision.actions == (Delete("hina-e3", "evaluation-3"),)


def test_what_is_done_is_not_done_again() -> None:
    seen, subject = observed(job(), pod(), report=ProgressReport(reason="Evaluating")), begun()
    first = told(look(subject, seen))

    again = look(make_subject(WISH, status=first.to_document(), generation=2), seen, seconds=60)

    assert evaluated(first).reason == "Evaluating"
    assert (again.actions, again.status, again.events) == ((), None, ())


NO_IMAGE = make_pod(state={"waiting": {"reason": "ErrImagePull"}}, job_uid=JOB_UID, stage=names.STAGE_EVALUATION)
DOING = {
    "no pod": (observed(job()), "WaitingForPod"),
    "image": (observed(job(), NO_IMAGE), "ImagePullFailed"),
    "loading": (observed(job(), pod(), report=ProgressReport(reason="LoadingModel")), "LoadingModel"),
    "drawing": (observed(job(), pod(), report=ProgressReport(reason="Sampling")), "Evaluating"),
    "retrying": (observed(job(), pod(69)), "Retrying"),
    "refused": (observed(refusal="denied the request"), "JobRefused"),
}


@pytest.mark.parametrize(("seen", "reason"), DOING.values(), ids=DOING)
def test_the_condition_tells_what_the_job_is_at(seen: Observed, reason: str) -> None:
    found = evaluated(told(look(begun(), seen)))

    assert (found.status, found.reason) == ("Unknown", reason)


@pytest.mark.parametrize(
    ("change", "reason"),
    [(("profile", "gone"), "ProfileNotFound"), (("network", {"rnk": 4}), "InvalidSpec")],
    ids=["profile", "spec"],
)
def test_a_spec_that_cannot_be_carried_out_is_told(change: tuple[str, Any], reason: str) -> None:
    found = told(look(make_subject(WISH, change, status=finished(), generation=2), observed()))
    again = look(make_subject(WISH, change, status=found.to_document(), generation=2), observed())
    status = again.status or found

    assert (evaluated(status).status, evaluated(status).reason) == ("Unknown", reason)
    assert again.actions == ()


def test_pictures_that_are_drawn_are_told_of_once_per_interval() -> None:
    first = observed(job(), pod(), report=ProgressReport(reason="Evaluating", message="grid 1 of 2"))
    status = told(look(begun(), first))
    later = observed(job(), pod(), report=ProgressReport(reason="Evaluating", message="grid 2 of 2"), written=NOW)
    subject = make_subject(WISH, status=status.to_document(), generation=2)

    early, due = (look(subject, later, seconds=seconds, interval=30) for seconds in (10, 30))

    assert (early.status, early.requeue_after_seconds) == (None, 20)
    assert evaluated(told(due)).message == "grid 2 of 2"


@pytest.mark.parametrize(("limits", "seconds"), [((), 1741), ((("limits.stallSeconds", 600),), 541)])
def test_a_pod_that_says_nothing_is_looked_at_when_it_is_to_be_called_stalled(
    limits: tuple[tuple[str, Any], ...], seconds: float
) -> None:
    patience = None if limits else 1800
    said = ProgressReport(reason="Evaluating", active_time=format_time(moment(-60)), patience_seconds=patience)

    decision = look(begun(*limits), observed(job(), pod(), report=said))
    late = look(begun(*limits), observed(job(), pod(), report=said), seconds=seconds)

    assert decision.requeue_after_seconds == seconds
    assert evaluated(told(late)).reason == "Stalled"


WORD = {
    "reason": "Evaluated",
    "evaluation": {"digest": "as another version counts", "reason": "Completed", "message": "3 it is", "bestEpoch": 3},
    "artifacts": {"gridUri": "s3://r/new.png"},
    "notices": [{"reason": "PictureSkipped", "message": "epoch 2 is gone"}],
}


def test_the_last_word_is_the_end_of_the_evaluation() -> None:
    decision = look(begun(), observed(job(status=COMPLETE), pod(0, WORD)))

    status = told(decision)
    assert (evaluated(status).status, evaluated(status).message) == ("True", "3 it is")
    assert status.evaluation is not None
    assert (status.evaluation.digest, status.evaluation.best_epoch) == (digest(), 3)
    assert [(event.type, event.reason) for event in decision.events] == [
        ("Warning", "PictureSkipped"),
        ("Normal", "Evaluated"),
    ]


def test_what_an_evaluation_no_longer_makes_is_no_longer_told() -> None:
    artifacts = told(look(begun(), observed(job(status=COMPLETE), pod(0, WORD)))).artifacts

    assert artifacts is not None
    assert artifacts.to_document() == {"adapterUri": "s3://r/a", "gridUri": "s3://r/new.png"}


def test_after_the_end_nothing_is_left_to_do() -> None:
    seen = observed(job(status=COMPLETE), pod(0, WORD))
    status = told(look(begun(), seen))

    assert look(make_subject(WISH, status=status.to_document(), generation=2), seen) == Decision()


@pytest.mark.parametrize("word", [{}, {"evaluation": {"reason": "Measuring"}}], ids=["none", "of another kind"])
def test_an_evaluation_that_does_not_say_what_it_found_has_ended_all_the_same(word: dict[str, Any]) -> None:
    status = told(look(begun(), observed(job(status=COMPLETE), pod(0, word))))

    assert (evaluated(status).status, status.evaluation and status.evaluation.digest) == ("True", digest())
    assert status.evaluation is not None and status.evaluation.best_epoch == 7


def test_a_failure_that_the_trainer_tells_is_believed_and_told_once() -> None:
    word = {
        "evaluation": {"reason": "Failed", "message": "no epoch could be read"},
        "notices": [{"reason": "EvaluationFailed", "message": "no epoch could be read"}],
    }

    decision = look(begun(), observed(job(status=COMPLETE), pod(0, word)))

    found = evaluated(told(decision))
    assert (found.status, found.reason, found.message) == ("False", "Failed", "no epoch could be read")
    assert [event.reason for event in decision.events] == ["EvaluationFailed"]


TIME_OVER = ended("Failed", "DeadlineExceeded")
VAIN = tuple(pod(75, name=f"p{number}") for number in range(MOST_IN_VAIN))
FAILURES = {
    "exit code": (observed(job(status=FAILED), pod(77, {"message": "403"})), "AccessDenied", "403"),
    "time": (observed(job(status=TIME_OVER)), "DeadlineExceeded", "the evaluation ran longer than"),
    "interrupted for ever": (observed(job(), *VAIN), "NoProgress", "See why its pods are stopped"),
}


CURES = {
    64: "Correct the field that is named. It is tried again",
    70: "widthPx and heightPx of spec.evaluation.grid.prompts",
    137: "a new LoraTraining with the same settings and output trains nothing",
}


@pytest.mark.parametrize(("code", "cure"), CURES.items())
def test_a_cure_is_one_that_a_finished_training_can_have(code: int, cure: str) -> None:
    word = {"message": "weights is wrong.", "hint": outcome_of(code).hint}

    found = evaluated(told(look(begun(), observed(job(status=FAILED), pod(code, word)))))

    assert cure in found.message
    assert ".." not in found.message


def test_a_long_failure_leaves_room_for_its_cure() -> None:
    found = evaluated(told(look(begun(), observed(job(status=FAILED), pod(77, {"message": "x" * 2000})))))

    assert found.message.endswith("or is removed and set again.")
    assert "credentialsSecretRef" in found.message


@pytest.mark.parametrize(("seen", "reason", "words"), FAILURES.values(), ids=FAILURES)
def test_a_failure_is_told_with_reason_and_cure(seen: Observed, reason: str, words: str) -> None:
    decision = look(begun(("limits", {"activeSeconds": 60})), seen)

    status = told(decision)
    assert (evaluated(status).status, evaluated(status).reason) == ("False", reason)
    assert words in evaluated(status).message
    assert status.evaluation is not None
    assert (status.evaluation.reason, status.evaluation.digest, status.evaluation.best_epoch) == ("Failed", digest(), 7)
    assert status.phase == "Succeeded"
    assert [(event.type, event.reason) for event in decision.events] == [("Warning", "EvaluationFailed")]


def test_a_job_that_runs_on_after_its_end_was_told_is_stopped() -> None:
    status = told(look(begun(), observed(job(), *VAIN)))

    decision = look(make_subject(WISH, status=status.to_document(), generation=2), observed(job(), *VAIN))

    assert decision.actions == (Delete("hina-e2", JOB_UID),)


def test_the_end_waits_for_pods_that_still_save() -> None:
    decision = look(begun(), observed(job(status=failing("PodFailurePolicy")), pod(gone_in=30.0)))

    assert evaluated(told(decision)).status == "Unknown"
    assert decision.requeue_after_seconds == 90


def test_a_pause_holds_the_job() -> None:
    (action,) = look(begun(("suspend", True)), observed(job(), pod())).actions

    assert isinstance(action, PatchJob)
    assert (action.name, action.patch["spec"]) == ("hina-e2", {"suspend": True})


def test_a_pause_takes_the_job_out_of_its_queue() -> None:
    queued = begun(("suspend", True), ("scheduling", {"queueName": "gpus"}))

    decision = look(queued, observed(job(), pod(), queue=QueueState("gpus", reason="Admitted")))

    assert decision.actions == (Delete("hina-e2", JOB_UID),)


def test_a_wish_that_is_withdrawn_stops_the_job_and_is_told() -> None:
    subject = make_subject(status=begun().status.to_document(), generation=3)

    decision = look(subject, observed(job(), pod()))

    assert decision.actions == (Delete("hina-e2", JOB_UID),)
    assert (evaluated(told(decision)).status, evaluated(told(decision)).reason) == ("False", "NotRequested")


def test_a_failed_evaluation_is_made_again_when_it_is_removed_and_set_again() -> None:
    failed = told(look(begun(), observed(job(status=FAILED), pod(69)))).to_document()

    removed = look(make_subject(status=failed, generation=3), observed())
    again = look(make_subject(WISH, status=told(removed).to_document(), generation=4), observed())

    assert (evaluated(told(removed)).status, evaluated(told(removed)).reason) == ("False", "NotRequested")
    assert (evaluated(told(again)).status, evaluated(told(again)).reason) == ("Unknown", "Pending")
    assert look(make_subject(status=told(removed).to_document(), generation=3), observed()) == Decision()


def test_a_wish_that_comes_back_is_made_anew_for_another_had_begun() -> None:
    back = ("evaluation", {"report": False})

    decision = look(make_subject(back, status=begun().status.to_document(), generation=3), observed())

    (action,) = decision.actions
    assert isinstance(action, Create) and action.manifest["metadata"]["name"] == "hina-e3"


def test_the_job_goes_when_its_own_time_is_over() -> None:
    ttl = ("ttlSecondsAfterFinished", 7200)
    seen = observed(job(status=COMPLETE), pod(0, WORD))
    status = told(look(begun(ttl), seen)).to_document()
    subject = make_subject(WISH, ttl, status=status, generation=2)

    assert look(subject, seen, seconds=3599) == Decision(requeue_after_seconds=1)
    assert look(subject, seen, seconds=3600).actions == (Delete("hina-e2", JOB_UID),)


def test_the_job_stays_until_its_result_is_told() -> None:
    decision = look(begun(("ttlSecondsAfterFinished", 0)), observed(job(status=COMPLETE), pod(0, WORD)))

    assert decision.actions == ()
    assert evaluated(told(decision)).status == "True"


def test_only_an_evaluation_that_has_ended_is_known_by_its_digest() -> None:
    meanwhile = {"evaluation": {"digest": digest(), "reason": "Measuring"}}
    status = finished(WISH, seen=observed(make_job(status=COMPLETE), dead_pod(0, meanwhile)))

    (action,) = look(make_subject(WISH, status=status), observed()).actions

    assert isinstance(action, Create)


def test_a_result_that_the_api_server_refuses_is_not_made_again() -> None:
    subject = begun()
    after = told(look(subject, observed(job(status=COMPLETE), pod(0, WORD))))

    written = without_report(subject.status, after, "too large")

    again = make_subject(WISH, status=written.to_document(), generation=2)
    assert look(again, observed()) == Decision()


def test_children_of_a_finished_training_are_told_apart() -> None:
    training, evaluation = make_job(status=COMPLETE), job()

    seen = Observed.of_finished([evaluation, training], [pod(), dead_pod(0)])

    assert (seen.job, seen.older_jobs, seen.preflight) == (evaluation, (training,), None)
    assert [found.job_uid for found in seen.job_pods] == [JOB_UID]


def test_a_job_that_trains_is_never_one_that_evaluates() -> None:
    training, evaluation = make_job(), job()

    assert Observed.of([evaluation, training], []).job == training
