"""lora_operator.attempts"""

from typing import Any

import pytest

from lora_api import LoraTrainingStatus, ProgressReport
from lora_api.status import Attempts, Condition, PodCount, Progress
from lora_operator.attempts import derive_attempts
from lora_operator.observed import Observed, Pod
from lora_operator.timestamps import format_time
from tests.support.observations import (
    COMPLETE,
    EARLIER,
    NOW,
    dead_pod,
    ended,
    failing,
    make_job,
    make_preflight_job,
    make_subject,
    moment,
    observed,
    running_pod,
)

STARTED = {"startTime": EARLIER}
SUSPENDED = {"conditions": [{"type": "Suspended", "status": "True", "lastTransitionTime": format_time(moment(-600))}]}


def pod(number: int, make: Any = running_pod, *arguments: Any, **changes: Any) -> Pod:
    """The pod with that number, each a minute younger than the one before."""
    created = format_time(moment(60 * number - 3000))
    found: Pod = make(*arguments, name=f"hina-a1-0-{number}", created=created, **changes)
    return found


def count(
    seen: Observed,
    before: Attempts | None = None,
    *,
    changes: tuple[tuple[str, Any], ...] = (),
    report: ProgressReport | None = None,
    evictions: int = 0,
    **status: Any,
) -> Attempts:
    known = LoraTrainingStatus(attempts=before, **status).to_document()
    subject = make_subject(*changes, status=known)
    return derive_attempts(subject, seen, report=report, evictions=evictions, now=NOW)


def numbers(attempts: Attempts) -> tuple[int, int, int]:
    return attempts.number, attempts.failures, attempts.preemptions


def test_failures_and_interruptions_are_counted_apart() -> None:
    pods = pod(1, dead_pod, 69), pod(2, dead_pod, 75), pod(3, dead_pod, 76), pod(4)

    assert numbers(count(observed(make_job(status={"failed": 1}), *pods))) == (1, 1, 2)


def test_a_pod_that_was_gone_before_its_end_was_seen_was_interrupted() -> None:
    before = count(observed(make_job(), pod(1)))

    assert numbers(count(observed(make_job(), pod(2)), before)) == (1, 0, 1)


def test_a_pod_that_was_gone_before_its_failure_was_seen_has_failed() -> None:
    before = count(observed(make_job(), pod(1)))

    assert numbers(count(observed(make_job(status={"failed": 1}), pod(2)), before)) == (1, 1, 0)


def test_a_failure_that_the_job_has_not_counted_yet_is_no_interruption() -> None:
    before = count(observed(make_job(), pod(1)))

    assert numbers(count(observed(make_job(), pod(1, dead_pod, 69), pod(2)), before)) == (1, 0, 0)


def test_an_interruption_is_counted_once_while_its_pod_is_there_and_after() -> None:
    seen = observed(make_job(), pod(1, dead_pod, 75), pod(2))
    first = count(seen)
    again = count(seen, first)

    assert numbers(first) == numbers(again) == numbers(count(observed(make_job(), pod(2)), again)) == (1, 0, 1)


def test_pods_created_in_the_same_second_are_counted_each_and_once() -> None:
    seen = observed(make_job(), *(dead_pod(75, name=f"hina-a1-0-{letter}") for letter in "abc"))
    before = count(seen)

    assert numbers(before) == numbers(count(seen, before)) == (1, 0, 3)


def test_many_failed_pods_are_not_counted_anew() -> None:
    pods = tuple(pod(number, dead_pod, 69) for number in range(40))
    seen = observed(make_job(status={"failed": 40}), *pods)

    assert numbers(count(seen, count(seen))) == (1, 40, 0)


def test_starts_that_only_the_trainer_knows_of_count() -> None:
    before = count(observed(make_job(), pod(1)), report=ProgressReport(starts=1))

    seen = observed(make_job(status={"failed": 1}), pod(9))
    assert numbers(count(seen, before, report=ProgressReport(starts=4))) == (1, 1, 2)


def test_a_pod_that_was_gone_before_any_was_seen_was_interrupted() -> None:
    assert numbers(count(observed(make_job(), pod(2)), report=ProgressReport(starts=2))) == (1, 0, 1)


