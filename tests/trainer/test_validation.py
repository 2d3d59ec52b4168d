"""Whole runs on the tiny pipeline that measure their epochs: nothing held out is trained on, and no byte changes."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lora_api import LoraTraining
from lora_api.evaluation_spec import Evaluation
from lora_api.status import EvaluationStatus
from lora_trainer.data.loader import Loader, TrainingBatch
from lora_trainer.errors import Interrupted, InvalidConfiguration
from lora_trainer.evaluation.bench import Bench
from lora_trainer.evaluation.measures import Measure, from_lines
from lora_trainer.results import METRICS_PATH
from lora_trainer.run import run_training
from lora_trainer.validation import Validation
from tests.support.tiny_run import FEW_BLOCKS, Observed, make_session, make_session_until, make_training

PASSES = {"heldOutPasses": 8, "trainingPasses": 4, "driftPasses": 4}
MEASURED = {"bestEpoch": PASSES, "report": False}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten pictures of as many colours."""
    root: Path = tmp_path_factory.mktemp("data")
    folder = root / "1_zwx shape"
    folder.mkdir()
    for index in range(10):
        Image.new("RGB", (64, 64), (25 * index, 250 - 25 * index, 90)).save(folder / f"{index}.png")
        (folder / f"{index}.txt").write_text(f"zwx shape {index}")
    return root


Make = Callable[..., LoraTraining]


@pytest.fixture(scope="module")
def make(tiny_pipeline: Path, data: Path) -> Make:
    def make(output: Path, **changes: Any) -> LoraTraining:
        sections: dict[str, Any] = {
            "network": {"blocks": list(FEW_BLOCKS)},
            "samples": {"prompts": []},
            "training": {"epochs": 3, "batchSize": 4},
            "dataset": {"validationFraction": 0.2},
            "evaluation": MEASURED,
        }
        return make_training(tiny_pipeline, data, output, **{**sections, **changes})

    return make


@dataclass(frozen=True)
class Run:
    """A finished run."""

    output: Path
    observed: Observed
    captions: frozenset[str]
    """Those of every batch that was trained on."""


@pytest.fixture(scope="module")
def whole(make: Make, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder: Path = tmp_path_factory.mktemp("whole")
    captions: set[str] = set()
    steps, observed = Loader.steps, make_session(folder / "work")

    def noting(self: Loader, epoch: int, *, first_step: int) -> Iterator[tuple[TrainingBatch, ...]]:
        for step in steps(self, epoch, first_step=first_step):
            captions.update(caption for batch in step for caption in batch.captions)
            yield step

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loader, "steps", noting)
        run_training(make(folder / "out"), observed.session)
    return Run(folder / "out", observed, frozenset(captions))


def lines_of(folder: Path) -> list[str]:
    return (folder / METRICS_PATH).read_text().splitlines()


def adapters_of(folder: Path) -> dict[str, bytes]:
    """Those of the training; a copy of the best one is the evaluation's."""
    paths = sorted((folder / "adapters").iterdir())
    return {path.name: path.read_bytes() for path in paths if not path.name.endswith("-best.safetensors")}


def test_what_is_held_out_is_never_trained_on(whole: Run) -> None:
    held_out = {f"zwx shape {Path(name).stem}" for name in measures_of(whole)[0].held_out}

    assert len(held_out) == 2
    assert whole.captions == {f"zwx shape {index}" for index in range(10)} - held_out


def measures_of(run: Run) -> tuple[Measure, ...]:
    return from_lines(lines_of(run.output))[0]


def test_every_saved_epoch_and_the_base_model_are_measured(whole: Run) -> None:
    assert [measure.epoch for measure in measures_of(whole)] == [0, 1, 2, 3]


def test_the_best_checkpoint_is_that_of_the_best_epoch(whole: Run) -> None:
    report = whole.observed.tracker.snapshot()

    assert report.evaluation is not None and report.best_checkpoint is not None
    assert report.evaluation.held_out_images == 2
    assert report.best_checkpoint.epoch == report.evaluation.best_epoch


def test_checkpoints_carry_their_loss_on_held_out_pictures(whole: Run) -> None:
    losses = {measure.epoch: measure.held_out_loss for measure in measures_of(whole) if measure.epoch > 0}

    assert {c.epoch: c.validation_loss for c in whole.observed.tracker.snapshot().checkpoints} == losses


def test_metrics_show_what_was_measured_last(whole: Run) -> None:
    value, last = whole.observed.registry.get_sample_value, measures_of(whole)[-1]

    assert value("lora_trainer_validation_loss") == last.held_out_loss
    assert value("lora_trainer_training_loss") == last.training_loss
    assert value("lora_trainer_drift") == last.drift
    assert value("lora_trainer_overfit") == 0


def test_measuring_changes_no_byte_of_the_adapters(make: Make, whole: Run, tmp_path: Path) -> None:
    unmeasured = make(tmp_path / "out", evaluation={"bestEpoch": {"by": "None"}, "report": False})

    run_training(unmeasured, make_session(tmp_path / "work").session)

    assert adapters_of(tmp_path / "out") == adapters_of(whole.output)
    assert from_lines(lines_of(tmp_path / "out")) == ((), None)


