"""lora_operator.figures"""

from dataclasses import replace

import pytest

from lora_api import ProgressReport
from lora_api.status import (
    Attempts,
    Checkpoint,
    Condition,
    EvaluationStatus,
    LoraTrainingStatus,
    MemoryRung,
    Phase,
    Plan,
    Progress,
    SavedState,
)
from lora_operator.attempts import stop_clocks
from lora_operator.cache import Cache
from lora_operator.figures import FIGURES, Figures, Known, derive_figures, derive_reason
from lora_operator.subject import Key
from lora_operator.timestamps import format_time
from tests.support.observations import (
    EARLIER,
    NOW,
    dead_pod,
    disrupted,
    make_pod,
    make_subject,
    moment,
    running_pod,
    training_body,
)

HOUR_AGO = moment(-3600).timestamp()
"""`EARLIER` in seconds."""
LOSS = Checkpoint(epoch=3, step=300, uri="s3://b/3", sha256="0" * 64, size_bytes=1, validation_loss=0.12)
STATUS = LoraTrainingStatus(
    phase=Phase.RUNNING,
    start_time=EARLIER,
    completion_time=EARLIER,
    plan=Plan(images=20, samples_per_epoch=400, batches_per_epoch=100, steps_per_epoch=100, total_steps=1000),
    progress=Progress(
        step=310, total_steps=1000, epoch=3, total_epochs=10, percent=31, loss=0.09, learning_rate=1e-4,
        steps_per_second=2.5, remaining_seconds=290, device_memory_bytes=1 << 30, updated_time=EARLIER,
    ),
    checkpoints=(LOSS, LOSS.model_copy(update={"epoch": 4, "validation_loss": None})),
    evaluation=EvaluationStatus(best_epoch=7, overfit_from=8, training_loss=0.5, drift=0.03),
    saved_state=SavedState(step=300, uri="s3://b/state", saved_time=EARLIER),
    memory_rungs=(MemoryRung(name="HalfBatch"),),
    attempts=Attempts(
        number=2, failures=1, preemptions=3, lost_steps=40, active_seconds=100, active_since="2026-11-22T11:59:00Z"
    ),
)  # fmt: skip
EXPECTED = {
    "lora_training_step": 310,
    "lora_training_total_steps": 1000,
    "lora_training_epoch": 3,
    "lora_training_total_epochs": 10,
    "lora_training_progress_ratio": 0.31,
    "lora_training_loss": 0.09,
    "lora_training_learning_rate": 1e-4,
    "lora_training_steps_per_second": 2.5,
    "lora_training_images_per_second": 10.0,
    "lora_training_remaining_seconds": 290,
    "lora_training_device_memory_bytes": 1 << 30,
    "lora_training_updated_timestamp_seconds": HOUR_AGO,
    "lora_training_best_epoch": 7,
    "lora_training_overfit_epoch": 8,
    "lora_training_validation_loss": 0.12,
    "lora_training_training_loss": 0.5,
    "lora_training_drift": 0.03,
    "lora_training_saved_state_timestamp_seconds": HOUR_AGO,
    "lora_training_memory_rungs": 1,
    "lora_training_attempts": 2,
    "lora_training_failures": 1,
    "lora_training_preemptions": 3,
    "lora_training_lost_steps": 40,
    "lora_training_active_seconds": 160,
    "lora_training_gpu_seconds": 1280,
    "lora_training_gpus": 8,
    "lora_training_created_timestamp_seconds": HOUR_AGO,
    "lora_training_start_timestamp_seconds": HOUR_AGO,
    "lora_training_completion_timestamp_seconds": HOUR_AGO,
}
INDEX = {figure.name: index for index, figure in enumerate(FIGURES)}


def known(status: LoraTrainingStatus) -> Known:
    return Known(status, created=EARLIER, gpus=8, now=NOW)


def value(figures: Figures, name: str) -> float | None:
    return figures.values[INDEX[name]]


def test_every_figure_is_tested() -> None:
    assert INDEX.keys() == EXPECTED.keys()


def test_a_training_that_stopped_early_is_done() -> None:
    done = STATUS.model_copy(update={"progress": Progress(step=400, total_steps=1000, percent=100)})

    assert value(derive_figures(known(done)), "lora_training_progress_ratio") == 1


@pytest.mark.parametrize(("name", "expected"), EXPECTED.items())
def test_a_training_is_told_in_numbers(name: str, expected: float) -> None:
    assert value(derive_figures(known(STATUS)), name) == pytest.approx(expected)


@pytest.mark.parametrize(
    "name", ["lora_training_loss", "lora_training_progress_ratio", "lora_training_images_per_second"]
)
def test_what_is_not_known_has_no_number(name: str) -> None:
    assert value(derive_figures(known(LoraTrainingStatus(progress=Progress()))), name) is None