def test_pods_of_an_object_that_had_the_name_before_do_not_count() -> None:
    old = dead_pod(75, created="2026-11-22T10:59:59Z")

    assert numbers(count(observed(make_job(), old, pod(1)))) == (1, 0, 0)


def test_pods_that_check_the_data_are_no_attempts() -> None:
    check = pod(1, dead_pod, 75, stage="preflight", job_uid="check")

    assert numbers(count(observed(None, check, preflight=make_preflight_job()))) == (0, 0, 0)


def test_a_pause_is_no_interruption() -> None:
    before = count(observed(make_job(), pod(1)))
    paused = count(observed(make_job(suspend=True)), before, changes=(("suspend", True),))

    resumed = count(observed(make_job(), pod(2)), paused)

    assert numbers(paused) == numbers(resumed) == (1, 0, 0)
    assert resumed.pods is not None
    assert resumed.pods.paused == 1


def test_an_interruption_after_a_pause_counts() -> None:
    before = Attempts(number=1, preemptions=1, pods=PodCount(made=3, paused=1, until=format_time(moment(-2880))))

    assert numbers(count(observed(make_job(), pod(9)), before)) == (1, 0, 2)


def test_the_end_of_the_time_is_no_interruption() -> None:
    before = count(observed(make_job(), pod(1)))

    assert numbers(count(observed(make_job(status=ended("Failed", "DeadlineExceeded"))), before)) == (1, 0, 0)


def test_a_pod_that_is_stopped_with_its_failing_job_is_no_interruption() -> None:
    before = count(observed(make_job(), pod(1)))

    after = count(observed(make_job(status=failing("DeadlineExceeded")), pod(1, dead_pod, 75)), before)

    assert numbers(after) == (1, 0, 0)


def test_a_pod_that_still_stops_when_its_job_goes_on_was_paused() -> None:
    before = count(observed(make_job(), pod(1)))
    stopping = pod(1)
    stopping = type(stopping)(**{**stopping.__dict__, "deletion_time": EARLIER})
    paused = count(observed(make_job(suspend=True), stopping), before, changes=(("suspend", True),))

    assert numbers(count(observed(make_job(), pod(2)), paused)) == (1, 0, 0)


def test_an_eviction_by_the_queue_is_counted_once() -> None:
    before = count(observed(make_job(), pod(1)))
    evicted = count(observed(make_job(suspend=True)), before, evictions=1)

    assert numbers(evicted) == numbers(count(observed(make_job(), pod(2)), evicted)) == (1, 0, 1)


def test_an_eviction_explains_a_pod_that_is_gone() -> None:
    before = count(observed(make_job(), pod(1)))

    assert numbers(count(observed(make_job(), pod(2)), before, evictions=1)) == (1, 0, 1)


def test_a_job_deleted_by_hand_interrupts_its_pod() -> None:
    before = count(observed(make_job(), pod(1)))

    assert numbers(count(observed(make_job(2)), before)) == (2, 0, 1)


def test_failures_of_several_jobs_add_up() -> None:
    job = make_job(2, status={"failed": 1})
    before = count(observed(job), Attempts(number=1, failures=2))
    with_base = count(observed(_with_failures_before(job, 2)), Attempts(number=1, failures=2))

    assert (before.failures, with_base.failures) == (2, 3)


def _with_failures_before(job: Any, failures: int) -> Any:
    return type(job)(**{**job.__dict__, "failures_before": failures})


def test_a_completed_pod_is_no_interruption_even_when_it_is_gone() -> None:
    before = count(observed(make_job(), pod(1)))

    assert numbers(count(observed(make_job(status=COMPLETE)), before)) == (1, 0, 0)


def test_lost_steps_lie_between_the_end_of_a_pod_and_where_the_next_one_went_on() -> None:
    pods = pod(1, dead_pod, 76, {"step": 120}), pod(2, dead_pod, 76, {"step": 150, "resumedFromStep": 100}), pod(3)
    report = ProgressReport(resumed_from_step=140)

    first = count(observed(make_job(), *pods), report=report)
    again = count(observed(make_job(), *pods), first, report=report, progress=Progress(step=140))

    assert (first.lost_steps, first.resumed_from_step) == (20 + 10, 140)
    assert again == first


