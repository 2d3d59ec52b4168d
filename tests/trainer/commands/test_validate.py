"""`lora validate`: everything that is wrong at once, with line numbers."""

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from lora_trainer.commands.validate import validate
from tests.support.files import write_training

runner = CliRunner()


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer()
    app.command()(validate)
    app.callback()(lambda: None)
    return app


def test_a_valid_file_is_said_to_be_valid(app: typer.Typer, tmp_path: Path) -> None:
    path = write_training(tmp_path)

    result = runner.invoke(app, ["validate", str(path)])

    assert (result.exit_code, result.stdout) == (0, f"{path}: LoraTraining hina is valid\n")


def test_every_problem_is_told_in_the_order_of_its_lines(app: typer.Typer, tmp_path: Path) -> None:
    path = write_training(tmp_path, ("network.rank", 0), ("trainng", {}), ("output.uri", "gs://x/y"))
    lines = path.read_text().splitlines()
    places = [lines.index(text) + 1 for text in ("    uri: gs://x/y", "    rank: 0", "  trainng: {}")]

    result = runner.invoke(app, ["validate", str(path)])

    assert result.exit_code == 64
    told = result.stderr.splitlines()
    assert [line.split(":")[1] for line in told] == [str(place) for place in places]
    assert told[1] == f"{path}:{places[1]}: spec.network.rank is 0, but must be at least 1"
    assert told[2] == f"{path}:{places[2]}: spec.trainng is no known field; did you mean training?"


def test_a_syntax_error_names_its_line(app: typer.Typer, tmp_path: Path) -> None:
    path = tmp_path / "lora.yaml"
    path.write_text("apiVersion: v1\nspec: [\n")

    result = runner.invoke(app, ["validate", str(path)])

    assert result.exit_code == 64
    assert result.stderr.startswith(f"{path}:3: the file is no valid YAML")


def test_limits_that_only_fail_together_are_found(app: typer.Typer, tmp_path: Path) -> None:
    path = write_training(tmp_path, ("dataset.resolution", "768x512"), ("dataset.buckets.minPx", 640))

    result = runner.invoke(app, ["validate", str(path)])

    assert result.exit_code == 64
    assert "spec.dataset.buckets.minPx is 640, but must be at most the smaller side" in result.stderr


def test_a_missing_file_ends_with_64(app: typer.Typer, tmp_path: Path) -> None:
    result = runner.invoke(app, ["validate", str(tmp_path / "none.yaml")])

    assert result.exit_code == 64
    assert "none.yaml cannot be read" in result.stderr


def test_a_warning_makes_no_file_invalid(app: typer.Typer, tmp_path: Path) -> None:
    path = write_training(tmp_path, ("storage.endpoint", "http://minio:9000"))

    result = runner.invoke(app, ["validate", str(path)])

    assert (result.exit_code, result.stdout) == (0, f"{path}: LoraTraining hina is valid\n")
    assert result.stderr.startswith(f"{path}: warning: spec.storage.endpoint is http://minio:9000: ")


def test_the_file_is_judged_with_its_changes(app: typer.Typer, tmp_path: Path) -> None:
    path = write_training(tmp_path, ("training.epochs", 0))

    result = runner.invoke(app, ["validate", str(path), "--set", "training.epochs=3"])

    assert (result.exit_code, result.stdout) == (0, f"{path}: LoraTraining hina is valid\n")


def test_what_does_not_stand_in_the_file_has_no_line(app: typer.Typer, tmp_path: Path) -> None:
    path = write_training(tmp_path)

    result = runner.invoke(app, ["validate", str(path), "--set", "training.epochs=0", "--set", "trainng.x=1"])

    assert result.exit_code == 64
    assert result.stderr.splitlines() == [
        f"{path}: spec.training.epochs is 0, but must be at least 1",
        f"{path}: spec.trainng is no known field; did you mean training?",
    ]


def test_a_change_without_a_value_is_refused(app: typer.Typer, tmp_path: Path) -> None:
    path = write_training(tmp_path)

    result = runner.invoke(app, ["validate", str(path), "--set", "training.epochs"])

    assert (result.exit_code, result.stderr) == (
        64,
        f"{path}: --set training.epochs is no override; write --set path=value\n",
    )
