"""lora_operator.status"""

from typing import Any

import pytest

from lora_api import LoraTrainingStatus, ProgressReport, TerminationMessage
from lora_api.status import (
    Artifacts,
    Attempts,
    BucketSummary,
    Checkpoint,
    Failure,
    MemoryRung,
    Plan,
    Progress,
    SavedState,
)
from lora_operator.observed import Observed, Pod
from lora_operator.status import derive_status, is_urgent, is_worth_writing, last_report, without_report
from lora_operator.timestamps import format_time
from lora_operator.view import ACCEPTED
from tests.support.observations import (
    COMPLETE,
    EARLIER,
    FAILED,
    NOW,
    dead_pod,
    ended,
    failing,
    make_job,
    make_pod,
    make_preflight_job,
    make_subject,
    moment,
    observed,
    running_pod,
)

UNSCHEDULABLE = {
    "type": "PodScheduled",
    "status": "False",
    "reason": "Unschedulable",
    "message": "0/9 nodes are available: 9 Insufficient nvidia.com/gpu.",
}


def derive(
    seen: Observed,
    before: LoraTrainingStatus | None = None,
    *,
    changes: tuple[tuple[str, Any], ...] = (),
    **subject: Any,
) -> LoraTrainingStatus:
    status = before.to_document() if before else None
    return derive_status(make_subject(*changes, status=status, **subject), seen, acceptance=ACCEPTED, now=NOW)


def dead_word(code: int, word: dict[str, Any]) -> TerminationMessage | None:
    ended_pod = dead_pod(code, word).terminated
    return ended_pod.message if ended_pod else None


def progress(step: int, seconds: float = 0.0) -> Progress:
    return Progress(
        step=step, total_steps=1000, epoch=step // 100, total_epochs=10, percent=step // 10,
        updated_time=format_time(moment(seconds)),
    )  # fmt: skip


def running(step: int, seconds: float = 0.0, **said: Any) -> Observed:
    report = ProgressReport(reason="Training", progress=progress(step, seconds), **said)
    return observed(make_job(), running_pod(), report=report)


def checkpoint(epoch: int, uri: str = "") -> Checkpoint:
    return Checkpoint(epoch=epoch, step=epoch * 100, uri=uri or f"s3://b/{epoch}", sha256="0", size_bytes=1)


PLAN = Plan(images=4, batches_per_epoch=10, steps_per_epoch=10, total_steps=100)


def test_what_the_pod_says_is_told() -> None:
    status = derive(running(310, plan=PLAN, checkpoints=(checkpoint(3),), artifacts=Artifacts(samples_uri="s3://b/s")))

    assert status.progress == progress(310)
    assert (status.plan, status.checkpoints) == (PLAN, (checkpoint(3),))
    assert status.artifacts == Artifacts(samples_uri="s3://b/s")
    assert status.summary is not None
    assert (status.summary.epoch, status.summary.progress) == ("3/10", "31%")


def test_the_last_word_outlives_the_last_answer() -> None:
    word = {"progress": progress(1000).to_document(), "message": "done"}
    seen = observed(make_job(status=COMPLETE), dead_pod(0, word), report=ProgressReport(reason="Training"))

    report = last_report(seen)

    assert report is not None
    assert report.message == "done"


def test_a_pod_that_died_without_a_word_is_remembered_by_its_last_answer() -> None:
    answer = ProgressReport(reason="Training", progress=progress(310))

    assert last_report(observed(make_job(), dead_pod(137, ""), report=answer)) == answer


def test_what_can_no_longer_be_seen_is_kept() -> None:
    before = derive(running(310, plan=PLAN, checkpoints=(checkpoint(3),)))

    after = derive(observed(make_job()), before)

    assert (after.progress, after.plan, after.checkpoints) == (before.progress, before.plan, before.checkpoints)
    assert after.start_time == EARLIER


def test_the_same_world_gives_the_same_status() -> None:
    before = derive(running(310, plan=PLAN))

    assert derive(running(310, plan=PLAN), before) == before


def test_older_news_of_another_operator_do_not_turn_time_back() -> None:
    before = derive(running(320, seconds=10))

    assert derive(running(310, seconds=5), before).progress == progress(320, 10)


