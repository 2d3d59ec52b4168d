"""lora_operator.gang, and what the status makes of pods that train together"""

import json
from typing import Any

import pytest

from lora_api.status import Attempts, LoraTrainingStatus, PodCount
from lora_operator.cache import Cache
from lora_operator.decision import Create, Decision, Delete
from lora_operator.gang import LONGEST_RETRY_SECONDS, seconds_to_retry
from lora_operator.observed import ANNOTATION_FAILURES_BEFORE, Job, Observed, Pod, parse_job, parse_pod
from lora_operator.outcome import MOST_IN_VAIN
from lora_operator.profiles import load_profiles
from lora_operator.reconcile import decide
from lora_operator.subject import Subject
from lora_operator.timestamps import format_time
from tests.support.observations import (
    EARLIER,
    NOW,
    RUNNING,
    dead_pod,
    disrupted,
    failing,
    job_body,
    make_job,
    make_pod,
    make_subject,
    moment,
    observed,
    pod_body,
    running_pod,
    training_body,
)

PROFILES = load_profiles("{default: {image: 'trainer:1', preflight: Off}}")
NODES = ("parallelism", {"nodes": 2, "gpusPerNode": 1})
LOST = disrupted("DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint")
KNOWN = {"attempts": {"number": 1, "pods": {"made": 1, "begun": True, "until": EARLIER, "newest": ["uid-of-first"]}}}


def job(attempt: int = 1, **changes: Any) -> Job:
    return make_job(attempt, completions=2, parallelism=2, backoffLimit=0, **changes)


def over(reason: str = "BackoffLimitExceeded") -> dict[str, Any]:
    """The status of a Job that failed a minute ago, when the last of its pods had ended."""
    target = failing(reason, -60)["conditions"]
    return {"conditions": [*target, {**target[0], "type": "Failed"}]}


FAILED_JOB = job(status=over())


def first(make: Any, *arguments: Any, **changes: Any) -> Pod:
    found: Pod = make(*arguments, name="first", index=0, **changes)
    return found


def second(make: Any, *arguments: Any, **changes: Any) -> Pod:
    found: Pod = make(*arguments, name="second", index=1, **changes)
    return found


def subject_of(*changes: tuple[str, Any], status: dict[str, Any] | None = None) -> Subject:
    return make_subject(NODES, *changes, status=KNOWN if status is None else status)


def look(seen: Observed, *changes: tuple[str, Any], subject: Subject | None = None) -> Decision:
    """What is decided when all that is counted is told already."""
    found = subject or subject_of(*changes)
    decision = decide(found, seen, profiles=PROFILES, now=NOW)
    if decision.status is None or decision.status.completion_time:
        return decision
    told = decision.status.to_document()
    again = decide(subject_of(*changes, status=told), seen, profiles=PROFILES, now=NOW)
    return Decision(again.actions, decision.status, decision.events, again.requeue_after_seconds)


def created(decision: Decision) -> list[str]:
    return [action.manifest["metadata"]["name"] for action in decision.actions if isinstance(action, Create)]


def counted(decision: Decision) -> tuple[int, int]:
    """Failures and interruptions."""
    assert decision.status is not None
    assert decision.status.attempts is not None
    return decision.status.attempts.failures, decision.status.attempts.preemptions


def condition(decision: Decision, kind: str) -> Any:
    assert decision.status is not None
    return next(found for found in decision.status.conditions if found.type == kind)


@pytest.mark.parametrize(
    ("pods", "numbers"),
    [
        ((first(dead_pod, 75), second(dead_pod, 75)), (0, 1)),
        ((first(dead_pod, 0), second(dead_pod, 76)), (0, 1)),
        ((first(dead_pod, 75), second(dead_pod, 1)), (1, 0)),
        ((first(dead_pod, 1), second(dead_pod, 1)), (1, 0)),
        ((first(dead_pod, 1), second(dead_pod, 143, conditions=LOST)), (0, 1)),
        ((second(dead_pod, 137, is_deleting=True),), (0, 1)),
        ((first(dead_pod, 71, conditions=LOST), second(dead_pod, 75)), (0, 1)),
        ((), (0, 1)),
    ],
    ids=[
        "told to stop",
        "one is done",
        "a crash",
        "two crashes",
        "lost node",
        "killed",
        "lost while failing",
        "all gone",
    ],
)
def test_an_attempt_counts_once_whatever_its_pods_did_and_the_next_follows(
    pods: tuple[Pod, ...], numbers: tuple[int, int]
) -> None:
    decision = look(observed(FAILED_JOB, *pods))

    assert counted(decision) == numbers
    assert created(decision) == ["hina-nodes", "hina-a2"]


