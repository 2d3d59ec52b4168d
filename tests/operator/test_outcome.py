"""lora_operator.outcome"""

from collections.abc import Callable
from typing import Any

import pytest

from lora_api import OUTCOMES, ExitCode, Outcome
from lora_api.status import Failure, SavedState
from lora_operator.diagnosis import describe
from lora_operator.observed import Pod
from lora_operator.outcome import MOST_IN_VAIN, Ending, derive_ending, in_vain, never_started, out_of_time
from lora_operator.timestamps import format_time
from tests.support.observations import (
    COMPLETE,
    EARLIER,
    FAILED,
    NOW,
    dead_pod,
    disrupted,
    ended,
    make_job,
    make_pod,
    make_preflight_job,
    moment,
    running_pod,
)

CODES = [o for o in OUTCOMES if o.policy in {"FailJob", "Count"} and o.code not in {None, ExitCode.KILLED}]


def fail(pod: Pod) -> Failure:
    """What the status says when this pod's failure ends the Job."""
    ending = derive_ending(make_job(status=FAILED), (pod,))
    assert ending is not None and ending.failure is not None
    return ending.failure


def test_a_running_job_has_no_ending() -> None:
    assert derive_ending(make_job(), ()) is None


def test_a_complete_job_is_a_success_in_the_trainers_words() -> None:
    ending = derive_ending(make_job(status=COMPLETE), (dead_pod(0, {"message": "10 epochs trained"}),))

    assert ending == Ending(True, "Completed", "10 epochs trained", EARLIER)


def test_a_success_without_words_is_a_success() -> None:
    ending = derive_ending(make_job(status=COMPLETE), ())

    assert ending is not None
    assert (ending.succeeded, ending.reason) == (True, "Completed")


def test_a_run_that_was_there_already_is_told_apart() -> None:
    ending = derive_ending(make_job(status=COMPLETE), (dead_pod(0, {"reason": "AlreadyTrained"}),))

    assert ending is not None
    assert ending.reason == "AlreadyTrained"


@pytest.mark.parametrize("outcome", CODES, ids=lambda o: o.reason)
def test_each_exit_code_has_its_reason_and_hint(outcome: Outcome) -> None:
    ending = derive_ending(make_job(status=FAILED), (dead_pod(int(outcome.code or 0), {"message": "because"}),))

    assert ending is not None and ending.failure is not None
    assert (ending.reason, ending.failure.message, ending.failure.hint) == (outcome.reason, "because", outcome.hint)


@pytest.mark.parametrize(
    ("code", "words"),
    [(1, "exit code 1"), (139, "exit code 139 (SIGSEGV)"), (134, "exit code 134 (SIGABRT)"), (255, "exit code 255")],
)
def test_other_codes_are_crashes_told_by_the_last_line_of_the_log(code: int, words: str) -> None:
    failure = fail(dead_pod(code, "Fatal error\nin loop.py\nSegmentation fault"))

    assert (failure.reason, failure.exit_code) == ("TrainerCrashed", code)
    assert failure.message == f"the trainer ended with {words}: Segmentation fault"
    assert failure.log_tail == "Fatal error\nin loop.py\nSegmentation fault"


def test_the_trainers_own_hint_is_the_better_one() -> None:
    ending = derive_ending(make_job(status=FAILED), (dead_pod(65, {"hint": "Remove broken.png."}),))

    assert ending is not None and ending.failure is not None
    assert ending.failure.hint == "Remove broken.png."


def test_a_pod_killed_for_its_memory_says_which_memory() -> None:
    failure = fail(dead_pod(137, "", reason="OOMKilled", memory="16Gi"))

    assert (failure.reason, failure.exit_code) == ("HostOutOfMemory", 137)
    assert failure.message == "the trainer needed more memory than its limit of 16Gi and was killed"
    assert "spec.pod.resources.limits.memory (now 16Gi)" in failure.hint


