"""lora_operator.observed"""

from dataclasses import replace
from typing import Any

import pytest

from lora_api import ProgressReport, names
from lora_operator.errors import OperatorError
from lora_operator.observed import (
    ANNOTATION_FAILURES_BEFORE,
    ANNOTATION_INDEX,
    Observed,
    Pod,
    Waiting,
    parse_job,
    parse_pod,
    parse_report,
)
from lora_operator.subject import parse_subject
from tests.support.observations import (
    COMPLETE,
    FAILED,
    JOB_UID,
    UID,
    dead_pod,
    failing,
    job_body,
    make_job,
    make_pod,
    make_preflight_job,
    make_subject,
    observed,
    pod_body,
    running_pod,
    training_body,
    waiting_pod,
)


def test_a_training_is_understood() -> None:
    subject = make_subject(("network.rank", 8))

    assert subject.training is not None
    assert subject.training.spec.network.rank == 8
    assert (str(subject.key), subject.uid, subject.attempt, subject.is_finished) == ("ml/hina", UID, 0, False)


def test_a_spec_that_is_not_understood_is_named() -> None:
    subject = make_subject(("network.rnk", 8))

    assert subject.training is None
    assert "spec.network.rnk is no known field; did you mean rank?" in subject.problem


def test_what_only_python_can_see_is_refused_by_the_operator() -> None:
    subject = make_subject(("optimizer.arguments", {"weight_decay": "much"}))

    assert subject.training is None
    assert "spec.optimizer.arguments.weight_decay is 'much', but must be a number of at least 0" in subject.problem


def test_a_status_that_cannot_be_read_stops_everything() -> None:
    with pytest.raises(OperatorError, match="the status cannot be read"):
        parse_subject(training_body(status={"attempts": {"number": "one"}}))


def test_unknown_fields_of_a_status_are_those_of_another_version() -> None:
    assert make_subject(status={"mood": "sunny"}).status.phase is None


def test_a_finished_training_says_so_itself() -> None:
    condition = {"type": "Finished", "status": "True", "reason": "Failed", "lastTransitionTime": "2026-11-22T11:00:00Z"}

    assert make_subject(status={"conditions": [condition]}).is_finished


def test_a_job_is_understood() -> None:
    body = job_body(2, status={"failed": 1, "startTime": "2026-11-22T11:30:00Z"}, activeDeadlineSeconds=60)
    body["metadata"]["annotations"] = {ANNOTATION_FAILURES_BEFORE: "30"}

    job = parse_job(body)

    assert (job.name, job.attempt, job.owner_uid, job.failed) == ("hina-a2", 2, UID, 1)
    assert (job.active_deadline_seconds, job.failures_before, job.suspend, job.end) == (60, 30, False, None)


@pytest.mark.parametrize(("status", "succeeded"), [(COMPLETE, True), (FAILED, False)], ids=["complete", "failed"])
def test_a_job_has_ended_when_its_last_condition_says_so(status: dict[str, Any], succeeded: bool) -> None:
    end = make_job(status=status).end

    assert end is not None
    assert end.succeeded is succeeded


def test_a_job_that_is_about_to_fail_has_not_ended() -> None:
    job = make_job(status=failing("PodFailurePolicy"))

    assert (job.end, job.is_failing) == (None, True)


def test_the_last_word_is_read_from_the_pod() -> None:
    terminated = dead_pod(65, {"message": "no pictures", "step": 3}).terminated

    assert terminated is not None
    assert terminated.message is not None
    assert (terminated.exit_code, terminated.message.message, terminated.message.step) == (65, "no pictures", 3)


@pytest.mark.parametrize(
    "text",
    ["", "Traceback (most recent call last):", "[]", '{"exitCode": 900}', '{"progress": {"updatedTime": "today"}}'],
)
def test_a_last_word_of_another_kind_is_only_text(text: str) -> None:
    terminated = dead_pod(1, text).terminated

    assert terminated is not None
    assert (terminated.message, terminated.text) == (None, text)


@pytest.mark.parametrize("time", ["today", "2026-11-22T11:00:00"], ids=["no time", "no zone"])
@pytest.mark.parametrize(
    "report",
    [
        '{"progress": {"updatedTime": "TIME"}}',
        '{"activeTime": "TIME"}',
        '{"savedState": {"step": 5, "uri": "s3://lora/state/5", "savedTime": "TIME"}}',
    ],
)
def test_a_report_without_a_sound_time_is_refused(report: str, time: str) -> None:
    with pytest.raises(ValueError, match=time):
        parse_report(report.replace("TIME", time), ProgressReport)


@pytest.mark.parametrize(
    ("pod", "interrupted"),
    [
        (dead_pod(75), True),
        (dead_pod(76), True),
        (dead_pod(69), False),
        (dead_pod(137, "", conditions=[{"type": "DisruptionTarget", "status": "True"}]), True),
        (dead_pod(137, ""), False),
        (running_pod(), False),
    ],
    ids=["75", "76", "69", "disrupted", "killed", "running"],
)
def test_interruptions_are_told_from_failures(pod: Pod, interrupted: bool) -> None:
    assert pod.is_interrupted is interrupted


def test_the_schedulers_words_are_kept() -> None:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}

    assert make_pod(node="", conditions=[condition]).unschedulable == "0/3 nodes"


