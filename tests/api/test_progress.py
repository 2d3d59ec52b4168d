"""lora_api.progress: the last word fits into what a kubelet keeps."""

import json

import pytest

from lora_api.progress import MAX_TERMINATION_BYTES, ProgressReport, TerminationMessage
from lora_api.status import (
    Artifacts,
    BucketSummary,
    Checkpoint,
    EvaluationStatus,
    MemoryRung,
    Notice,
    Plan,
    Progress,
    SavedState,
)


def make_checkpoint(epoch: int) -> Checkpoint:
    uri = f"s3://bucket/{'long/' * 40}adapters/hina-{epoch:06d}.safetensors"
    return Checkpoint(epoch=epoch, step=epoch * 10, uri=uri, sha256="0" * 64, size_bytes=1, loss=0.1)


def make_message(checkpoints: int, message: str = "done") -> TerminationMessage:
    bucket = BucketSummary(width_px=512, height_px=512, images=1, samples=1, batches=1)
    return TerminationMessage(
        message=message,
        plan=Plan(images=1, batches_per_epoch=1, steps_per_epoch=1, total_steps=1, buckets=(bucket,) * 60),
        progress=Progress(step=3),
        checkpoints=tuple(make_checkpoint(epoch) for epoch in range(1, checkpoints + 1)),
        artifacts=Artifacts(adapter_uri="s3://b/a"),
    )


def test_a_small_message_is_kept_whole() -> None:
    message = TerminationMessage(message="done", checkpoints=(make_checkpoint(1),))

    assert TerminationMessage.model_validate_json(message.to_bytes()) == message


def test_the_newest_checkpoints_survive_when_there_is_no_room() -> None:
    data = make_message(20).to_bytes()

    kept = TerminationMessage.model_validate_json(data).checkpoints
    assert len(data) <= MAX_TERMINATION_BYTES
    assert kept == () or kept[-1].epoch == 20


def test_an_endless_message_still_fits() -> None:
    data = make_message(20, "ü" * 4096).to_bytes()

    assert len(data) <= MAX_TERMINATION_BYTES
    assert json.loads(data)["progress"]["step"] == 3


@pytest.mark.parametrize("character", ["\x01", "𝄞", '"', "a"], ids=["control", "four bytes", "quote", "plain"])
def test_the_longest_that_can_be_said_still_fits(character: str) -> None:
    uri, text = character * 1280, character * 4096
    checkpoint = make_checkpoint(1).model_copy(update={"uri": uri})
    message = make_message(20, text).model_copy(
        update={
            "hint": text,
            "log_tail": character * 2000,
            "checkpoints": (checkpoint,) * 20,
            "best_checkpoint": checkpoint,
            "artifacts": Artifacts(adapter_uri=uri, samples_uri=uri, manifest_uri=uri, logs_uri=uri),
            "saved_state": SavedState(step=1, uri=uri),
            "memory_rungs": (MemoryRung(name="HalfBatch", message=text),) * 16,
            "notices": (Notice(reason="Stalled", message=character * 1024),) * 8,
            "dataset_digest": "0" * 64,
            "evaluation": EvaluationStatus(digest=character * 64, reason="Completed", message=text, best_epoch=7),
        }
    )

    data = message.to_bytes()

    kept = TerminationMessage.model_validate_json(data)
    assert len(data) <= MAX_TERMINATION_BYTES
    assert kept.message and kept.hint and kept.progress == message.progress
    assert kept.evaluation is not None and kept.evaluation.best_epoch == 7


def test_the_end_of_the_log_outlives_tables_and_old_checkpoints() -> None:
    lines = "".join(f"line {number}\n" for number in range(300))[-2000:]

    kept = TerminationMessage.model_validate_json(make_message(20).model_copy(update={"log_tail": lines}).to_bytes())

    assert kept.log_tail.startswith("line ") and kept.log_tail.endswith("line 299\n")
    assert len(kept.log_tail) > 900


def test_fields_of_a_newer_trainer_are_dropped_not_refused() -> None:
    report = ProgressReport.model_validate_json('{"reason": "Training", "futureField": {"a": 1}}')

    assert report.reason == "Training"


def test_what_an_evaluation_found_outlives_everything_that_was_made() -> None:
    text = "x" * 4096
    found = EvaluationStatus(digest="0" * 64, reason="Completed", message=text, best_epoch=7, confidence="High")
    long = make_message(20, text).model_copy(update={"hint": text, "evaluation": found})

    kept = TerminationMessage.model_validate_json(long.to_bytes()).evaluation

    assert kept is not None
    assert kept.model_copy(update={"message": ""}) == found.model_copy(update={"message": ""})
    assert kept.message