@pytest.mark.parametrize(
    ("pods", "reason", "words"),
    [
        ((first(dead_pod, 70), second(dead_pod, 75)), "OutOfMemory", "ended with exit code 70"),
        ((first(dead_pod, 75), second(dead_pod, 65)), "InvalidDataset", "pod second, of node 1: "),
        ((first(dead_pod, 1), second(dead_pod, 77)), "AccessDenied", "of node 1"),
        ((first(dead_pod, 75), second(dead_pod, 64, is_deleting=True)), "InvalidConfiguration", "of node 1"),
    ],
)
def test_what_only_a_person_can_cure_ends_the_training_whoever_says_it(
    pods: tuple[Pod, ...], reason: str, words: str
) -> None:
    decision = look(observed(FAILED_JOB, *pods))

    assert condition(decision, "Succeeded").reason == reason
    assert decision.status is not None
    assert decision.status.failure is not None
    assert decision.actions == ()
    assert words in decision.status.failure.message


def test_the_first_pod_s_own_failure_is_told_before_those_of_others() -> None:
    decision = look(observed(FAILED_JOB, second(dead_pod, 65), first(dead_pod, 70)))

    assert condition(decision, "Succeeded").reason == "OutOfMemory"


def test_failures_end_the_training_when_no_retry_is_left() -> None:
    seen = observed(FAILED_JOB, first(dead_pod, 75), second(dead_pod, 72))

    decision = look(seen, ("retry.maxFailures", 0))

    assert condition(decision, "Succeeded").reason == "Stalled"
    assert counted(decision) == (1, 0)


def test_how_often_it_failed_is_told_with_the_last_failure() -> None:
    body = job_body(4, status=over(), completions=2)
    body["metadata"]["annotations"] = {ANNOTATION_FAILURES_BEFORE: "3"}
    seen = observed(parse_job(body), first(dead_pod, 1, job_uid=body["metadata"]["uid"]))

    decision = look(seen)

    assert decision.status is not None
    assert decision.status.failure is not None
    assert decision.status.failure.message.startswith("failed 4 times; the last time: ")


def test_a_verdict_waits_for_the_last_pod() -> None:
    seen = observed(
        job(status=failing("BackoffLimitExceeded", -1)), first(running_pod, gone_in=60), second(dead_pod, 1)
    )

    decision = look(seen)

    assert decision.actions == ()
    assert counted(decision) == (0, 0)


def test_an_eviction_of_the_first_pod_is_no_interruption_before_it_is_judged() -> None:
    seen = observed(job(), first(running_pod, gone_in=60, conditions=LOST), second(running_pod))

    decision = look(seen)

    assert counted(decision) == (0, 0)
    assert condition(decision, "Running").reason == "NodeLost"


def test_the_count_is_told_before_the_next_attempt_begins() -> None:
    decision = decide(subject_of(), observed(FAILED_JOB, first(dead_pod, 75)), profiles=PROFILES, now=NOW)

    assert decision.actions == ()
    assert counted(decision) == (0, 1)
    assert condition(decision, "Scheduled").reason == "Retrying"


def test_a_pod_of_a_dead_node_holds_up_the_next_attempt_only_if_it_may_write() -> None:
    long_ago = job(status=failing("BackoffLimitExceeded", -3600))
    gone = {"gone_in": -3000.0, "conditions": LOST}

    held = look(observed(long_ago, first(running_pod, **gone), second(dead_pod, 75)))
    free = look(observed(long_ago, first(dead_pod, 75), second(running_pod, **gone)))

    assert created(held) == []
    assert created(free) == ["hina-nodes", "hina-a2"]


def test_after_a_failure_the_next_attempt_waits_twice_as_long_each_time() -> None:
    seen = Observed(failed_job=job(status=failing("BackoffLimitExceeded")), gang_failure=first(dead_pod, 1))

    assert [seconds_to_retry(seen, failures, NOW) for failures in (1, 2, 3)] == [10, 20, 40]
    assert seconds_to_retry(seen, 100, NOW) == LONGEST_RETRY_SECONDS
    assert seconds_to_retry(seen, 1, moment(10)) == 0