def test_a_trainer_that_says_that_it_got_no_memory_is_believed() -> None:
    failure = fail(dead_pod(1, {"reason": "Killed", "message": "MemoryError: 2 GiB"}, memory="2Gi"))

    assert (failure.reason, failure.exit_code, failure.message) == ("HostOutOfMemory", 1, "MemoryError: 2 GiB")


def test_memory_of_the_check_is_the_profiles_matter() -> None:
    failure = fail(dead_pod(137, "", reason="OOMKilled", memory="2Gi", stage="preflight"))

    assert "preflightPod.resources.limits.memory of the profile (now 2Gi)" in failure.hint


def test_a_pod_that_the_kernel_killed_without_a_limit_says_so() -> None:
    failure = fail(dead_pod(137, ""))

    assert failure.reason == "HostOutOfMemory"
    assert "it has no limit of its own" in failure.message


def test_a_pod_that_did_not_stop_in_time_was_not_killed_for_its_memory() -> None:
    failure = fail(dead_pod(137, "", is_deleting=True))

    assert failure.reason == "Killed"
    assert "grace period" in failure.message


FULL = 'Usage of EmptyDir volume "work" exceeds the limit "10Gi". '


def test_a_pod_that_filled_its_volume_says_which_and_what_to_raise() -> None:
    failure = fail(dead_pod(137, "", status_reason="Evicted", message=FULL))

    assert failure.reason == "Evicted"
    assert failure.message == (
        "the kubelet of node node-1 evicted pod hina-a1-0-abcde: "
        'Usage of EmptyDir volume "work" exceeds the limit "10Gi"'
    )
    assert "workVolumeSize" in failure.hint


def test_a_pod_that_ended_by_its_own_fault_before_it_was_evicted_keeps_its_word() -> None:
    failure = fail(dead_pod(65, {"message": "a.png does not decode"}, status_reason="Evicted", message=FULL))

    assert (failure.reason, failure.message) == ("InvalidDataset", "a.png does not decode")


def test_a_pod_that_its_node_refused_says_why() -> None:
    failure = fail(make_pod(phase="Failed", reason="UnexpectedAdmissionError", message="no healthy devices present"))

    assert failure.reason == "PodRejected"
    assert failure.message.endswith("UnexpectedAdmissionError: no healthy devices present")


def test_when_retries_are_used_up_the_last_failure_is_told_and_how_many_there_were() -> None:
    status = {**ended("Failed", "BackoffLimitExceeded"), "failed": 4}
    pods = dead_pod(1, {"message": "first"}, name="a"), dead_pod(69, {"message": "connection refused"}, name="b")

    ending = derive_ending(make_job(status=status), pods)

    assert ending is not None
    assert (ending.reason, ending.message) == (
        "StorageUnavailable",
        "failed 4 times; the last time: connection refused",
    )


def test_failures_of_earlier_jobs_are_told_too() -> None:
    status = {**ended("Failed", "BackoffLimitExceeded"), "failed": 1}

    ending = derive_ending(make_job(status=status), (dead_pod(69, {"message": "timed out"}),), failures=4)

    assert ending is not None
    assert ending.message == "failed 4 times; the last time: timed out"


def test_an_interruption_is_never_the_cause() -> None:
    pods = dead_pod(69, {"message": "timed out"}, name="a"), dead_pod(75, {"message": "told to stop"}, name="b")

    ending = derive_ending(make_job(status=ended("Failed", "BackoffLimitExceeded")), pods)

    assert ending is not None
    assert (ending.reason, ending.message) == ("StorageUnavailable", "timed out")


def test_the_end_of_the_log_is_the_trainers_own_and_holds_no_secret() -> None:
    tail = "GET /k?X-Amz-Signature=5ec0de\nValueError: boom"

    failure = fail(dead_pod(1, {"message": "ValueError: boom", "logTail": tail}))

    assert failure.message == "ValueError: boom"
    assert failure.log_tail == "GET /k?X-Amz-Signature=***\nValueError: boom"


