"""lora_operator.changes"""

import pytest

from lora_api import LoraTrainingStatus, ProgressReport
from lora_api.status import Notice
from lora_operator.changes import Event, derive_events
from lora_operator.observed import Observed
from lora_operator.status import derive_status
from lora_operator.view import ACCEPTED, Acceptance
from tests.support.observations import (
    COMPLETE,
    FAILED,
    NOW,
    dead_pod,
    disrupted,
    make_job,
    make_subject,
    observed,
    running_pod,
    waiting_pod,
)

TRAINING = ProgressReport(reason="Training")
SUSPENDED = {"conditions": [{"type": "Suspended", "status": "True", "reason": "JobSuspended"}]}
JOB = make_job()


def status(seen: Observed, acceptance: Acceptance = ACCEPTED) -> LoraTrainingStatus:
    return derive_status(make_subject(), seen, acceptance=acceptance, now=NOW)


STORIES = {
    "started": (observed(), observed(JOB), []),
    "bound": (observed(JOB), observed(JOB, running_pod()), []),
    "training": (observed(JOB), observed(JOB, running_pod(), report=TRAINING), []),
    "complete": (observed(JOB), observed(make_job(status=COMPLETE), dead_pod(0)), [("Normal", "Completed")]),
    "failed": (observed(JOB), observed(make_job(status=FAILED), dead_pod(65)), [("Warning", "InvalidDataset")]),
    "again": (observed(JOB), observed(JOB, dead_pod(69)), [("Warning", "Retrying")]),
    "image": (observed(JOB), observed(JOB, waiting_pod("ErrImagePull")), [("Warning", "ImagePullFailed")]),
    "paused": (observed(JOB), observed(make_job(suspend=True, status=SUSPENDED)), [("Normal", "Suspended")]),
    "resumed": (observed(make_job(suspend=True, status=SUSPENDED)), observed(JOB), [("Normal", "Resumed")]),
    "ended while paused": (
        observed(make_job(suspend=True, status=SUSPENDED)),
        observed(make_job(status=FAILED), dead_pod(65)),
        [("Warning", "InvalidDataset")],
    ),
    "refused": (observed(), observed(refusal="denied the request"), [("Warning", "JobRefused")]),
    "no room": (observed(JOB), observed(JOB, pod_refusal="exceeded quota: small"), [("Warning", "QuotaExceeded")]),
    "evicted": (
        observed(JOB),
        observed(JOB, dead_pod(137, conditions=disrupted("TerminationByKubelet", "low on memory"))),
        [("Warning", "Evicted")],
    ),
    "next": (observed(JOB), observed(make_job(2)), []),
}


@pytest.mark.parametrize(("before", "after", "expected"), STORIES.values(), ids=STORIES)
def test_what_a_person_looks_for_is_an_event(
    before: Observed, after: Observed, expected: list[tuple[str, str]]
) -> None:
    events = derive_events(status(before), status(after))

    assert [(event.type, event.reason) for event in events] == expected


@pytest.mark.parametrize("after", [after for _, after, _ in STORIES.values()], ids=STORIES)
def test_nothing_is_told_twice(after: Observed) -> None:
    assert derive_events(status(after), status(after)) == ()


def test_a_spec_that_cannot_be_carried_out_is_an_event() -> None:
    refused = Acceptance(False, "ProfileNotFound", "spec.profile is x")

    (event,) = derive_events(LoraTrainingStatus(), status(observed(), refused))

    assert (event.type, event.reason, event.message) == ("Warning", "ProfileNotFound", "spec.profile is x")


SKIPPED = Notice(reason="StatePassedOver", message="state/step-200 is damaged; going on from step-100")


def told(*notices: Notice) -> LoraTrainingStatus:
    return LoraTrainingStatus(notices=notices)


def test_a_notice_of_the_trainer_is_told_once() -> None:
    (event,) = derive_events(told(), told(SKIPPED))

    assert event == Event("Warning", "StatePassedOver", SKIPPED.message)
    assert derive_events(told(SKIPPED), told(SKIPPED)) == ()