def test_steps_of_a_pod_that_left_no_word_are_lost_from_its_last_answer_on() -> None:
    before = count(observed(make_job(), pod(1)), report=ProgressReport(progress=Progress(step=250)))
    report = ProgressReport(resumed_from_step=200, progress=Progress(step=201))

    after = count(observed(make_job(), pod(2)), before, report=report, progress=Progress(step=250))

    assert after.lost_steps == 50


def test_a_pod_that_begins_anew_loses_all_steps() -> None:
    before = count(observed(make_job(), pod(1)), report=ProgressReport(progress=Progress(step=250)))

    report = ProgressReport(progress=Progress(step=1))
    after = count(observed(make_job(), pod(2)), before, report=report, progress=Progress(step=250))

    assert (after.lost_steps, after.resumed_from_step) == (250, None)


def test_steps_without_end_fit_the_status() -> None:
    before = count(observed(make_job(), pod(1)), report=ProgressReport(progress=Progress(step=1)))
    before = before.model_copy(update={"lost_steps": 2**53 - 1})

    report = ProgressReport(progress=Progress(step=1))
    after = count(observed(make_job(), pod(2)), before, report=report, progress=Progress(step=2**53 - 1))

    assert after.lost_steps == 2**53 - 1


def test_running_time_begins_with_the_job() -> None:
    attempts = count(observed(make_job(status=STARTED), pod(1)))

    assert (attempts.active_seconds, attempts.active_since) == (0, EARLIER)


OVER = {
    "suspended": (observed(make_job(suspend=True, status=SUSPENDED)), 3000),
    "deleted by hand": (observed(), 3600),
    "followed by another job": (observed(make_job(2)), 0),
    "completed": (observed(make_job(status={**COMPLETE, "completionTime": format_time(moment(-60))})), 3540),
}


@pytest.mark.parametrize(("seen", "seconds"), OVER.values(), ids=OVER)
def test_running_time_that_is_over_is_added(seen: Observed, seconds: int) -> None:
    before = Attempts(number=1, active_seconds=10, active_since=EARLIER)

    after = count(seen, before)

    assert (after.active_seconds, after.active_since) == (10 + seconds, None)


def test_a_restart_that_nobody_saw_adds_what_was_heard_of() -> None:
    before = Attempts(number=1, active_since=EARLIER)
    heard = Progress(step=1, updated_time=format_time(moment(-1800)))
    restarted = format_time(moment(-60))

    after = count(observed(make_job(status={"startTime": restarted})), before, progress=heard)

    assert (after.active_seconds, after.active_since) == (1800, restarted)


def test_the_first_start_is_waited_for_since_the_creation() -> None:
    assert count(observed(make_job())).waiting_since == EARLIER


def test_a_start_that_was_seen_is_not_waited_for_again() -> None:
    begun = count(observed(make_job(), pod(1)))

    assert begun.waiting_since is None
    assert count(observed(make_job()), begun).waiting_since is None


def test_the_check_of_the_data_does_not_count_as_waiting() -> None:
    before = count(observed(None, preflight=make_preflight_job()))
    check = pod(1, stage="preflight", job_uid="check")
    checking = count(observed(None, check, preflight=make_preflight_job()), before)
    checked = count(observed(make_job(), preflight=make_preflight_job(status=COMPLETE)), checking)

    assert (before.waiting_since, checking.waiting_since, checked.waiting_since) == (EARLIER, None, EARLIER)


def test_a_resumed_training_is_waited_for_anew() -> None:
    paused = count(observed(make_job(suspend=True)), changes=(("suspend", True),))
    condition = Condition(type="Suspended", status="True", reason="UserRequested", last_transition_time=EARLIER)

    resumed = count(observed(make_job()), paused, conditions=(condition,))

    assert (paused.waiting_since, resumed.waiting_since) == (None, format_time(NOW))