def test_of_a_long_log_the_last_whole_lines_are_kept() -> None:
    log = "\n".join(f"line {number}" for number in range(1000))

    tail = fail(dead_pod(1, log)).log_tail

    assert 1900 < len(tail) <= 2000
    assert tail.startswith("line ") and tail.endswith("line 999")


def test_a_check_that_fails_says_that_no_gpu_was_asked_for() -> None:
    job = make_preflight_job(status=FAILED)

    ending = derive_ending(job, (dead_pod(65, {"message": "a.png does not decode"}),))

    assert ending is not None
    assert (ending.reason, ending.message) == ("InvalidDataset", "a.png does not decode; no GPU was asked for")


@pytest.mark.parametrize(("reason", "succeeded"), [("Verified", None), ("AlreadyTrained", True)])
def test_a_check_that_passes_ends_the_training_only_if_nothing_is_left_to_do(
    reason: str, succeeded: bool | None
) -> None:
    ending = derive_ending(make_preflight_job(status=COMPLETE), (dead_pod(0, {"reason": reason}),))

    assert (ending and ending.succeeded) == succeeded


def test_time_that_is_used_up_is_told_by_its_field() -> None:
    ending = out_of_time(3600, time=EARLIER)

    assert (ending.succeeded, ending.reason) == (False, "DeadlineExceeded")
    assert "spec.limits.activeSeconds (3600 s)" in ending.message


def test_a_training_that_never_started_says_what_it_waited_for() -> None:
    waits = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu; the pod then starts by itself"

    ending = never_started(600, waits, time=EARLIER)

    assert ending.reason == "StartDeadlineExceeded"
    assert "spec.scheduling.startDeadlineSeconds (600 s)" in ending.message
    assert ending.message.endswith("3 Insufficient nvidia.com/gpu")


def test_the_deadline_is_told_by_its_field_whatever_the_pod_said() -> None:
    ending = derive_ending(make_job(status=ended("Failed", "DeadlineExceeded")), (dead_pod(75),))

    assert ending is not None and ending.failure is not None
    assert ending.reason == "DeadlineExceeded"
    assert "spec.limits.activeSeconds" in ending.failure.message


def test_of_several_pods_the_last_one_says_why() -> None:
    pods = dead_pod(69, {"message": "first"}), dead_pod(1, {"message": "last"})

    ending = derive_ending(make_job(status=ended("Failed", "BackoffLimitExceeded")), pods)

    assert ending is not None
    assert (ending.reason, ending.message) == ("TrainerCrashed", "last")


def test_without_any_word_the_jobs_own_reason_stands() -> None:
    silent = make_pod(phase="Failed")
    job = make_job(status=ended("Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit"))

    ending = derive_ending(job, (silent,))

    assert ending is not None and ending.failure is not None
    assert ending.failure.reason == "BackoffLimitExceeded"
    assert ending.failure.message == "Job has reached the specified backoff limit"


def test_a_reason_of_any_length_fits_the_status() -> None:
    ending = derive_ending(make_job(status=ended("Failed", "X" * 1024)), ())

    assert ending is not None and ending.failure is not None
    assert len(ending.failure.reason) == 128


def test_only_the_end_of_a_long_line_is_told() -> None:
    terminated = dead_pod(1, "x" * 4000 + "the point").terminated

    assert terminated is not None
    assert len(describe(terminated)) < 400
    assert describe(terminated).endswith("the point")


STATE = SavedState(step=30, uri="s3://b/run/state/step-30", saved_time=format_time(NOW))
NEXT_STATE = SavedState(step=60, uri="s3://b/run/state/step-60", saved_time=format_time(moment(600)))


def interrupted(number: int, state: SavedState | None = None, *, code: int = 75, **changes: Any) -> Pod:
    """The pod of that number, which left its last word; each lives for a minute."""
    word = {"message": "told to stop"} | ({"savedState": state.to_document()} if state else {})
    return dead_pod(code, word, name=f"pod-{number}", created=format_time(moment(60 * number)), **changes)


