"""What is made of a completed run, when, and that nothing of it touches the training."""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from lora_api import LoraTraining, TerminationMessage, names, parse_training
from lora_api.run_manifest import EVALUATION_MANIFEST_NAME, MANIFEST_NAME, EvaluationManifest, RunManifest
from lora_trainer.commands.app import app
from lora_trainer.errors import Interrupted, InvalidConfiguration, InvalidDataset, StorageUnavailable
from lora_trainer.evaluate import evaluate_training
from lora_trainer.lora.formats import read_adapter
from lora_trainer.preflight import check_before_training
from lora_trainer.progress import ProgressTracker
from lora_trainer.run import run_training
from tests.support.tiny_judges import write_tiny_clip, write_tiny_dino
from tests.support.tiny_run import FEW_BLOCKS, make_session, make_training

GRID: dict[str, Any] = {"weights": [0.5, 1.0], "seeds": [1, 2], "blockWeights": [{"name": "ALL"}, {"name": "MIDD"}]}
EVALUATION: dict[str, Any] = {"grid": GRID}


@dataclass(frozen=True)
class Evaluated:
    """A run that was evaluated."""

    training: LoraTraining
    output: Path
    tracker: ProgressTracker
    reasons: list[str]

    @property
    def manifest(self) -> EvaluationManifest:
        """What the evaluation says that it made."""
        return manifest_at(self.output)


def manifest_at(output: Path) -> EvaluationManifest:
    return EvaluationManifest.model_validate_json((output / EVALUATION_MANIFEST_NAME).read_text())


def settings(**changes: Any) -> dict[str, Any]:
    """A training of few blocks with something held out, whatever is evaluated."""
    return {"network": {"blocks": FEW_BLOCKS}, "dataset": {"validationFraction": 0.34}} | changes


