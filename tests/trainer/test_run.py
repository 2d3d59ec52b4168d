"""The whole path of the trainer on the tiny pipeline."""

import hashlib
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from prometheus_client import CollectorRegistry

from lora_api import MANIFEST_NAME, LoraTraining, RunManifest
from lora_api.run_manifest import ManifestFile
from lora_trainer.errors import Interrupted, InterruptedUnsaved, InvalidConfiguration, OutOfMemory, StorageUnavailable
from lora_trainer.lora.formats import read_adapter
from lora_trainer.output import RunOutput
from lora_trainer.progress import ProgressTracker
from lora_trainer.run import Ended, run_training
from lora_trainer.run_log import RunLog, logging_to
from lora_trainer.storage.directory_store import DirectoryStore
from tests.support.tiny_run import FEW_BLOCKS, make_session, make_session_until, make_training, write_pictures

FINAL = "adapters/tiny.safetensors"
SHORT: dict[str, Any] = {"network": {"blocks": FEW_BLOCKS}, "samples": {"prompts": []}}
"""Few adapters and no pictures, where the result is not compared with that of `finished`."""


@dataclass(frozen=True)
class Finished:
    """A run that has ended well."""

    training: LoraTraining
    ended: Ended
    output: Path
    tracker: ProgressTracker
    registry: CollectorRegistry

    @property
    def manifest(self) -> RunManifest:
        """What it says that it made."""
        return RunManifest.model_validate_json((self.output / MANIFEST_NAME).read_text())


@pytest.fixture(scope="module")
def finished(tiny_pipeline: Path, tiny_pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """One run to look at; read only."""
    folder = tmp_path_factory.mktemp("run")
    training = make_training(tiny_pipeline, tiny_pictures, folder / "out")
    observed = make_session(folder / "work")
    ended = run_training(training, observed.session)
    return Finished(training, ended, folder / "out", observed.tracker, observed.registry)


@pytest.fixture
def again(tiny_pipeline: Path, tiny_pictures: Path, tmp_path: Path) -> Callable[..., LoraTraining]:
    """The same training with an output of its own."""
    return lambda **changes: make_training(tiny_pipeline, tiny_pictures, tmp_path / "out", **changes)


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, but for the store's own lock."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_an_adapter_and_a_sheet_lie_there_for_every_epoch(finished: Finished) -> None:
    names = set(content(finished.output))

    assert {
        "adapters/tiny-000001.safetensors",
        "adapters/tiny-000002.safetensors",
        FINAL,
        "samples/tiny-e000000-00.png",
        "samples/tiny-sheet-000001.png",
        "samples/tiny-sheet-000002.png",
        "samples/tiny-sheet.png",
        "evaluation/metrics.jsonl",
        MANIFEST_NAME,
    } <= names


def test_the_manifest_names_every_result_with_the_digest_it_has(finished: Finished) -> None:
    manifest = finished.manifest

    results = {name: data for name, data in content(finished.output).items() if not name.startswith("state/")}
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in results.items() if name != MANIFEST_NAME}

    assert manifest.complete
    assert {file.path: file.sha256 for file in manifest.files} == digests


def test_the_report_says_what_was_made(finished: Finished) -> None:
    report = finished.tracker.snapshot()

    assert report.progress is not None and report.plan is not None
    assert (report.progress.step, report.progress.epoch, report.progress.percent) == (12, 2, 100)
    assert report.plan.regularization_images == 2
    assert [checkpoint.epoch for checkpoint in report.checkpoints] == [1, 2]
    assert report.artifacts is not None and report.artifacts.adapter_uri == f"{finished.output.as_uri()}/{FINAL}"
    assert report.progress is not None and report.progress.percent == 100
    assert [checkpoint.epoch for checkpoint in report.checkpoints] == [1, 2]


def test_the_metrics_hold_the_last_step(finished: Finished) -> None:
    values = {sample.name: sample.value for metric in finished.registry.collect() for sample in metric.samples}

    assert values["lora_trainer_step"] == 12
    assert values["lora_trainer_epoch"] == 2
    assert values["lora_trainer_loss"] > 0
    assert values["lora_trainer_stored_bytes_total"] > 0
    assert values["lora_trainer_device_memory_bytes"] > 0


