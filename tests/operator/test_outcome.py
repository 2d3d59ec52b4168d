"""lora_operator.outcome"""

import pytest

from lora_api import OUTCOMES, Outcome
from lora_operator.outcome import Ending, derive_ending, describe
from tests.support.observations import COMPLETE, EARLIER, FAILED, dead_pod, ended, make_job, make_pod

CODES = [outcome for outcome in OUTCOMES if outcome.policy in {"FailJob", "Count"} and outcome.code is not None]


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


@pytest.mark.parametrize("code", [1, 2, 134, 139, 143, 255])
def test_other_codes_are_crashes(code: int) -> None:
    ending = derive_ending(make_job(status=FAILED), (dead_pod(code, "Segmentation fault"),))

    assert ending is not None and ending.failure is not None
    assert (ending.failure.reason, ending.failure.exit_code) == ("TrainerCrashed", code)
    assert ending.failure.message == f"the trainer ended with exit code {code}: Segmentation fault"


def test_the_trainers_own_hint_is_the_better_one() -> None:
    ending = derive_ending(make_job(status=FAILED), (dead_pod(65, {"hint": "Remove broken.png."}),))

    assert ending is not None and ending.failure is not None
    assert ending.failure.hint == "Remove broken.png."


def test_a_pod_killed_for_its_memory_says_which_memory() -> None:
    ending = derive_ending(make_job(status=FAILED), (dead_pod(137, "", reason="OOMKilled"),))

    assert ending is not None and ending.failure is not None
    assert ending.failure.reason == "OutOfMemory"
    assert "spec.pod.resources.limits.memory" in ending.failure.hint


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
    evicted = make_pod(phase="Failed", reason="Evicted", message="node low on disk")
    job = make_job(status=ended("Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit"))

    ending = derive_ending(job, (evicted,))

    assert ending is not None and ending.failure is not None
    assert ending.failure.reason == "BackoffLimitExceeded"
    assert ending.failure.message == "Job has reached the specified backoff limit. Evicted: node low on disk"


def test_only_the_end_of_a_long_log_is_told() -> None:
    terminated = dead_pod(1, "x" * 4000 + "the point").terminated

    assert terminated is not None
    assert len(describe(terminated)) < 1100
    assert describe(terminated).endswith("the point")