def test_the_newest_twenty_checkpoints_are_listed_once_each() -> None:
    before = derive(running(1, checkpoints=tuple(checkpoint(epoch) for epoch in range(1, 20))))
    again = checkpoint(19).model_copy(update={"sha256": "new"})

    after = derive(running(1, checkpoints=(again, checkpoint(20), checkpoint(21), checkpoint(22))), before)

    assert [found.epoch for found in after.checkpoints] == list(range(3, 23))
    assert after.checkpoints[16].sha256 == "new"


def test_a_short_last_word_does_not_lose_the_buckets() -> None:
    bucket = BucketSummary(width_px=512, height_px=512, images=4, samples=4, batches=4)
    before = derive(running(1, plan=PLAN.model_copy(update={"buckets": (bucket,)})))

    after = derive(observed(make_job(status=COMPLETE), dead_pod(0, {"plan": PLAN.to_document()})), before)

    assert after.plan is not None
    assert after.plan.buckets == (bucket,)


def test_artifacts_are_added_to_those_that_are_known() -> None:
    before = derive(running(1, artifacts=Artifacts(samples_uri="s3://b/s")))

    after = derive(running(2, artifacts=Artifacts(manifest_uri="s3://b/m")), before)

    assert after.artifacts == Artifacts(samples_uri="s3://b/s", manifest_uri="s3://b/m")


def test_an_end_is_told_with_time_and_failure() -> None:
    status = derive(observed(make_job(status=FAILED), dead_pod(71, {"message": "loss is nan", "step": 12})))

    assert status.completion_time == EARLIER
    assert status.failure == Failure(
        reason="Diverged",
        exit_code=71,
        step=12,
        message="loss is nan",
        hint="The loss is no longer a number; lower the learning rates or use precision bf16 or fp32.",
    )


def test_a_training_that_stopped_early_has_nothing_left_and_tells_the_steps_that_it_made() -> None:
    said = progress(400).model_copy(update={"remaining_seconds": 0}).to_document()

    status = derive(observed(make_job(status=COMPLETE), dead_pod(0, {"progress": said})))

    assert status.progress is not None and status.summary is not None
    assert (status.progress.percent, status.progress.step, status.progress.total_steps) == (100, 400, 1000)
    assert (status.summary.progress, status.summary.epoch, status.summary.left) == ("100%", "4/10", "0s")


def test_a_success_whose_last_word_was_lost_has_nothing_left() -> None:
    before = LoraTrainingStatus(progress=progress(970).model_copy(update={"remaining_seconds": 12}))

    status = derive(observed(make_job(status=COMPLETE)), before)

    assert status.progress is not None
    assert (status.progress.percent, status.progress.remaining_seconds) == (100, 0)


def test_a_training_that_failed_tells_how_far_it_came_and_no_time_left() -> None:
    said = progress(400).model_copy(update={"remaining_seconds": 3900}).to_document()

    status = derive(observed(make_job(status=FAILED), dead_pod(71, {"progress": said})))

    assert status.progress is not None and status.summary is not None
    assert (status.progress.percent, status.progress.remaining_seconds) == (40, None)
    assert (status.summary.progress, status.summary.left) == ("40%", "")


def test_a_training_that_goes_on_has_no_failure() -> None:
    assert derive(observed(make_job(status={"failed": 1}), dead_pod(69))).failure is None


def test_without_a_job_the_attempts_stay() -> None:
    before = derive(observed(make_job(2)))

    assert derive(observed(), before).attempts == before.attempts


WORTH = {
    "nothing": (running(310), False),
    "a later time": (running(310, seconds=30), False),
    "a step": (running(311, seconds=5), True),
    "an end": (observed(make_job(status=COMPLETE), dead_pod(0)), True),
}


@pytest.mark.parametrize(("seen", "worth"), WORTH.values(), ids=WORTH)
def test_only_what_changed_is_written(seen: Observed, worth: bool) -> None:
    before = derive(running(310))

    assert is_worth_writing(before, derive(seen, before)) is worth


URGENT = {
    "a step": (running(311, seconds=5), False),
    "an epoch": (running(400, seconds=5), False),
    "a checkpoint": (running(311, checkpoints=(checkpoint(3),)), False),
    "a plan": (running(310, plan=PLAN), True),
    "a pod that failed": (observed(make_job(status={"failed": 1}), dead_pod(69)), True),
    "a next attempt": (observed(make_job(2), running_pod()), True),
    "an end": (observed(make_job(status=COMPLETE), dead_pod(0)), True),
}