def test_the_next_attempt_knows_what_the_last_one_used_up() -> None:
    spent = job(status={**over(), "startTime": format_time(moment(-660))})
    known = {"attempts": {**KNOWN["attempts"], "activeSince": format_time(moment(-660))}}
    limits = ("limits.activeSeconds", 3600)

    told = decide(subject_of(limits, status=known), observed(spent, first(dead_pod, 1)), profiles=PROFILES, now=NOW)
    assert told.status is not None
    after = subject_of(limits, status=told.status.to_document())
    decision = decide(after, observed(spent, first(dead_pod, 1)), profiles=PROFILES, now=NOW)

    made = next(
        action.manifest
        for action in decision.actions
        if isinstance(action, Create) and action.manifest["kind"] == "Job"
    )
    assert made["spec"]["activeDeadlineSeconds"] == 3000
    assert made["metadata"]["annotations"]["lora-operator.io/failures-before"] == "1"


def test_a_deadline_ends_the_training_and_interrupts_nothing() -> None:
    decision = look(observed(job(status=over("DeadlineExceeded")), first(dead_pod, 75), second(dead_pod, 75)))

    assert condition(decision, "Succeeded").reason == "DeadlineExceeded"
    assert counted(decision) == (0, 0)


def test_a_pause_removes_the_job_of_pods_that_train_together() -> None:
    running = observed(job(), first(running_pod), second(running_pod))

    decision = look(running, ("suspend", True))

    assert decision.actions == (Delete("hina-a1", job().uid),)


def test_a_pause_after_a_failed_attempt_is_no_interruption_and_nothing_is_started() -> None:
    decision = look(observed(FAILED_JOB, first(dead_pod, 75)), ("suspend", True))

    assert decision.actions == ()
    assert counted(decision) == (0, 0)
    assert condition(decision, "Suspended").status == "True"


def test_a_job_that_its_queue_stopped_when_some_pods_were_done_makes_room_for_one_with_all() -> None:
    stopped = job(suspend=True, status={"succeeded": 1})

    decision = look(observed(stopped))

    assert decision.actions == (Delete("hina-a1", stopped.uid),)


def test_all_pods_must_have_their_place_before_the_training_is_scheduled() -> None:
    waiting = second(make_pod, node="", conditions=[
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes: Insufficient gpu"}
    ])  # fmt: skip

    decision = look(observed(job(), first(running_pod), waiting))

    found = condition(decision, "Scheduled")
    assert (found.status, found.reason) == ("False", "Unschedulable")
    assert "(1 of 2 pods have their place)" in found.message


def test_a_pod_that_is_not_there_yet_is_waited_for() -> None:
    decision = look(observed(job(), first(running_pod)))

    assert condition(decision, "Scheduled").reason == "WaitingForPod"
    assert decision.requeue_after_seconds == 5


def test_the_start_is_over_when_all_pods_have_started() -> None:
    fresh = {"attempts": {"number": 1}}
    half = look(observed(job(), first(running_pod), second(make_pod)), subject=subject_of(status=fresh))
    whole = look(observed(job(), first(running_pod), second(running_pod)), subject=subject_of(status=fresh))

    begun = [found.status.attempts.pods.begun for found in (half, whole)]  # type: ignore[union-attr]
    assert begun == [False, True]


def test_attempts_that_get_nowhere_come_to_an_end() -> None:
    jobs = [job(number) for number in range(1, MOST_IN_VAIN + 1)]
    pods = [second(dead_pod, 76, job_uid=one.uid, created=format_time(moment(-600 + one.attempt))) for one in jobs]
    seen = Observed(job=job(MOST_IN_VAIN + 1), older_jobs=tuple(jobs), pods=tuple(pods))

    assert condition(look(seen), "Succeeded").reason == "NoProgress"
    assert (
        condition(look(Observed(job=seen.job, older_jobs=seen.older_jobs, pods=seen.pods[1:])), "Succeeded").status
        == "Unknown"
    )


def test_jobs_of_attempts_long_past_are_removed() -> None:
    jobs = tuple(job(number, status=over()) for number in range(1, MOST_IN_VAIN + 3))
    seen = Observed(job=job(len(jobs) + 1), older_jobs=jobs, pods=())

    gone = [action.name for action in look(seen).actions if isinstance(action, Delete)]

    assert gone == ["hina-a1", "hina-a2"]


