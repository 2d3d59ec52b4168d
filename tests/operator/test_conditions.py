"""lora_operator.conditions"""

from datetime import timedelta
from typing import Any

import pytest

from lora_api import ProgressReport
from lora_api.status import Condition, ConditionType, EvaluationStatus, Phase, Plan, Progress
from lora_operator.observed import Observed, Pod
from lora_operator.status import derive_status
from lora_operator.timestamps import format_time
from lora_operator.view import ACCEPTED, Acceptance
from tests.support.observations import (
    COMPLETE,
    FAILED,
    NOW,
    dead_pod,
    disrupted,
    make_job,
    make_pod,
    make_preflight_job,
    make_subject,
    moment,
    observed,
    running_pod,
    waiting_pod,
)

SUSPENDED = {"conditions": [{"type": "Suspended", "status": "True", "reason": "JobSuspended"}]}
UNSCHEDULABLE = [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}]
TRAINING = ProgressReport(reason="Training", progress=Progress(step=5, total_steps=10))


def report(reason: str, message: str = "") -> ProgressReport:
    return ProgressReport(reason=reason, message=message)


def find(
    kind: str, seen: Observed, *changes: tuple[str, Any], acceptance: Acceptance = ACCEPTED, **state: Any
) -> Condition:
    status = derive_status(make_subject(*changes, **state), seen, acceptance=acceptance, now=NOW)
    return next(condition for condition in status.conditions if condition.type == kind)


def told(condition: Condition) -> tuple[str, str]:
    return condition.status, condition.reason


def test_every_condition_is_there_from_the_first_look() -> None:
    status = derive_status(make_subject(), observed(), acceptance=ACCEPTED, now=NOW)

    always = [kind for kind in ConditionType if kind != ConditionType.STALLED]
    assert [condition.type for condition in status.conditions] == always
    assert all(condition.reason and condition.message for condition in status.conditions)


@pytest.mark.parametrize(
    ("seen", "acceptance", "reason"),
    [
        (observed(), Acceptance(False, "ProfileNotFound", "no such profile"), "ProfileNotFound"),
        (observed(make_job(status=FAILED), dead_pod(65)), ACCEPTED, "InvalidDataset"),
    ],
    ids=["not accepted", "failed"],
)
def test_what_needs_somebodys_help_is_told_to_readers_of_any_kind(
    seen: Observed, acceptance: Acceptance, reason: str
) -> None:
    assert told(find("Stalled", seen, acceptance=acceptance)) == ("True", reason)


@pytest.mark.parametrize(
    "seen",
    [observed(make_job(), running_pod()), observed(make_job(status=COMPLETE), dead_pod(0))],
    ids=["running", "succeeded"],
)
def test_what_goes_on_or_has_ended_well_has_no_condition_stalled(seen: Observed) -> None:
    status = derive_status(make_subject(), seen, acceptance=ACCEPTED, now=NOW)

    assert "Stalled" not in {condition.type for condition in status.conditions}


def test_a_refused_spec_is_told_with_its_reason() -> None:
    refused = Acceptance(False, "InvalidSpec", "spec.network.rnk is no known field")

    found = find("Accepted", observed(), acceptance=refused)

    assert (*told(found), found.message) == ("False", "InvalidSpec", "spec.network.rnk is no known field")
    assert told(find("Scheduled", observed(), acceptance=refused)) == ("Unknown", "NotAccepted")