@pytest.mark.parametrize(("seen", "urgent"), URGENT.values(), ids=URGENT)
def test_what_people_decide_by_is_told_at_once(seen: Observed, urgent: bool) -> None:
    before = derive(running(310))

    assert is_urgent(before, derive(seen, before)) is urgent


def test_a_new_generation_is_answered_at_once() -> None:
    before = derive(running(310))

    assert is_urgent(before, derive(running(310), before, generation=2))


def test_states_and_rungs_outlive_the_pod_that_told_them() -> None:
    state = SavedState(step=300, uri="s3://b/state/step-300", save_seconds=4.5)
    rung = MemoryRung(name="HalfBatch", step=10)
    before = derive(running(310, saved_state=state, memory_rungs=(rung,)))

    after = derive(observed(make_job()), before)

    assert (after.saved_state, after.memory_rungs) == (state, (rung,))


def test_the_plan_of_the_check_is_kept_when_the_training_begins() -> None:
    checked = dead_pod(0, {"plan": PLAN.to_document()}, name="hina-data-0-x", job_uid="check", stage="preflight")

    status = derive(observed(make_job(), checked, preflight=make_preflight_job(status=COMPLETE)))

    assert status.plan == PLAN


def test_a_check_that_failed_ends_the_training() -> None:
    dead = dead_pod(65, {"message": "a.png does not decode"}, name="hina-data-0-x", job_uid="check", stage="preflight")

    status = derive(observed(None, dead, preflight=make_preflight_job(status=FAILED)))

    assert status.failure is not None
    assert status.failure.reason == "InvalidDataset"
    assert status.failure.message.endswith("no GPU was asked for")


def test_a_check_that_finds_the_result_ends_the_training_well() -> None:
    word = {"reason": "AlreadyTrained", "message": "the manifest fits"}
    done = dead_pod(0, word, name="hina-data-0-x", job_uid="check", stage="preflight")

    status = derive(observed(None, done, preflight=make_preflight_job(status=COMPLETE)))

    assert status.phase == "Succeeded"
    assert next(c.reason for c in status.conditions if c.type == "Succeeded") == "AlreadyTrained"


def test_time_that_is_used_up_over_several_jobs_ends_the_training() -> None:
    before = LoraTrainingStatus(attempts=Attempts(number=1, active_seconds=600))

    status = derive(observed(), before, changes=(("limits.activeSeconds", 600),))

    assert status.failure is not None
    assert status.failure.reason == "DeadlineExceeded"


def test_running_time_is_added_once_when_the_job_has_ended_and_its_pod_has_not() -> None:
    failed = ended("Failed", "DeadlineExceeded") | {"startTime": format_time(moment(-7200))}
    saving = observed(make_job(status=failed), running_pod(is_deleting=True))

    first = derive(saving)
    second = derive(saving, first)
    end = derive(observed(make_job(status=failed), dead_pod(75)), second)

    assert first == second
    assert end.attempts is not None
    assert (end.attempts.active_seconds, end.attempts.active_since) == (3600, None)


def test_a_pod_that_still_saves_when_time_is_over_has_the_last_word() -> None:
    limit = ("limits.activeSeconds", 600)
    before = LoraTrainingStatus(attempts=Attempts(number=1, active_since=EARLIER))
    saved = {"step": 30, "epoch": 1, "uri": "s3://b/run/state/step-30", "sizeBytes": 9, "savedTime": EARLIER}
    word = {"reason": "Interrupted", "message": "told to stop at step 30", "step": 30, "savedState": saved}

    job = make_job(status=failing("DeadlineExceeded"))
    saving = derive(observed(job, running_pod(is_deleting=True)), before, changes=(limit,))
    # Before Kubernetes 1.31 the Job has failed while its pods still end.
    early = derive(
        observed(make_job(status=ended("Failed", "DeadlineExceeded")), running_pod(is_deleting=True)),
        before,
        changes=(limit,),
    )
    gone = observed(make_job(status=ended("Failed", "DeadlineExceeded")), last_word=dead_word(75, word))
    over = derive(gone, before, changes=(limit,))

    assert (saving.completion_time, early.completion_time) == (None, None)
    assert over.saved_state is not None
    assert over.saved_state.step == 30
    assert over.failure is not None
    assert (over.failure.reason, over.failure.step) == ("DeadlineExceeded", 30)
    assert "(600 s)" in over.failure.message