@pytest.fixture(scope="module")
def evaluated(tiny_pipeline: Path, tiny_pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Evaluated:
    """One run to look at; read only."""
    folder = tmp_path_factory.mktemp("evaluated")
    training = make_training(tiny_pipeline, tiny_pictures, folder / "out", **settings(evaluation=EVALUATION))
    observed = make_session(folder / "work")
    reasons: list[str] = []
    set_reason = observed.tracker.set_reason

    def noted(reason: str, message: str = "") -> None:
        reasons.append(f"{reason}: {message}")
        set_reason(reason, message)

    observed.tracker.set_reason = noted  # type: ignore[method-assign]
    run_training(training, observed.session)
    return Evaluated(training, folder / "out", observed.tracker, reasons)


@pytest.fixture
def copy(evaluated: Evaluated, tiny_pipeline: Path, tiny_pictures: Path, tmp_path: Path) -> Callable[..., LoraTraining]:
    """The same completed run in a folder of its own, and its training with another `evaluation`."""
    shutil.copytree(evaluated.output, tmp_path / "out")

    def with_evaluation(**evaluation: Any) -> LoraTraining:
        changes = settings(evaluation=EVALUATION | evaluation)
        return make_training(tiny_pipeline, tiny_pictures, tmp_path / "out", **changes)

    return with_evaluation


def made_at(output: Path) -> dict[str, float]:
    """When each picture of the grid was written."""
    return {path.name: path.stat().st_mtime_ns for path in (output / "evaluation/grid").iterdir()}


def test_the_manifest_names_every_file_with_the_digest_it_has(evaluated: Evaluated) -> None:
    manifest = evaluated.manifest

    digests = {
        file.path: hashlib.sha256((evaluated.output / file.path).read_bytes()).hexdigest() for file in manifest.files
    }

    assert digests == {file.path: file.sha256 for file in manifest.files}
    assert manifest.run_sha256 == hashlib.sha256((evaluated.output / MANIFEST_NAME).read_bytes()).hexdigest()
    singles = [path for path in digests if path.startswith("evaluation/grid/")]
    others = {"adapters/tiny-best.safetensors", "evaluation/grid.png", "evaluation/grid.webp", "evaluation/grid.json"}
    assert len(singles) == 2 * 2 * 2 * 2 and digests.keys() - {*singles} == {*others, "evaluation/report.html"}


def test_the_adapter_tells_how_many_pictures_were_held_out(evaluated: Evaluated) -> None:
    metadata = read_adapter(evaluated.output / "adapters/tiny.safetensors").metadata

    assert (metadata["ss_num_validation_images"], metadata["ss_validation_split"]) == ("2", "0.34")


def test_the_best_file_is_the_best_epochs_to_the_byte(evaluated: Evaluated) -> None:
    best = evaluated.manifest.status.best_epoch

    assert best in (1, 2)
    content = (evaluated.output / "adapters/tiny-best.safetensors").read_bytes()
    assert content == (evaluated.output / f"adapters/tiny-{best:06d}.safetensors").read_bytes()


def test_the_tracker_tells_what_was_found_and_where_it_lies(evaluated: Evaluated) -> None:
    report = evaluated.tracker.snapshot()

    assert report.evaluation == evaluated.manifest.status and report.evaluation is not None
    assert (report.evaluation.reason, report.evaluation.digest) == ("Completed", evaluated.manifest.evaluation_digest)
    assert report.artifacts is not None and report.best_checkpoint is not None
    uris = (report.artifacts.best_adapter_uri, report.artifacts.grid_uri, report.artifacts.report_uri)
    assert all(uri and Path(uri.removeprefix("file://")).is_file() for uri in uris)
    assert report.best_checkpoint.epoch == report.evaluation.best_epoch


def test_progress_is_told_while_the_grid_is_drawn(evaluated: Evaluated) -> None:
    told = [reason for reason in evaluated.reasons if reason.startswith("Sampling: grid ")]

    assert "Sampling: grid 0 of 16" in told and "Sampling: grid 16 of 16" in told
    assert any(reason.startswith("Evaluating: ") for reason in evaluated.reasons)


def test_epochs_weights_and_block_weights_change_the_pictures(evaluated: Evaluated) -> None:
    def content(path: str) -> bytes:
        return Image.open(evaluated.output / "evaluation/grid" / path).convert("RGB").tobytes()

    names = [
        f"e{epoch:06d}-w{weight}-s1-b{blocks}.png"
        for epoch in (1, 2)
        for weight in ("0.50", "1.00")
        for blocks in ("00-ALL", "01-MIDD")
    ]

    assert len({content(name) for name in names}) == len(names)


def test_at_weight_one_the_grid_draws_what_the_samples_drew(copy: Callable[..., LoraTraining], tmp_path: Path) -> None:
    # The sample's seed is 1, its file that of the last epoch in fp16.
    sample = Image.open(tmp_path / "out/samples/tiny-e000002-00.png").convert("RGB")
    cell = Image.open(tmp_path / "out/evaluation/grid/e000002-w1.00-s1-b00-ALL.png").convert("RGB")

    difference = [abs(a - b) for a, b in zip(sample.tobytes(), cell.tobytes(), strict=True)]

    assert sum(difference) / len(difference) < 1


def test_a_later_start_finds_everything_and_tells_the_same(evaluated: Evaluated, tmp_path: Path) -> None:
    observed, before = make_session(tmp_path / "work"), made_at(evaluated.output)

    ended = run_training(evaluated.training, observed.session)

    report, first = observed.tracker.snapshot(), evaluated.tracker.snapshot()
    assert ended.reason == "AlreadyTrained" and made_at(evaluated.output) == before
    assert (report.evaluation, report.artifacts) == (first.evaluation, first.artifacts)
    assert evaluated.manifest.status.message in ended.message


def test_other_settings_make_only_the_evaluation_again(copy: Callable[..., LoraTraining], tmp_path: Path) -> None:
    training = copy(grid=GRID | {"seeds": [2, 3]}, report=False)
    run, before = (tmp_path / "out" / MANIFEST_NAME).read_bytes(), made_at(tmp_path / "out")

    ended = evaluate_training(training, make_session(tmp_path / "work").session)

    after = made_at(tmp_path / "out")
    assert ended.reason == "Evaluated" and (tmp_path / "out" / MANIFEST_NAME).read_bytes() == run
    assert {name for name in after if before.get(name) == after[name]} == {name for name in before if "-s2-" in name}
    assert {name for name in after if name not in before} == {
        name.replace("-s2-", "-s3-") for name in before if "-s2-" in name
    }
    assert "evaluation/report.html" not in {file.path for file in manifest_at(tmp_path / "out").files}


def without_pictures(training: LoraTraining) -> LoraTraining:
    document = training.to_document()
    document["spec"]["dataset"]["uri"] = "file:///nowhere"
    return parse_training(document)


def test_a_grid_needs_no_training_pictures(copy: Callable[..., LoraTraining], tmp_path: Path) -> None:
    ended = evaluate_training(
        without_pictures(copy(grid={"weights": [0.25], "epochs": [2]})), make_session(tmp_path / "work").session
    )

    assert ended.reason == "Evaluated"
    manifest = manifest_at(tmp_path / "out")
    assert manifest.status.reason == "Completed" and manifest.status.best_epoch is not None
    assert {"evaluation/grid.png", "evaluation/report.html"} <= {file.path for file in manifest.files}


def test_a_likeness_to_the_training_pictures_needs_them(copy: Callable[..., LoraTraining], tmp_path: Path) -> None:
    training = without_pictures(copy(similarity={"dinoUri": "file:///dino"}))

    with pytest.raises(InvalidDataset, match="file:///nowhere does not exist"):
        evaluate_training(training, make_session(tmp_path / "work").session)


def test_a_run_without_its_plan_is_told_by_its_pictures(
    copy: Callable[..., LoraTraining], evaluated: Evaluated, tmp_path: Path
) -> None:
    (tmp_path / "out/plan.json").write_text("{")
    observed = make_session(tmp_path / "work")

    evaluate_training(copy(bestEpoch={"by": "None"}, grid=None), observed.session)

    assert observed.tracker.snapshot().plan == evaluated.tracker.snapshot().plan


def test_what_is_no_longer_asked_for_is_removed(copy: Callable[..., LoraTraining], tmp_path: Path) -> None:
    evaluate_training(copy(grid=None, bestEpoch={"by": "None"}, report=False), make_session(tmp_path / "work").session)

    left = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out/evaluation").rglob("*.*")}
    assert left == {EVALUATION_MANIFEST_NAME, "evaluation/metrics.jsonl"}
    assert not (tmp_path / "out/adapters/tiny-best.safetensors").exists()


@pytest.mark.parametrize("fraction", [None, 0.0, 0.5])
def test_another_share_to_hold_out_makes_it_no_other_run_and_changes_no_plan(
    copy: Callable[..., LoraTraining], evaluated: Evaluated, tmp_path: Path, fraction: float | None
) -> None:
    training = copy(bestEpoch={"by": "None"}, grid=None)
    spec = training.spec.model_copy(
        update={"dataset": training.spec.dataset.model_copy(update={"validation_fraction": fraction})}
    )
    observed = make_session(tmp_path / "work")

    ended = evaluate_training(training.model_copy(update={"spec": spec}), observed.session)

    assert ended.reason == "Evaluated"
    told, trained = observed.tracker.snapshot(), evaluated.tracker.snapshot()
    assert told.progress is not None and trained.progress is not None
    assert told.plan == trained.plan
    assert (told.progress.percent, told.progress.total_steps) == (100, trained.progress.total_steps)


def test_an_evaluation_that_was_stopped_goes_on_with_the_next_picture(
    copy: Callable[..., LoraTraining], tmp_path: Path
) -> None:
    training = copy(grid=GRID | {"seeds": [5, 6]})
    stopping = make_session(tmp_path / "work")

    def after_some_pictures() -> bool:
        return "grid 4 of 16" in stopping.tracker.snapshot().message

    with pytest.raises(Interrupted, match="the training is complete"):
        evaluate_training(training, replace(stopping.session, should_stop=after_some_pictures))
    drawn = {name: when for name, when in made_at(tmp_path / "out").items() if "-s5-" in name or "-s6-" in name}
    assert not (tmp_path / "out" / EVALUATION_MANIFEST_NAME).exists()

    evaluate_training(training, make_session(tmp_path / "work").session)

    after = made_at(tmp_path / "out")
    assert len(drawn) == 4 and drawn.items() <= after.items() and len(after) == 16


def test_a_failed_evaluation_leaves_the_training_complete(
    evaluated: Evaluated, tiny_pipeline: Path, tiny_pictures: Path, copy: Callable[..., LoraTraining], tmp_path: Path
) -> None:
    observed = make_session(tmp_path / "work")

    ended = run_training(copy(grid=GRID | {"epochs": [7]}), observed.session)

    report = observed.tracker.snapshot()
    assert ended.reason == "AlreadyTrained" and report.evaluation is not None
    assert (report.evaluation.reason, report.evaluation.best_epoch) == ("Failed", evaluated.manifest.status.best_epoch)
    assert "spec.evaluation.grid.epochs is [7]" in report.evaluation.message
    assert [notice.reason for notice in report.notices] == ["EvaluationFailed"]
    assert report.artifacts is not None and report.artifacts.adapter_uri is not None


def test_the_preflight_asks_for_a_gpu_only_while_something_is_left_to_do(
    copy: Callable[..., LoraTraining], tmp_path: Path
) -> None:
    reasons = [
        check_before_training(training, make_session(tmp_path / "work").session).reason
        for training in (copy(), copy(report=False))
    ]

    assert reasons == ["AlreadyTrained", "Verified"]


def test_a_folder_without_a_completed_run_is_refused(tiny_pipeline: Path, tiny_pictures: Path, tmp_path: Path) -> None:
    training = make_training(tiny_pipeline, tiny_pictures, tmp_path / "out", **settings(evaluation={}))

    with pytest.raises(InvalidConfiguration, match="no completed run"):
        evaluate_training(training, make_session(tmp_path / "work").session)


def test_pictures_measures_and_grid_change_no_byte_of_the_training(
    evaluated: Evaluated, tiny_pipeline: Path, tiny_pictures: Path, tmp_path: Path
) -> None:
    plain = settings(samples={"prompts": []}, evaluation={"bestEpoch": {"by": "None"}, "report": False})

    run_training(
        make_training(tiny_pipeline, tiny_pictures, tmp_path / "out", **plain), make_session(tmp_path / "work").session
    )

    assert not (tmp_path / "out/samples").exists()
    tensors = [_tensors(folder / "adapters/tiny.safetensors") for folder in (evaluated.output, tmp_path / "out")]
    assert tensors[0] == tensors[1]
    losses = [_losses(folder) for folder in (evaluated.output, tmp_path / "out")]
    assert losses[0] == losses[1] and len(losses[0]) > 1


def _tensors(path: Path) -> bytes:
    """The file without its header, which tells the samples' settings."""
    content = path.read_bytes()
    return content[8 + int.from_bytes(content[:8], "little") :]


def _losses(output: Path) -> list[float]:
    lines = [json.loads(line) for line in (output / "evaluation/metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def test_a_damaged_metrics_file_is_named_with_the_cure(evaluated: Evaluated, tmp_path: Path) -> None:
    output = shutil.copytree(evaluated.output, tmp_path / "out")
    lines = (output / "evaluation/metrics.jsonl").read_text().splitlines()
    (output / "evaluation/metrics.jsonl").write_text("\n".join([lines[0], lines[1][:20], *lines[2:]]))
    changed = {"output": {"uri": output.as_uri(), "name": "tiny"}, "evaluation": {"grid": {"weights": [0.5]}}}
    document = evaluated.training.to_document()
    training = parse_training(document | {"spec": document["spec"] | changed})
    observed = make_session(tmp_path / "work")

    evaluate_training(training, observed.session)

    told = observed.tracker.snapshot().evaluation
    assert told is not None and told.reason == "Failed" and told.message is not None
    assert "evaluation/metrics.jsonl is damaged: line 2 " in told.message
    assert "delete it, and the adapters are measured anew" in told.message


def test_the_run_manifest_does_not_name_what_the_evaluation_made(evaluated: Evaluated) -> None:
    run = RunManifest.model_validate_json((evaluated.output / MANIFEST_NAME).read_text())

    assert not {file.path for file in run.files} & {file.path for file in evaluated.manifest.files}


def test_block_weights_that_do_not_fit_the_model_are_refused_before_the_training(
    tiny_pipeline: Path, tiny_pictures: Path, tmp_path: Path
) -> None:
    grid = {"blockWeights": [{"name": "mine", "values": [1.0] * 12}]}
    training = make_training(tiny_pipeline, tiny_pictures, tmp_path / "out", **settings(evaluation={"grid": grid}))

    with pytest.raises(InvalidConfiguration, match=r"spec\.evaluation\.grid\.blockWeights\[0\].* 17 .* or 26"):
        run_training(training, make_session(tmp_path / "work").session)

    assert not (tmp_path / "out/adapters").exists()


def test_similarity_is_measured_on_the_samples_of_every_epoch(
    copy: Callable[..., LoraTraining], tmp_path: Path
) -> None:
    judges = {
        "clipUri": write_tiny_clip(tmp_path / "clip").as_uri(),
        "dinoUri": write_tiny_dino(tmp_path / "dino").as_uri(),
    }

    evaluate_training(copy(similarity=judges), make_session(tmp_path / "work").session)

    found = json.loads((tmp_path / "out/evaluation/similarity.json").read_text())
    paths = [f"samples/tiny-e{epoch:06d}-00.png" for epoch in (0, 1, 2)]
    assert [picture["path"] for picture in found["pictures"]] == paths
    assert all(
        -1 <= picture["clipText"] <= 1 and picture["nearest"].startswith("2_zwx") for picture in found["pictures"]
    )
    assert "evaluation/similarity.json" in {file.path for file in manifest_at(tmp_path / "out").files}


def test_the_command_ends_with_0_and_its_last_word_tells_the_best_epoch(
    copy: Callable[..., LoraTraining], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(names.ENV_TERMINATION_LOG, str(tmp_path / "last-word"))
    file = tmp_path / "lora.yaml"
    file.write_text(yaml.safe_dump(copy(report=False).to_document()))

    result = CliRunner().invoke(app, ["evaluate", str(file), "--work-dir", str(tmp_path / "work"), "--no-serve"])

    word = TerminationMessage.model_validate_json((tmp_path / "last-word").read_text())
    assert (result.exit_code, word.exit_code, word.reason) == (0, 0, "Evaluated"), result.output
    assert word.evaluation == manifest_at(tmp_path / "out").status
    assert list((tmp_path / "out/logs").iterdir())


def test_a_store_that_fails_after_the_order_to_stop_is_an_interruption(
    copy: Callable[..., LoraTraining], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[bool] = []

    def fail(*_: object, **__: object) -> None:
        told.append(True)
        raise StorageUnavailable("gone")

    monkeypatch.setattr("lora_trainer.evaluate.write_sheet", fail)
    session = replace(make_session(tmp_path / "work").session, should_stop=lambda: bool(told))

    with pytest.raises(Interrupted, match="the training is complete"):
        evaluate_training(copy(report=False), session)