def test_a_pod_that_is_gated_is_not_unschedulable() -> None:
    condition = {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated", "message": "gated"}

    assert make_pod(node="", conditions=[condition]).unschedulable == ""


def test_only_pods_of_the_newest_job_speak_for_the_training() -> None:
    older = running_pod(name="hina-a1-0-old", job_uid="gone")
    newer = running_pod(name="hina-a2-0-new", job_uid=f"{JOB_UID}-2")

    seen = observed(make_job(2), newer, older)

    assert seen.pod == newer
    assert seen.job_pods == (newer,)


def test_a_mount_problem_explains_a_container_that_is_being_created() -> None:
    pod = observed(make_job(), waiting_pod("ContainerCreating"), mount_problem='secret "s3" not found').pod

    assert pod is not None
    assert pod.waiting == Waiting("FailedMount", 'secret "s3" not found')


def test_all_but_the_newest_running_job_are_surplus() -> None:
    done = make_job(1, status=FAILED)
    running, newest = make_job(2), make_job(3)

    seen = observed(newest, older_jobs=(done, running))

    assert seen.surplus_jobs(is_settled=False) == (running,)
    assert seen.surplus_jobs(is_settled=True) == (newest, running)


def test_the_attempt_is_read_from_the_label_only() -> None:
    body = job_body(1)
    body["metadata"]["labels"][names.LABEL_ATTEMPT] = "one"

    assert parse_job(body).attempt == 0


@pytest.mark.parametrize("number", ["9" * 10, "9" * 5000])
def test_a_number_that_is_too_long_to_be_one_of_ours_is_none(number: str) -> None:
    body = pod_body(index=0)
    body["metadata"]["annotations"][ANNOTATION_INDEX] = number

    assert parse_pod(body).index == 0


def test_failures_that_are_not_in_the_number_yet_count() -> None:
    status = {"failed": 1, "uncountedTerminatedPods": {"failed": ["uid-2"]}}

    assert parse_job(job_body(status=status)).failed == 2


def test_the_check_of_the_data_speaks_until_there_is_a_job_that_trains() -> None:
    check, job = make_preflight_job(), make_job()
    pods = (running_pod(name="hina-data-0-x", job_uid="check", stage="preflight"), running_pod())

    before, after = Observed.of([check], pods[:1]), Observed.of([check, job], pods)

    assert (before.current_job, before.pod) == (check, pods[0])
    assert (after.current_job, after.pod, after.preflight_pods) == (job, pods[1], pods[:1])
    assert after.training_pods == pods[1:]


def test_the_check_of_the_data_is_surplus_beside_a_job_that_trains() -> None:
    check = make_preflight_job()

    assert Observed.of([check], ()).surplus_jobs(False) == ()
    assert Observed.of([check, make_job()], ()).surplus_jobs(False) == (check,)
    assert Observed.of([check], ()).surplus_jobs(True) == (check,)


CHECKING = {"initContainerStatuses": [{"name": names.PREFLIGHT_CONTAINER, "state": {"running": {}}}]}


def test_an_init_container_that_checks_the_data_can_be_asked() -> None:
    pod = make_pod(state={"waiting": {"reason": "PodInitializing"}}, **CHECKING)

    assert (pod.is_running, pod.is_checking, pod.answers, pod.waiting) == (False, True, True, None)


def test_an_init_container_that_failed_ended_the_pod() -> None:
    state = {"terminated": {"exitCode": 75, "reason": "Error", "message": ""}}
    failed = {"initContainerStatuses": [{"name": names.PREFLIGHT_CONTAINER, "state": state}]}

    pod = make_pod(state={"waiting": {"reason": "PodInitializing"}}, phase="Failed", **failed)

    assert pod.terminated is not None
    assert pod.is_interrupted


@pytest.mark.parametrize("names_", [("a", "b"), ("b", "a")], ids=["in order", "out of order"])
def test_of_two_pods_of_the_same_second_the_one_that_lives_is_the_newest(names_: tuple[str, str]) -> None:
    old = replace(dead_pod(69), name=names_[0], uid="old")
    new = replace(make_pod(state={"running": {}}, phase="Running"), name=names_[1], uid="new")

    assert Observed.of([make_job()], [old, new]).pod == new
    assert Observed.of([make_job()], [new, old]).pod == new


def finished_at(second: int, **changes: Any) -> Pod:
    """A pod that ended so many seconds after it was made."""
    terminated = {"exitCode": 69, "reason": "Error", "finishedAt": f"2026-11-22T11:00:{second:02}Z"}
    return make_pod(state={"terminated": terminated}, phase="Failed", **changes)


def test_of_two_dead_pods_of_the_same_second_the_one_that_ended_last_is_the_newest() -> None:
    first, second = finished_at(9, name="z"), finished_at(11, name="a")

    assert Observed.of([make_job()], [first, second]).pods == (first, second)
    assert Observed.of([make_job()], [second, first]).pods == (first, second)


def test_a_dead_pod_that_never_ran_ended_when_it_was_last_told_of() -> None:
    refused = {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-11-22T11:00:03Z"}

    pod = make_pod(phase="Failed", conditions=[refused], status_reason="UnexpectedAdmissionError")

    assert pod.ended == "2026-11-22T11:00:03Z"