LOST = make_pod(phase="Failed", conditions=disrupted("DeletionByPodGC", "PodGC: node no longer exists"))
SCHEDULED = {
    "no job yet": (observed(), "Unknown", "Creating"),
    "refused": (observed(refusal="denied the request"), "False", "JobRefused"),
    "pod refused": (observed(make_job(), pod_refusal="violates PodSecurity"), "False", "PodRefused"),
    "no quota": (observed(make_job(), pod_refusal="exceeded quota: small"), "False", "QuotaExceeded"),
    "old pods": (observed(None, running_pod()), "False", "WaitingForPods"),
    "no pod yet": (observed(make_job()), "Unknown", "WaitingForPod"),
    "suspended": (observed(make_job(suspend=True)), "False", "Suspended"),
    "no node yet": (observed(make_job(), make_pod(node="")), "Unknown", "WaitingForScheduler"),
    "no node fits": (observed(make_job(), make_pod(node="", conditions=UNSCHEDULABLE)), "False", "Unschedulable"),
    "bound": (observed(make_job(), make_pod()), "True", "Scheduled"),
    "creating": (observed(make_job(), waiting_pod("ContainerCreating")), "True", "Scheduled"),
    "running": (observed(make_job(), running_pod()), "True", "Scheduled"),
    "image": (observed(make_job(), waiting_pod("ImagePullBackOff", "no such image")), "False", "ImagePullFailed"),
    "image name": (observed(make_job(), waiting_pod("InvalidImageName", "?")), "False", "ImagePullFailed"),
    "start": (observed(make_job(), waiting_pod("RunContainerError", "no exec")), "False", "ContainerFailed"),
    "secret": (
        observed(make_job(), waiting_pod("CreateContainerConfigError", 'secret "s3" not found')),
        "False",
        "SecretMissing",
    ),
    "secret key": (
        observed(make_job(), waiting_pod("CreateContainerConfigError", "couldn't find key token in Secret ml/hf")),
        "False",
        "SecretMissing",
    ),
    "config": (
        observed(make_job(), waiting_pod("CreateContainerConfigError", 'configmap "ca" not found')),
        "False",
        "ConfigMapMissing",
    ),
    "volume": (
        observed(make_job(), waiting_pod("ContainerCreating"), mount_problem='x : secret "s3" not found'),
        "False",
        "SecretMissing",
    ),
    "again": (observed(make_job(), dead_pod(69)), "False", "Retrying"),
    "done, and its Job does not know yet": (observed(make_job(), dead_pod(0)), "True", "Scheduled"),
    "preempted": (
        observed(make_job(), dead_pod(75, conditions=disrupted("PreemptionByScheduler", "higher priority"))),
        "False",
        "Preempted",
    ),
    "node silent": (
        observed(make_job(), running_pod(is_deleting=True, conditions=disrupted("DeletionByTaintManager", "taint"))),
        "False",
        "NodeLost",
    ),
    "node lost, no pod yet": (observed(make_job(), LOST, make_pod(name="next", node="")), "False", "NodeLost"),
    "node lost, next pod bound": (observed(make_job(), LOST, make_pod(name="next")), "True", "Scheduled"),
    "over": (observed(make_job(status=COMPLETE), dead_pod(0)), "False", "Finished"),
}


@pytest.mark.parametrize(("seen", "status", "reason"), SCHEDULED.values(), ids=SCHEDULED)
def test_scheduled_tells_why_no_pod_is_bound(seen: Observed, status: str, reason: str) -> None:
    assert told(find("Scheduled", seen)) == (status, reason)


@pytest.mark.parametrize(
    ("change", "secret", "field"),
    [
        (("storage.credentialsSecretRef", {"name": "s3"}), "s3", "spec.storage.credentialsSecretRef"),
        (("baseModel", {"uri": "hf://a/b", "tokenSecretRef": {"name": "hf", "key": "t"}}), "hf", "tokenSecretRef"),
    ],
    ids=["store", "hub"],
)
def test_a_missing_secret_is_told_by_the_field_that_names_it(change: tuple[str, Any], secret: str, field: str) -> None:
    seen = observed(make_job(), waiting_pod("CreateContainerConfigError", f'secret "{secret}" not found'))

    message = find("Scheduled", seen, change).message

    assert message.startswith(f"Secret {secret} (")
    assert field in message


def test_a_retry_is_told_with_the_words_of_the_pod_that_failed() -> None:
    seen = observed(make_job(), dead_pod(69, {"message": "s3://b: connection refused"}))

    message = find("Scheduled", seen).message

    assert "StorageUnavailable: s3://b: connection refused; the Job starts another one" in message


def test_what_took_the_pod_before_stays_told_while_the_next_one_finds_no_node() -> None:
    waits = make_pod(name="next", node="", conditions=UNSCHEDULABLE)

    found = find("Scheduled", observed(make_job(), LOST, waits))

    assert found.reason == "Unschedulable"
    assert "0/1 nodes" in found.message and "PodGC: node no longer exists" in found.message