DEADLINE = failing("DeadlineExceeded", -300)


@pytest.mark.parametrize(
    ("job", "pod", "is_over"),
    [
        (DEADLINE, running_pod(gone_in=-59), False),
        (DEADLINE, running_pod(gone_in=-60), True),
        (failing("DeadlineExceeded", -179), running_pod(), False),
        (failing("DeadlineExceeded", -180), running_pod(), True),
        (ended("Failed", "DeadlineExceeded"), running_pod(gone_in=-60), True),
    ],
    ids=["told to stop", "never gone", "not told yet", "never told", "its Job has given it up"],
)
def test_the_end_of_a_pod_on_a_dead_node_is_not_waited_for(job: dict[str, Any], pod: Pod, is_over: bool) -> None:
    status = derive(observed(make_job(status=job), pod), changes=(("limits.activeSeconds", 600),))

    assert (status.failure is not None and status.failure.reason == "DeadlineExceeded") is is_over
    assert (status.completion_time is not None) is is_over


def test_a_job_that_is_complete_waits_for_no_pod() -> None:
    stuck = running_pod(name="stuck", created="2026-11-22T10:00:00Z", is_deleting=True)

    assert derive(observed(make_job(status=COMPLETE), stuck, dead_pod(0))).phase == "Succeeded"


def test_a_pause_tells_the_state_that_its_pod_saved_last() -> None:
    saved = {"step": 28, "epoch": 0, "uri": "s3://b/run/state/step-28", "sizeBytes": 9, "savedTime": EARLIER}
    word = dead_word(75, {"reason": "Interrupted", "message": "told to stop at step 28", "savedState": saved})

    status = derive(observed(make_job(suspend=True), last_word=word), changes=(("suspend", True),))

    assert status.saved_state is not None
    assert status.saved_state.step == 28


def test_a_start_that_is_waited_for_too_long_ends_the_training_with_the_last_words() -> None:
    before = LoraTrainingStatus(attempts=Attempts(number=1, waiting_since=EARLIER))
    pending = make_pod(conditions=[UNSCHEDULABLE], node="")

    status = derive(observed(make_job(), pending), before, changes=(("scheduling.startDeadlineSeconds", 3600),))

    assert status.failure is not None
    assert status.failure.reason == "StartDeadlineExceeded"
    assert "0/9 nodes" in status.failure.message


def test_a_pause_stops_the_clock_of_the_start() -> None:
    before = LoraTrainingStatus(attempts=Attempts(number=1, waiting_since=EARLIER))
    changes = (("scheduling.startDeadlineSeconds", 3600), ("suspend", True))

    status = derive(observed(make_job(suspend=True)), before, changes=changes)

    assert status.failure is None
    assert status.attempts is not None
    assert status.attempts.waiting_since is None


def test_the_first_progress_is_written() -> None:
    before = derive(observed(make_job(), running_pod(), report=ProgressReport(reason="Training")))

    assert is_worth_writing(before, derive(running(1), before))


def test_a_refused_status_is_written_without_what_the_trainer_said() -> None:
    before, after = derive(observed(make_job())), derive(running(310, plan=PLAN))

    status = without_report(before, after, "status.plan: Invalid value")

    assert (status.plan, status.progress) == (None, None)
    assert status.phase == after.phase
    (message,) = [condition.message for condition in status.conditions if condition.type == "Running"]
    assert message.endswith("cannot be written: status.plan: Invalid value")


IN_VAIN = tuple(dead_pod(75, name=f"pod-{number}") for number in range(6))


def test_a_training_that_is_interrupted_again_and_again_without_a_new_state_ends() -> None:
    status = derive(observed(make_job(), *IN_VAIN))

    assert status.failure is not None
    assert (status.failure.reason, status.phase) == ("NoProgress", "Failed")


def test_a_check_of_the_data_that_is_interrupted_again_and_again_ends_the_training() -> None:
    pods = [dead_pod(76, name=f"hina-data-0-{n}", job_uid="check", stage="preflight") for n in range(6)]

    status = derive(observed(None, *pods, preflight=make_preflight_job()))

    assert status.failure is not None
    assert status.failure.reason == "NoProgress"


def test_a_pause_is_not_ended_for_what_was_interrupted_before() -> None:
    assert derive(observed(make_job(suspend=True), *IN_VAIN), changes=(("suspend", True),)).failure is None