def test_what_was_counted_stays_when_the_failed_attempt_is_gone() -> None:
    counts = Attempts(
        number=1, preemptions=1, pods=PodCount(made=1, begun=True, until=EARLIER, newest=("uid-of-first",))
    )
    known = LoraTrainingStatus(attempts=counts).to_document()
    next_pod = first(running_pod, created=format_time(moment(-10)), job_uid=job(2).uid)

    decision = look(observed(job(2), next_pod), subject=subject_of(status=known))

    assert counted(decision) == (0, 1)


def test_a_cancelled_training_ends_after_a_failed_attempt_and_starts_no_other() -> None:
    decision = look(observed(FAILED_JOB, first(dead_pod, 75), second(dead_pod, 1)), ("cancel", True))

    assert condition(decision, "Succeeded").reason == "Cancelled"
    assert decision.actions == ()


def crashed(seconds_before_told: float) -> Pod:
    """The first pod, that crashed so long before its Job told it to stop, with two minutes to end in."""
    finished = format_time(moment(-100 - seconds_before_told))
    state = {"terminated": {"exitCode": 1, "reason": "Error", "message": "", "finishedAt": finished}}
    body = pod_body(state=state, phase="Failed", name="first", index=0, gone_in=20.0)
    body["metadata"]["deletionGracePeriodSeconds"] = 120
    return parse_pod(body)


@pytest.mark.parametrize(("seconds", "numbers"), [(2, (1, 0)), (0, (0, 1)), (-5, (0, 1))])
def test_a_crash_before_the_job_stopped_the_pod_is_a_failure_and_one_after_that_follows_from_it(
    seconds: float, numbers: tuple[int, int]
) -> None:
    decision = look(observed(FAILED_JOB, crashed(seconds), second(dead_pod, 75)))

    assert counted(decision) == numbers


def seen_in_cluster(*bodies: dict[str, Any]) -> Cache:
    cache = Cache()
    cache.put("training", training_body(NODES))
    for body in bodies:
        cache.put("pod", body)
    return cache


def ended_body(code: int, index: int, **changes: Any) -> dict[str, Any]:
    word = json.dumps({"exitCode": code, "message": f"node {index}"})
    state = {"terminated": {"exitCode": code, "message": word}}
    return pod_body(state=state, phase="Failed", index=index, is_deleting=True, **changes)


@pytest.mark.parametrize(("code", "is_kept"), [(65, True), (75, False)])
def test_a_pod_that_its_job_deletes_is_remembered_if_it_tells_why_the_others_ended(code: int, is_kept: bool) -> None:
    body = ended_body(code, 1)
    cache = seen_in_cluster(body)

    cache.drop("pod", body)

    pods = cache.observed(make_subject(NODES)).pods
    assert [pod.index for pod in pods] == ([1] if is_kept else [])


def test_the_first_pod_has_the_last_word() -> None:
    cache = seen_in_cluster(ended_body(75, 0, name="a"), ended_body(65, 1, name="b"))

    word = cache.observed(make_subject(NODES)).last_word

    assert word is not None
    assert word.message == "node 0"


def test_only_the_first_pod_is_asked_for_progress() -> None:
    bodies = [pod_body(state=RUNNING, phase="Running", name=f"n{index}", index=index) for index in (0, 1)]
    cache = seen_in_cluster(*bodies)
    cache.put("job", job_body(completions=2))

    assert [pod.name for _, pod in cache.running_pods()] == ["n0"]


def test_a_volume_that_one_pod_waits_for_is_told_of() -> None:
    stuck = second(make_pod, state={"waiting": {"reason": "ContainerCreating"}})
    words = 'MountVolume.SetUp failed for volume "s3" : secret "s3" not found'

    decision = look(observed(job(), first(running_pod), stuck, mount_problem=words))

    assert condition(decision, "Scheduled").reason == "SecretMissing"


def test_what_a_pod_that_is_gone_tells_of_others_is_forgotten_with_their_job() -> None:
    body = ended_body(65, 1)
    cache = seen_in_cluster(body)
    cache.put("job", job_body(completions=2))
    cache.drop("pod", body)

    cache.prune("pod", cache.uids("pod"))
    with_job = cache.uids("pod")
    cache.prune("job", cache.uids("job"))
    cache.prune("pod", cache.uids("pod"))

    assert (with_job, cache.uids("pod")) == ({body["metadata"]["uid"]}, set())