def test_the_registrys_words_stay_when_the_kubelet_backs_off_without_them() -> None:
    before = find("Scheduled", observed(make_job(), waiting_pod("ErrImagePull", "pull access denied")))

    found = find(
        "Scheduled",
        observed(make_job(), waiting_pod("ImagePullBackOff", 'Back-off pulling image "trainer:1"')),
        status={"conditions": [before.to_document()]},
    )

    assert found.message == before.message


def test_no_secret_is_shown_in_a_condition() -> None:
    said = report("Downloading", "GET https://s3/b/k?X-Amz-Signature=5ec0de")

    found = find("Running", observed(make_job(), running_pod(), report=said))

    assert found.message == "GET https://s3/b/k?X-Amz-Signature=***"


RUNNING = {
    "no pod": (observed(make_job()), "False", "NotStarted"),
    "waiting": (observed(make_job(), waiting_pod("ContainerCreating")), "False", "NotStarted"),
    "silent": (observed(make_job(), running_pod()), "False", "Starting"),
    "downloading": (observed(make_job(), running_pod(), report=report("Downloading")), "False", "Downloading"),
    "loading": (observed(make_job(), running_pod(), report=report("LoadingModel")), "False", "LoadingModel"),
    "encoding": (observed(make_job(), running_pod(), report=report("EncodingLatents")), "False", "EncodingLatents"),
    "resuming": (observed(make_job(), running_pod(), report=report("Resuming")), "False", "Resuming"),
    "training": (observed(make_job(), running_pod(), report=report("Training")), "True", "Training"),
    "sampling": (observed(make_job(), running_pod(), report=report("Sampling")), "True", "Training"),
    "saving": (observed(make_job(), running_pod(), report=report("Saving")), "True", "Training"),
    "measuring": (observed(make_job(), running_pod(), report=report("Measuring")), "True", "Training"),
    "evaluating": (observed(make_job(), running_pod(), report=report("Evaluating")), "True", "Evaluating"),
    "odd": (observed(make_job(), running_pod(), report=report("3 odd-ones_")), "False", "oddones"),
    "over": (observed(make_job(status=COMPLETE), dead_pod(0)), "False", "Finished"),
}


@pytest.mark.parametrize(("seen", "status", "reason"), RUNNING.values(), ids=RUNNING)
def test_running_tells_what_the_trainer_does(seen: Observed, status: str, reason: str) -> None:
    assert told(find("Running", seen)) == (status, reason)


def test_pictures_that_are_drawn_for_the_evaluation_are_no_steps() -> None:
    evaluating = observed(make_job(), running_pod(), report=report("Evaluating"))
    before = derive_status(make_subject(), evaluating, acceptance=ACCEPTED, now=NOW).to_document()

    found = find("Running", observed(make_job(), running_pod(), report=report("Sampling", "12 of 70")), status=before)

    assert (*told(found), found.message) == ("True", "Evaluating", "12 of 70")


WISH = ("evaluation", {})
MEASURED = ProgressReport(reason="Training", evaluation=EvaluationStatus(reason="Measuring", message="epoch 3 leads"))


def end_with(reason: str) -> Observed:
    word = {"evaluation": {"digest": "d", "reason": reason, "message": "said so", "bestEpoch": 3}}
    return observed(make_job(status=COMPLETE), dead_pod(0, word))


EVALUATED = {
    "nothing yet": (observed(), True, ("Unknown", "Measuring")),
    "not asked for": (observed(), False, ("False", "NotRequested")),
    "measuring": (observed(make_job(), running_pod(), report=MEASURED), True, ("Unknown", "Measuring")),
    "completed": (end_with("Completed"), True, ("True", "Completed")),
    "failed": (end_with("Failed"), True, ("False", "Failed")),
    "completed unasked": (end_with("Completed"), False, ("True", "Completed")),
    "no word of it": (observed(make_job(status=COMPLETE), dead_pod(0)), True, ("Unknown", "Pending")),
    "training failed": (observed(make_job(status=FAILED), dead_pod(71)), True, ("False", "TrainingFailed")),
}


