"""Conditions, phase, numbers and time of trainings that a queue holds."""

from dataclasses import replace
from datetime import datetime
from typing import Any

from lora_api import LoraTrainingStatus
from lora_api.status import Phase
from lora_operator.kueue import QueueState, absent
from lora_operator.manifests import Used, build_job, build_job_patch, build_preflight_job
from lora_operator.observed import Job, Observed
from lora_operator.profiles import Profile
from lora_operator.status import derive_status
from lora_operator.subject import Subject
from lora_operator.timestamps import format_time
from lora_operator.view import ACCEPTED
from tests.support.observations import EARLIER, make_job, make_subject, moment

QUEUE = ("scheduling.queueName", "main")
LIMIT = ("limits.activeSeconds", 7200)
WAITS = QueueState("main", "job-hina-a1-0", reason="Pending", message="1 more needed")
RUNS = QueueState("main", "job-hina-a1-0", admitted=True, reason="Admitted", message="The workload is admitted")


def held(*, since: datetime | None = None) -> Job:
    """The Job while the queue holds it."""
    suspended = {"type": "Suspended", "status": "True", "lastTransitionTime": format_time(since) if since else EARLIER}
    return replace(make_job(suspend=True, status={"conditions": [suspended]}), queue_name="main")


def running(since: datetime) -> Job:
    return replace(make_job(status={"startTime": format_time(since)}), queue_name="main")


def look(job: Job, queue: QueueState, *, at: datetime, subject: Subject | None = None) -> LoraTrainingStatus:
    seen = Observed(job=job, queue=queue)
    return derive_status(subject or make_subject(QUEUE), seen, acceptance=ACCEPTED, now=at)


def told(status: LoraTrainingStatus, kind: str) -> tuple[str, str, str]:
    condition = next(c for c in status.conditions if c.type == kind)
    return condition.status, condition.reason, condition.message


def after(status: LoraTrainingStatus, *changes: tuple[str, Any]) -> Subject:
    """The training with what was told of it."""
    return make_subject(QUEUE, *changes, status=status.to_document())


def test_waiting_is_the_phase_queued_with_the_queues_words_and_no_pause() -> None:
    status = look(held(), WAITS, at=moment(0))

    assert status.phase == Phase.QUEUED
    assert told(status, "Scheduled") == ("False", "Queued", "queue main: Pending: 1 more needed")
    assert told(status, "Suspended") == ("False", "Queued", "nobody paused it; it waits in queue main")


def test_an_evicted_training_is_preempted_not_paused() -> None:
    state = replace(WAITS, evictions=1, evicted_time=EARLIER)

    status = look(held(), state, at=moment(0))

    assert status.phase == Phase.QUEUED
    assert told(status, "Suspended")[:2] == ("False", "Preempted")
    assert status.attempts is not None and status.attempts.preemptions == 1


def test_without_kueue_the_field_is_named() -> None:
    status = look(held(), absent("main"), at=moment(0))

    assert status.phase == Phase.QUEUED
    assert told(status, "Scheduled")[1] == "KueueNotFound"
    assert "scheduling.queueName is main" in told(status, "Scheduled")[2]


def test_the_same_eviction_is_counted_once_however_often_it_is_seen() -> None:
    state = replace(WAITS, evictions=1, evicted_time=EARLIER)
    status = look(held(), state, at=moment(0))

    for seconds in (10, 20):
        status = look(held(), state, at=moment(seconds), subject=after(status))

    assert status.attempts is not None and status.attempts.preemptions == 1


def test_running_time_before_an_eviction_stays_used_and_waiting_costs_nothing() -> None:
    status = look(running(moment(0)), RUNS, at=moment(100), subject=make_subject(QUEUE, LIMIT))
    evicted = replace(WAITS, evictions=1, evicted_time=format_time(moment(600)))
    status = look(held(since=moment(600)), evicted, at=moment(605), subject=after(status, LIMIT))
    waited = look(held(since=moment(600)), evicted, at=moment(4000), subject=after(status, LIMIT))
    again = look(running(moment(5000)), RUNS, at=moment(5010), subject=after(waited, LIMIT))

    assert status.attempts is not None and waited.attempts is not None and again.attempts is not None
    assert (status.attempts.active_seconds, status.attempts.active_since) == (600, None)
    assert waited.attempts.active_seconds == 600
    assert (again.attempts.active_seconds, again.attempts.active_since) == (600, format_time(moment(5000)))


def test_a_job_that_is_admitted_again_gets_the_time_that_is_left_and_nothing_else() -> None:
    spec = make_subject(QUEUE, LIMIT).training
    assert spec is not None
    job = replace(running(moment(5000)), active_deadline_seconds=7200)

    patch = build_job_patch(spec.spec, job, Used(active_seconds=600), queued=True)

    assert patch is not None
    assert patch["spec"] == {"activeDeadlineSeconds": 6600}


def test_a_training_that_ran_all_its_time_before_an_eviction_ends_in_the_queue() -> None:
    status = look(running(moment(0)), RUNS, at=moment(100), subject=make_subject(QUEUE, LIMIT))
    status = look(held(since=moment(7300)), WAITS, at=moment(7301), subject=after(status, LIMIT))

    assert status.phase == Phase.FAILED
    assert told(status, "Succeeded")[:2] == ("False", "DeadlineExceeded")


def test_the_start_deadline_counts_the_queue_and_tells_its_last_words() -> None:
    deadline = ("scheduling", {"queueName": "main", "startDeadlineSeconds": 3660})
    status = look(held(), WAITS, at=moment(0), subject=make_subject(deadline))

    late = look(held(), WAITS, at=moment(61), subject=make_subject(deadline, status=status.to_document()))

    assert (status.phase, late.phase) == (Phase.QUEUED, Phase.FAILED)
    assert told(late, "Succeeded")[1] == "StartDeadlineExceeded"
    assert "1 more needed" in told(late, "Succeeded")[2]


def test_a_job_enters_its_queue_suspended_and_its_pods_carry_no_label_of_it() -> None:
    training = make_subject(QUEUE, ("scheduling.queuePriorityClass", "urgent")).training
    assert training is not None

    job = build_job(training, Profile(image="trainer:1"), attempt=1)

    ours = {"kueue.x-k8s.io/queue-name": "main", "kueue.x-k8s.io/priority-class": "urgent"}
    assert job["metadata"]["labels"].items() >= ours.items()
    assert job["spec"]["suspend"] is True
    assert not set(ours) & set(job["spec"]["template"]["metadata"]["labels"])


def test_whether_a_queued_job_runs_is_never_written_again() -> None:
    training = make_subject(QUEUE, ("suspend", True)).training
    assert training is not None

    labelled = build_job_patch(training.spec, running(moment(0)), Used())
    taken = build_job_patch(training.spec, make_job(), Used(), queued=True)

    assert labelled is None
    assert taken is None


def test_the_check_of_the_data_enters_no_queue() -> None:
    training = make_subject(QUEUE).training
    assert training is not None

    job = build_preflight_job(training, Profile(image="trainer:1"))

    assert "kueue.x-k8s.io/queue-name" not in job["metadata"]["labels"]
    assert job["spec"]["suspend"] is False