def test_the_pods_newest_word_comes_before_the_status() -> None:
    said = ProgressReport(progress=STATUS.progress and STATUS.progress.model_copy(update={"step": 320}))

    figures = derive_figures(known(STATUS)).with_report(said)

    assert value(figures, "lora_training_step") == 320


def test_what_the_pod_does_not_say_stays_as_it_was_known() -> None:
    figures = derive_figures(known(STATUS)).with_report(ProgressReport())

    assert value(figures, "lora_training_best_epoch") == 7
    assert value(figures, "lora_training_failures") == 1


@pytest.mark.parametrize(("created", "seconds"), [(EARLIER, 3600), ("2026-11-22T11:30:00Z", 60)], ids=["same", "anew"])
def test_a_counter_falls_only_with_a_new_object(created: str, seconds: int) -> None:
    running = LoraTrainingStatus(attempts=Attempts(active_since=EARLIER))
    ended = LoraTrainingStatus(attempts=Attempts(number=1, active_seconds=60))
    after = derive_figures(replace(known(ended), created=created))

    figures = after.following(derive_figures(known(running)))

    assert value(figures, "lora_training_active_seconds") == seconds
    assert value(figures, "lora_training_attempts") == 1


def test_pods_that_ended_early_are_counted_by_reason() -> None:
    lost = make_pod(phase="Failed", conditions=disrupted("PreemptionByScheduler", "made room"))
    pods = (dead_pod(69, name="first"), dead_pod(69, name="second"), lost, running_pod())

    assert derive_figures(known(STATUS), pods).ended_pods == {"StorageUnavailable": 2, "Preempted": 1}


def test_pods_that_train_together_and_end_for_one_reason_are_counted_once_an_attempt() -> None:
    first = [dead_pod(69, name=f"a1-{index}", index=index, job_uid="1") for index in range(3)]
    second = [dead_pod(code, name=f"a2-{index}", index=index, job_uid="2") for index, code in enumerate((69, 75))]

    ended = derive_figures(known(STATUS), (*first, *second)).ended_pods

    assert ended == {"StorageUnavailable": 2, "Interrupted": 1}


def test_the_last_values_stay_when_only_the_end_of_a_training_is_kept() -> None:
    finished = condition("Finished", "True", "Failed").to_document()
    ended = stop_clocks(STATUS.attempts or Attempts(), format_time(NOW))
    status = STATUS.model_copy(update={"phase": Phase.FAILED, "attempts": ended}).to_document()
    body = training_body(("parallelism", {"nodes": 2, "gpusPerNode": 4}), status={**status, "conditions": [finished]})
    cache = Cache()
    cache.put("training", body)

    subject = cache.subject(Key("ml", "hina"))

    assert subject is not None and subject.is_settled
    figures = derive_figures(Known(subject.status, created=subject.created, gpus=subject.gpus, now=moment(3600)))
    assert {name: value(figures, name) for name in EXPECTED} == pytest.approx(EXPECTED)


def condition(kind: str, status: str, reason: str) -> Condition:
    return Condition.model_validate({"type": kind, "status": status, "reason": reason, "lastTransitionTime": EARLIER})


@pytest.mark.parametrize(
    ("phase", "said", "expected"),
    [
        (Phase.FAILED, ("Succeeded", "False", "OutOfMemory"), "OutOfMemory"),
        (Phase.SUCCEEDED, ("Succeeded", "True", "AlreadyTrained"), "AlreadyTrained"),
        (Phase.SUSPENDED, ("Suspended", "True", "UserRequested"), "UserRequested"),
        (Phase.STARTING, ("Running", "False", "Stalled"), "Stalled"),
        (Phase.RUNNING, ("Running", "True", "Training"), "Training"),
        (Phase.PENDING, ("Accepted", "False", "ProfileNotFound"), "ProfileNotFound"),
        (Phase.PENDING, ("Scheduled", "False", "Unschedulable"), "Unschedulable"),
        (Phase.STARTING, ("Running", "False", "MadeUpByAPod"), "Other"),
    ],
)
def test_the_reason_is_that_of_the_condition_which_explains_the_phase(
    phase: Phase, said: tuple[str, str, str], expected: str
) -> None:
    others = {"Accepted": "Valid", "Scheduled": "Scheduled", "Running": "NotStarted", "Succeeded": "InProgress"}
    rest = tuple(condition(kind, "Unknown", reason) for kind, reason in others.items() if kind != said[0])

    assert derive_reason(LoraTrainingStatus(phase=phase, conditions=(*rest, condition(*said)))) == expected


def test_a_training_that_nobody_has_looked_at_has_a_reason_too() -> None:
    assert derive_reason(LoraTrainingStatus()) == "Unknown"


@pytest.mark.parametrize(("wish", "gpus"), [({}, 1), ({"gpusPerNode": 0}, 0), ({"nodes": 2, "gpusPerNode": 4}, 8)])
def test_gpus_of_all_nodes_count(wish: dict[str, int], gpus: int) -> None:
    assert make_subject(("parallelism", wish)).gpus == gpus