@pytest.mark.parametrize(("seen", "wished", "expected"), EVALUATED.values(), ids=EVALUATED)
def test_evaluated_tells_whether_the_epochs_are_compared(
    seen: Observed, wished: bool, expected: tuple[str, str]
) -> None:
    assert told(find("Evaluated", seen, *([WISH] if wished else []))) == expected


def test_evaluated_says_in_the_trainers_words_what_is_known() -> None:
    seen = observed(make_job(), running_pod(), report=MEASURED)

    assert find("Evaluated", seen, WISH).message == "epoch 3 leads"
    assert find("Evaluated", end_with("Completed"), WISH).message == "said so"


@pytest.mark.parametrize("doing", ["Training", "LoadingModel", "Downloading"])
@pytest.mark.parametrize(("minutes", "status", "reason"), [(29, None, None), (31, "False", "Stalled")])
def test_a_trainer_silent_for_longer_than_its_work_explains_is_stalled(
    minutes: int, status: str | None, reason: str | None, doing: str
) -> None:
    last = format_time(NOW - timedelta(minutes=minutes))
    said = ProgressReport(reason=doing, active_time=last, patience_seconds=1800)

    found = find("Running", observed(make_job(), running_pod(), report=said))

    expected = (status or ("True" if doing == "Training" else "False"), reason or doing)
    assert told(found) == expected
    assert (last in found.message) is (reason == "Stalled")


def test_a_trainer_that_says_that_it_hangs_is_believed() -> None:
    found = find("Running", observed(make_job(), running_pod(), report=report("Stalled", "no step for 1800 s")))

    assert (*told(found), found.message) == ("False", "Stalled", "no step for 1800 s")


def test_a_pod_that_its_node_lost_is_not_running() -> None:
    lost = running_pod(is_deleting=True, conditions=disrupted("DeletionByTaintManager", "NoExecute taint"))

    found = find("Running", observed(make_job(), lost, report=TRAINING))

    assert told(found) == ("False", "NodeLost")
    assert "node-1" in found.message


PLAN = {"images": 20, "regularizationImages": 5, "batchesPerEpoch": 10, "stepsPerEpoch": 10, "totalSteps": 100}
CHECK = make_preflight_job()
PASSED = make_preflight_job(status=COMPLETE)
REFUSED = make_preflight_job(status=FAILED)
CHECKING = running_pod(job_uid=CHECK.uid, stage="preflight")


def check_pod(code: int, word: dict[str, Any]) -> Pod:
    return dead_pod(code, word, job_uid=CHECK.uid, stage="preflight")


DATASET = {
    "nothing yet": (observed(), "Unknown", "NotChecked"),
    "downloading": (observed(make_job(), running_pod(), report=report("Downloading")), "False", "Downloading"),
    "read": (observed(make_job(status=COMPLETE), dead_pod(0, {"plan": PLAN})), "True", "Verified"),
    "invalid": (observed(make_job(status=FAILED), dead_pod(65, {"message": "empty"})), "False", "InvalidDataset"),
    "denied": (observed(make_job(status=FAILED), dead_pod(77, {"message": "403"})), "False", "AccessDenied"),
    "being checked": (
        observed(None, CHECKING, preflight=CHECK, report=report("CheckingData", "picture 3 of 20")),
        "False",
        "CheckingData",
    ),
    "read, not yet passed": (
        observed(
            None,
            CHECKING,
            preflight=CHECK,
            report=ProgressReport(reason="CheckingData", plan=Plan.model_validate(PLAN)),
        ),
        "False",
        "CheckingData",
    ),
    "check begins": (observed(preflight=CHECK), "False", "CheckingData"),
    "passed": (observed(preflight=PASSED), "True", "Verified"),
    "passed with a plan": (observed(None, check_pod(0, {"plan": PLAN}), preflight=PASSED), "True", "Verified"),
    "not passed": (
        observed(None, check_pod(66, {"message": "gated"}), preflight=REFUSED),
        "False",
        "BaseModelUnavailable",
    ),
    "denied later": (observed(make_job(status=FAILED), dead_pod(77, {"plan": PLAN})), "True", "Verified"),
}


