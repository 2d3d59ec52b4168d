"""A training that was interrupted again and again leaves, byte for byte, what an uninterrupted one leaves."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lora_trainer.errors import Interrupted, InvalidConfiguration
from lora_trainer.run import run_training
from tests.support.tiny_run import FEW_BLOCKS, Observed, make_session, make_session_until, make_training, write_pictures

CHANGES: dict[str, Any] = {
    "training": {"epochs": 4, "gradientAccumulationSteps": 2, "ema": {"decay": 0.9}},
    "network": {"dropout": 0.2, "blocks": FEW_BLOCKS},
    "checkpoints": {"everySteps": 2},
    "samples": {"everySteps": 2},
}
STEPS = 12


def session_stopped_within(work_dir: Path, *, step: int) -> Observed:
    """Told to stop between the two batches of the update after `step`; while drawing, if that comes first."""
    observed = make_session(work_dir)
    questions = iter(range(1_000_000))

    def should_stop() -> bool:
        progress = observed.tracker.snapshot().progress
        return progress is not None and progress.step >= step and next(questions) % 2 == 1

    return replace(observed, session=replace(observed.session, should_stop=should_stop))


@pytest.fixture(scope="module")
def whole(tiny_pipeline: Path, tiny_pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    run_training(make_training(tiny_pipeline, tiny_pictures, folder / "out", **CHANGES), make_session(folder).session)
    return folder / "out"


def results(output: Path) -> dict[str, bytes]:
    """Adapters, pictures, sheets and the history of the metrics."""
    folders = ("adapters", "samples", "evaluation")
    return {
        path.relative_to(output).as_posix(): path.read_bytes()
        for folder in folders
        for path in sorted((output / folder).rglob("*"))
    }


@pytest.fixture
def start(tiny_pipeline: Path, tiny_pictures: Path, tmp_path: Path) -> Callable[..., int | None]:
    """Starts the training, with some number of workers, up to a step; the step it went on from."""

    def run(step: int | None, *, workers: int = 0) -> int | None:
        dataset = {"workers": workers}
        training = make_training(tiny_pipeline, tiny_pictures, tmp_path / "out", dataset=dataset, **CHANGES)
        work = tmp_path / "work"
        observed = make_session(work) if step is None else session_stopped_within(work, step=step)
        if step is None:
            run_training(training, observed.session)
        else:
            with pytest.raises(Interrupted):
                run_training(training, observed.session)
        return observed.tracker.snapshot().resumed_from_step

    return run


def test_ten_interruptions_within_an_update_change_no_byte(
    whole: Path, start: Callable[..., int | None], tmp_path: Path
) -> None:
    resumed = [start(step, workers=step % 3) for step in range(1, 11)] + [start(None)]

    assert resumed == [None, *range(1, 11)]
    assert results(tmp_path / "out") == results(whole)


def test_a_state_of_another_start_is_gone_back_to_when_the_newest_is_damaged(
    whole: Path, start: Callable[..., int | None], tmp_path: Path
) -> None:
    start(4)
    start(7)
    newest = max((tmp_path / "out/state").glob("step-7-*"))
    (newest / "training.pt").write_bytes(b"damaged")

    resumed = start(None)

    assert resumed is not None and resumed < 7
    assert results(tmp_path / "out") == results(whole)


WITHOUT_PICTURES: dict[str, Any] = {
    "network": {"blocks": FEW_BLOCKS},
    "samples": {"prompts": []},
    "checkpoints": {"everySteps": 1},
    "resume": {"onChange": "Continue"},
}


def test_the_loss_told_on_changed_pictures_is_that_of_the_steps_made_on_them(
    tiny_pipeline: Path, tmp_path: Path
) -> None:
    data = write_pictures(tmp_path / "data")
    training = make_training(tiny_pipeline, data, tmp_path / "out", **WITHOUT_PICTURES)
    with pytest.raises(Interrupted):
        run_training(training, make_session_until(tmp_path / "w1", step=8).session)
    (data / "2_zwx shape" / "1.txt").write_text("other words")

    with pytest.raises(Interrupted):
        run_training(training, make_session_until(tmp_path / "w2", step=8).session)
    run_training(training, make_session(tmp_path / "w3").session)

    lines = (tmp_path / "out/evaluation/metrics.jsonl").read_text().splitlines()
    losses = {line["step"]: line["loss"] for line in map(json.loads, lines)}
    # Each step's is near 1; six steps are an epoch, and the steps before 7 are no part of any mean after it.
    assert sorted(losses) == list(range(1, 13))
    assert min(losses.values()) > 0.7


def test_epochs_that_there_are_no_more_with_changed_pictures_are_no_results(
    tiny_pipeline: Path, tmp_path: Path
) -> None:
    data = write_pictures(tmp_path / "data")
    steps = {"epochs": 50, "maxSteps": 14, "batchSize": 2, "precision": "fp32"}
    training = make_training(tiny_pipeline, data, tmp_path / "out", **WITHOUT_PICTURES | {"training": steps})
    with pytest.raises(Interrupted):
        run_training(training, make_session_until(tmp_path / "w1", step=13).session)
    for index in range(20):
        shutil.copy(data / "2_zwx shape/0.png", data / f"2_zwx shape/new-{index}.png")

    observed = make_session(tmp_path / "w2")
    run_training(training, observed.session)

    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    adapters = [file["path"] for file in manifest["files"] if file["kind"] == "adapter"]
    assert adapters == ["adapters/tiny-000001.safetensors", "adapters/tiny.safetensors"]
    assert [checkpoint.epoch for checkpoint in observed.tracker.snapshot().checkpoints] == [1]


def test_weights_that_do_not_fit_a_changed_base_model_are_refused(
    tiny_pipeline: Path, tiny_sd2: Path, tiny_pictures: Path, tmp_path: Path
) -> None:
    base = shutil.copytree(tiny_pipeline, tmp_path / "base")
    training = make_training(base, tiny_pictures, tmp_path / "out", **WITHOUT_PICTURES)
    with pytest.raises(Interrupted):
        run_training(training, make_session_until(tmp_path / "w1", step=2).session)
    shutil.rmtree(base)
    shutil.copytree(tiny_sd2, base)

    with pytest.raises(InvalidConfiguration, match=r"do not fit spec\.baseModel\.uri any more: \w.* in the state and"):
        run_training(training, make_session(tmp_path / "w2").session)