def test_the_metrics_file_holds_a_line_for_every_report(finished: Finished) -> None:
    lines = [json.loads(line) for line in (finished.output / "evaluation/metrics.jsonl").read_text().splitlines()]

    assert [line["step"] for line in lines] == list(range(1, 13))
    assert lines[-1]["learningRates"] == {"unet": 1e-2, "text_encoder": 1e-2}


def test_the_sheet_has_a_column_for_the_base_model_and_every_epoch(finished: Finished) -> None:
    names = ("samples/tiny-sheet-000001.png", "samples/tiny-sheet-000002.png", "samples/tiny-sheet.png")

    widths = [Image.open(BytesIO((finished.output / name).read_bytes())).width for name in names]

    assert widths == [208 + 2 * 136, 208 + 3 * 136, 208 + 3 * 136]


def test_training_changes_both_parts_of_the_model(finished: Finished) -> None:
    modules = read_adapter(finished.output / FINAL).modules

    still = [key for key, module in modules.items() if float(module.delta.norm()) == 0]

    # 64 px leave one cell in the middle of the UNet, and attention of one cell to itself has nothing to choose.
    middle = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_"
    assert len(modules) == 192 + 12
    assert still == [f"{middle}k", f"{middle}q"]


def test_the_same_training_elsewhere_gives_the_same_bytes(
    finished: Finished, again: Callable[..., LoraTraining], tmp_path: Path
) -> None:
    run_training(again(), make_session(tmp_path / "other-work").session)

    names = [name for name in content(finished.output) if name.startswith(("adapters/", "samples/", "evaluation/"))]
    assert all((finished.output / name).read_bytes() == (tmp_path / "out" / name).read_bytes() for name in names)


@pytest.mark.parametrize(
    "optimizer",
    [{"name": "adamw"}, {"name": "adamw8bit", "arguments": {"min_8bit_size": "16"}}],
    ids=["adamw", "adamw8bit"],
)
def test_an_interrupted_training_goes_on_to_the_same_adapter(
    optimizer: dict[str, Any],
    again: Callable[..., LoraTraining],
    tmp_path: Path,
    tiny_pipeline: Path,
    tiny_pictures: Path,
) -> None:
    changes: dict[str, Any] = {**SHORT, "optimizer": optimizer, "training": {"epochs": 1}}
    whole = make_training(tiny_pipeline, tiny_pictures, tmp_path / "whole", **changes)
    run_training(whole, make_session(tmp_path / "work").session)
    interrupted = make_session_until(tmp_path / "w1", step=3)
    with pytest.raises(Interrupted):
        run_training(again(**changes), interrupted.session)

    resumed = make_session(tmp_path / "w2")
    run_training(again(**changes), resumed.session)

    assert resumed.tracker.snapshot().resumed_from_step == 3
    assert (tmp_path / "whole" / FINAL).read_bytes() == (tmp_path / "out" / FINAL).read_bytes()


def without_training(manifest: RunManifest) -> list[ManifestFile]:
    return [file for file in manifest.files if file.kind != "training"]


def test_a_training_resumed_after_an_epoch_keeps_what_it_had_published(
    finished: Finished, again: Callable[..., LoraTraining], tmp_path: Path
) -> None:
    observed = make_session(tmp_path / "w1")
    session = replace(observed.session, should_stop=lambda: len(observed.tracker.snapshot().checkpoints) == 1)
    with pytest.raises(Interrupted):
        run_training(again(), session)

    resumed = make_session(tmp_path / "w2")
    run_training(again(), resumed.session)

    manifest = RunManifest.model_validate_json((tmp_path / "out" / MANIFEST_NAME).read_text())
    # training.yaml names the output, which is another one.
    assert without_training(manifest) == without_training(finished.manifest)
    assert [checkpoint.epoch for checkpoint in resumed.tracker.snapshot().checkpoints] == [1, 2]