@pytest.mark.parametrize(("seen", "status", "reason"), DATASET.values(), ids=DATASET)
def test_dataset_ready_tells_whether_the_pictures_were_read(seen: Observed, status: str, reason: str) -> None:
    assert told(find("DatasetReady", seen)) == (status, reason)


SUSPENSION = {
    "not wanted": (observed(make_job(), running_pod()), False, "False", "NotSuspended"),
    "wanted": (observed(make_job(), running_pod()), True, "False", "Suspending"),
    "stopping": (observed(make_job(suspend=True, status=SUSPENDED), running_pod()), True, "False", "Suspending"),
    "stopped": (observed(make_job(suspend=True, status=SUSPENDED), dead_pod(75)), True, "True", "UserRequested"),
    "from the start": (observed(make_job(suspend=True, status=SUSPENDED)), True, "True", "UserRequested"),
    "over": (observed(make_job(suspend=True, status=COMPLETE), dead_pod(0)), True, "False", "NotSuspended"),
    "checked": (observed(preflight=make_preflight_job(status=COMPLETE)), True, "True", "UserRequested"),
}


@pytest.mark.parametrize(("seen", "wanted", "status", "reason"), SUSPENSION.values(), ids=SUSPENSION)
def test_suspended_is_true_when_no_pod_is_left(seen: Observed, wanted: bool, status: str, reason: str) -> None:
    assert told(find("Suspended", seen, ("suspend", wanted))) == (status, reason)


ENDS = {
    "running": (observed(make_job(), running_pod()), ("Unknown", "InProgress"), ("False", "InProgress")),
    "complete": (observed(make_job(status=COMPLETE), dead_pod(0)), ("True", "Completed"), ("True", "Succeeded")),
    "failed": (observed(make_job(status=FAILED), dead_pod(71)), ("False", "Diverged"), ("True", "Failed")),
}


@pytest.mark.parametrize(("seen", "succeeded", "finished"), ENDS.values(), ids=ENDS)
def test_succeeded_is_unknown_until_the_end(
    seen: Observed, succeeded: tuple[str, str], finished: tuple[str, str]
) -> None:
    assert told(find("Succeeded", seen)) == succeeded
    assert told(find("Finished", seen)) == finished


PHASES = {
    "nothing": (observed(), Phase.PENDING),
    "unschedulable": (observed(make_job(), make_pod(node="", conditions=UNSCHEDULABLE)), Phase.PENDING),
    "image": (observed(make_job(), waiting_pod("ErrImagePull")), Phase.PENDING),
    "creating": (observed(make_job(), waiting_pod("ContainerCreating")), Phase.STARTING),
    "loading": (observed(make_job(), running_pod(), report=report("LoadingModel")), Phase.STARTING),
    "training": (observed(make_job(), running_pod(), report=TRAINING), Phase.RUNNING),
    "retrying": (observed(make_job(), dead_pod(69)), Phase.PENDING),
    "suspended": (observed(make_job(suspend=True, status=SUSPENDED)), Phase.SUSPENDED),
    "complete": (observed(make_job(status=COMPLETE), dead_pod(0)), Phase.SUCCEEDED),
    "failed": (observed(make_job(status=FAILED), dead_pod(71)), Phase.FAILED),
}


@pytest.mark.parametrize(("seen", "phase"), PHASES.values(), ids=PHASES)
def test_the_phase_is_one_word_for_the_conditions(seen: Observed, phase: Phase) -> None:
    assert derive_status(make_subject(), seen, acceptance=ACCEPTED, now=NOW).phase == phase


def test_the_time_of_a_transition_moves_only_with_the_status() -> None:
    first = derive_status(make_subject(), observed(make_job()), acceptance=ACCEPTED, now=NOW)
    subject = make_subject(status=first.to_document())

    bound = derive_status(subject, observed(make_job(), make_pod()), acceptance=ACCEPTED, now=moment(60))

    times = {condition.type: condition.last_transition_time for condition in bound.conditions}
    assert times["Accepted"] == format_time(NOW)
    assert times["Scheduled"] == format_time(moment(60))


def test_conditions_are_about_the_present_generation() -> None:
    assert find("Accepted", observed(), generation=4).observed_generation == 4