def silent(number: int) -> Pod:
    """An evicted pod that could not say a word."""
    return dead_pod(
        137, "", name=f"pod-{number}", created=format_time(moment(60 * number)), status_reason="Evicted",
        conditions=disrupted("TerminationByKubelet", "The node was low on resource: memory."),
    )  # fmt: skip


def row(make: Callable[[int], Pod], count: int = MOST_IN_VAIN) -> tuple[Pod, ...]:
    return tuple(make(number) for number in range(1, count + 1))


FRUITLESS = {
    "without any state": (row(interrupted), None),
    "at the same state": (row(lambda number: interrupted(number, STATE)), STATE),
    "without a word": (row(silent), STATE),
    "before the state is loaded": (row(interrupted), STATE),
    "after others that made steps": (
        (*row(lambda number: interrupted(number, STATE)), *row(lambda n: interrupted(n + 9, NEXT_STATE))),
        NEXT_STATE,
    ),
    "while the next one waits for its place": ((*row(interrupted), make_pod(name="next", node="")), None),
    "with a failure in between, which is counted": (
        (*row(interrupted)[:3], dead_pod(69, name="failed"), *row(interrupted)[3:]),
        None,
    ),
}


@pytest.mark.parametrize(("pods", "saved"), FRUITLESS.values(), ids=FRUITLESS)
def test_interruptions_in_a_row_that_store_no_newer_state_end_the_training(
    pods: tuple[Pod, ...], saved: SavedState | None
) -> None:
    ending = in_vain(pods, saved, time=EARLIER)

    assert ending is not None
    assert ending.reason == "NoProgress"
    assert ending.message.startswith("6 pods in a row were interrupted")


FRUITFUL = {
    "one fewer": (row(interrupted, MOST_IN_VAIN - 1), None),
    "a storm in which each stores a state": (
        row(lambda n: interrupted(n, SavedState(step=n, uri=f"s3://b/run/state/step-{n}")), 50),
        SavedState(step=50, uri="s3://b/run/state/step-50"),
    ),
    "the newest is at work": ((*row(interrupted), running_pod(name="next")), None),
    "the newest has stored a state": ((*row(interrupted), interrupted(7, NEXT_STATE)), NEXT_STATE),
    "the newest has stored a state that was not told yet": ((*row(interrupted), interrupted(7, NEXT_STATE)), STATE),
    "the newest said nothing, but a state was stored while it lived": (row(silent), NEXT_STATE),
    "somebody deletes them": (row(lambda number: interrupted(number, is_deleting=True)), None),
}


@pytest.mark.parametrize(("pods", "saved"), FRUITFUL.values(), ids=FRUITFUL)
def test_interruptions_of_a_training_that_gets_on_are_not_counted(
    pods: tuple[Pod, ...], saved: SavedState | None
) -> None:
    assert in_vain(pods, saved, time=EARLIER) is None


def test_interruptions_in_vain_are_told_by_the_state_that_stays_the_newest_and_by_a_cure() -> None:
    ending = in_vain(row(lambda number: interrupted(number, STATE, code=76)), STATE, time=EARLIER)

    assert ending is not None and ending.failure is not None
    assert "newer than that of step 30" in ending.message
    assert ending.message.endswith("told to stop")
    assert ending.failure.exit_code == 76
    assert "checkpoints.everySeconds" in ending.failure.hint


def test_pods_that_fill_their_volume_and_have_time_to_stop_say_which_volume() -> None:
    words = 'Usage of EmptyDir volume "work" exceeds the limit "10Gi". '
    full = row(lambda number: interrupted(number, code=143, status_reason="Evicted", message=words))

    ending = in_vain(full, None, time=EARLIER)

    assert ending is not None and ending.failure is not None
    assert 'EmptyDir volume "work"' in ending.message
    assert ending.failure.hint == "Raise workVolumeSize of the profile: base model and pictures must fit."