def test_a_completed_run_is_not_trained_again(finished: Finished, tmp_path: Path) -> None:
    before = content(finished.output)
    observed = make_session(tmp_path / "work")

    ended = run_training(finished.training, observed.session)

    assert ended.reason == "AlreadyTrained"
    assert content(finished.output) == before
    report = observed.tracker.snapshot()
    assert report.artifacts is not None and report.artifacts.adapter_uri == f"{finished.output.as_uri()}/{FINAL}"


def test_the_output_of_another_run_is_not_overwritten(
    finished: Finished, tiny_pipeline: Path, tiny_pictures: Path, tmp_path: Path
) -> None:
    other = make_training(tiny_pipeline, tiny_pictures, finished.output, training={"seed": 4})

    with pytest.raises(InvalidConfiguration, match=r"spec\.output\.uri already holds another run \(tiny, written"):
        run_training(other, make_session(tmp_path / "work").session)


def test_a_stop_before_the_first_step_loses_nothing_and_is_no_success(
    again: Callable[..., LoraTraining], tmp_path: Path
) -> None:
    observed = make_session(tmp_path / "work", should_stop=lambda: True)

    with pytest.raises(Interrupted, match="before the first new step"):
        run_training(again(), observed.session)


def test_a_state_that_cannot_be_stored_in_time_is_said(
    again: Callable[..., LoraTraining], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise StorageUnavailable("the store does not answer")

    monkeypatch.setattr(RunOutput, "publish_state", refuse)
    observed = make_session_until(tmp_path / "work", step=3)

    with pytest.raises(InterruptedUnsaved, match="could not be stored: the store does not answer"):
        run_training(again(**SHORT), observed.session)


def test_without_states_an_interrupted_training_says_that_it_begins_anew(
    again: Callable[..., LoraTraining], tmp_path: Path
) -> None:
    changes: dict[str, Any] = {**SHORT, "checkpoints": {"saveState": False}}
    observed = make_session_until(tmp_path / "work", step=3)

    with pytest.raises(
        InterruptedUnsaved, match=r"spec\.checkpoints\.saveState is false: the next attempt begins anew"
    ):
        run_training(again(**changes), observed.session)

    assert not list((tmp_path / "out").glob("state/step-*"))


def test_states_between_epochs_change_nothing_in_the_result(
    finished: Finished, again: Callable[..., LoraTraining], tmp_path: Path
) -> None:
    observed = make_session(tmp_path / "work")

    run_training(again(checkpoints={"everySteps": 1, "keepLast": 3}), observed.session)

    names = [name for name in content(finished.output) if name.startswith(("adapters/", "samples/", "evaluation/"))]
    assert all((finished.output / name).read_bytes() == (tmp_path / "out" / name).read_bytes() for name in names)
    assert len(list((tmp_path / "out").glob("state/step-*"))) == 3
    saved = observed.tracker.snapshot().saved_state
    assert saved is not None and (saved.step, saved.epoch) == (12, 2)


def test_the_log_of_every_start_is_kept(again: Callable[..., LoraTraining], tmp_path: Path) -> None:
    changes: dict[str, Any] = {**SHORT, "training": {"maxSteps": 2}}
    log = tmp_path / "attempt.log"
    log.write_text("words of the trainer\n")
    session = replace(make_session(tmp_path / "work").session, log_file=log)

    run_training(again(**changes), session)

    (kept,) = (tmp_path / "out/logs").iterdir()
    assert kept.read_text() == "words of the trainer\n"


def test_the_log_of_a_failure_ends_with_its_traceback(
    again: Callable[..., LoraTraining], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("an error of ours")

    monkeypatch.setattr("lora_trainer.run.train", fail)
    log = RunLog(tmp_path / "attempt.log", ())
    with logging_to(log, ()), pytest.raises(RuntimeError, match="an error of ours"):
        session = replace(make_session(tmp_path / "work").session, log_file=log.path)
        run_training(again(**SHORT), session)

    (kept,) = (tmp_path / "out/logs").iterdir()
    assert kept.read_text().rstrip().endswith("RuntimeError: an error of ours")


def test_a_store_that_fails_while_the_process_is_told_to_stop_makes_no_failure(
    again: Callable[..., LoraTraining], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[bool] = []

    def fail(*_: object, **__: object) -> None:
        told.append(True)
        raise StorageUnavailable("the store is down")

    monkeypatch.setattr("lora_trainer.run.train", fail)
    session = make_session(tmp_path / "work", should_stop=lambda: bool(told)).session

    with pytest.raises(InterruptedUnsaved, match="could not be stored: the store is down"):
        run_training(again(**SHORT), session)


def test_a_second_ctrl_c_waits_for_no_upload(
    again: Callable[..., LoraTraining], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging, ended = threading.Event(), list[bool]()

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(DirectoryStore, "put_file", lambda *_, **__: ended.append(hanging.wait(60)))
    monkeypatch.setattr("lora_trainer.run.train", interrupted)
    try:
        with pytest.raises(KeyboardInterrupt):
            run_training(again(), make_session(tmp_path / "work").session)
        assert ended == []
    finally:
        hanging.set()


def test_new_pictures_are_refused_or_taken_up_at_the_beginning_of_the_epoch(
    again: Callable[..., LoraTraining], tiny_pipeline: Path, tmp_path: Path
) -> None:
    data = write_pictures(tmp_path / "data")

    def train_on(data: Path, **more: Any) -> LoraTraining:
        return make_training(tiny_pipeline, data, tmp_path / "out", **SHORT, **more)

    with pytest.raises(Interrupted):
        run_training(train_on(data), make_session_until(tmp_path / "w1", step=8).session)
    (data / "2_zwx shape" / "1.txt").write_text("other words")

    with pytest.raises(InvalidConfiguration, match=r"caption changed: 2_zwx shape/1\.png"):
        run_training(train_on(data), make_session(tmp_path / "w2").session)
    observed = make_session(tmp_path / "w3")
    ended = run_training(train_on(data, resume={"onChange": "Continue"}), observed.session)

    report = observed.tracker.snapshot()
    assert ended.reason == "Completed"
    assert report.resumed_from_step == 6
    assert [notice.reason for notice in report.notices] == ["ResumedOnChange"]


def test_gradient_checkpointing_changes_no_number(
    finished: Finished, again: Callable[..., LoraTraining], tmp_path: Path
) -> None:
    changes: dict[str, Any] = {"training": {"gradientCheckpointing": True, "epochs": 1}, "samples": {"prompts": []}}
    run_training(again(**changes), make_session(tmp_path / "work").session)

    first = "adapters/tiny-000001.safetensors"
    ours, theirs = (read_adapter(folder / first).modules for folder in (finished.output, tmp_path / "out"))
    assert all(ours[key].down.equal(theirs[key].down) and ours[key].up.equal(theirs[key].up) for key in ours)


def test_a_gpu_without_enough_memory_is_the_users_to_solve(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nmore words")

    monkeypatch.setattr("lora_trainer.run.make_accelerator", refuse)

    with pytest.raises(
        OutOfMemory, match=r"too little memory \(\w*\): CUDA out of memory\. Tried to allocate 2 GiB\.$"
    ):
        run_training(finished.training, make_session(tmp_path / "work").session)


def test_captions_that_are_cut_are_named_in_the_plan(tiny_pipeline: Path, tmp_path: Path) -> None:
    data = write_pictures(tmp_path / "data")
    (data / "2_zwx shape" / "0.txt").write_text("zwx " + "a " * 100)
    changes: dict[str, Any] = {**SHORT, "training": {"maxSteps": 1}}
    observed = make_session(tmp_path / "work")

    run_training(make_training(tiny_pipeline, data, tmp_path / "out", **changes), observed.session)

    plan = observed.tracker.snapshot().plan
    assert plan is not None
    assert plan.warnings[-1] == (
        "1 captions are longer than 75 tokens, and their end is cut off: 2_zwx shape/0.png; "
        "raise spec.dataset.captions.maxTokens."
    )