def test_an_interrupted_run_has_the_same_measures(make: Make, whole: Run, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        run_training(make(tmp_path / "out"), make_session_until(tmp_path / "work-1", step=3).session)
    run_training(make(tmp_path / "out"), make_session(tmp_path / "work-2").session)

    assert lines_of(tmp_path / "out") == lines_of(whole.output)
    assert adapters_of(tmp_path / "out") == adapters_of(whole.output)


def test_an_epoch_that_was_measured_before_the_stop_is_not_measured_again(
    make: Make, whole: Run, tmp_path: Path
) -> None:
    stopped = make_session(tmp_path / "work-1")

    def draws_after_an_epoch() -> bool:
        return stopped.tracker.snapshot().reason == "Sampling" and stopped.tracker.snapshot().progress is not None

    prompts = {"prompts": [{"prompt": "zwx", "steps": 1}]}
    with pytest.raises(Interrupted):
        run_training(
            make(tmp_path / "out", samples=prompts), replace(stopped.session, should_stop=draws_after_an_epoch)
        )
    run_training(make(tmp_path / "out", samples=prompts), make_session(tmp_path / "work-2").session)

    assert lines_of(tmp_path / "out") == lines_of(whole.output)


def test_early_stop_ends_well_and_says_so(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worsen(monkeypatch)
    training = make(
        tmp_path / "out",
        training={"epochs": 9, "batchSize": 4},
        evaluation=MEASURED | {"earlyStop": {"patience": 2}},
        samples={"everyEpochs": 5, "prompts": [{"prompt": "zwx", "steps": 1}]},
    )

    observed, again = make_session(tmp_path / "work"), make_session(tmp_path / "again")
    ended = run_training(training, observed.session)
    run_training(training, again.session)

    progress = observed.tracker.snapshot().progress
    assert progress is not None and progress.remaining_seconds == 0
    assert [one.validation_loss for one in again.tracker.snapshot().checkpoints] == pytest.approx(
        [0.65, 0.75, 0.85], abs=1e-3
    )
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    drawn = [file["path"] for file in manifest["files"] if file["kind"] == "sample"]
    assert drawn == ["samples/tiny-e000000-00.png", "samples/tiny-e000003-00.png"], "the last epoch is drawn as always"
    assert ended.message.startswith("6 steps in 3 epochs, stopped early of 9: ")
    assert (manifest["complete"], manifest["epoch"], manifest["step"]) == (True, 3, 6)
    files = {file["path"]: file["epoch"] for file in manifest["files"] if file["kind"] == "adapter"}
    assert files["adapters/tiny.safetensors"] == 3


def worsen(monkeypatch: pytest.MonkeyPatch) -> None:
    """From epoch to epoch held-out pictures get worse, and trained ones better."""

    def measure(self: Bench, epoch: int, step: int) -> Measure:
        return Measure(epoch, step, {"a": 0.5 + 0.1 * epoch, "b": 0.6 + 0.1001 * epoch}, {"c": 1 - 0.1 * epoch}, 0.1)

    monkeypatch.setattr(Bench, "measure", measure)


def test_a_run_that_is_killed_after_its_last_epoch_still_stops_there(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worsen(monkeypatch)
    training = make(
        tmp_path / "out", training={"epochs": 9, "batchSize": 4}, evaluation=MEASURED | {"earlyStop": {"patience": 2}}
    )
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="killed"):
        patch.setattr("lora_trainer.recorder.Recorder.finish", killed)
        run_training(training, make_session(tmp_path / "work-1").session)

    ended = run_training(training, make_session(tmp_path / "work-2").session)

    assert ended.message.startswith("6 steps in 3 epochs, stopped early of 9: ")


def killed(*arguments: object) -> None:
    raise RuntimeError("killed")


def test_early_stop_without_held_out_pictures_is_refused(make: Make, tmp_path: Path) -> None:
    training = make(tmp_path / "out", evaluation={"earlyStop": {}}, dataset={"validationFraction": 0.0})

    with pytest.raises(InvalidConfiguration, match=r"spec.evaluation.earlyStop is set, but no picture is held out"):
        run_training(training, make_session(tmp_path / "work").session)


def test_without_held_out_pictures_gain_and_drift_are_measured(make: Make, tmp_path: Path) -> None:
    observed = make_session(tmp_path / "work")

    run_training(make(tmp_path / "out", dataset={"validationFraction": 0.0}), observed.session)

    status = observed.tracker.snapshot().evaluation
    assert status is not None and status.confidence == "Low"
    assert status.best_epoch is not None


def test_while_training_the_status_says_that_it_is_measuring(tmp_path: Path) -> None:
    observed = make_session(tmp_path)
    validation = Validation(Evaluation(), observed.session.audience)

    assert validation.status == EvaluationStatus(
        reason="Measuring", message="No epoch is chosen: no epoch is measured yet."
    )
