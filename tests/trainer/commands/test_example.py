"""`lora example`: what it writes can be trained."""

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from lora_trainer.commands.app import app


def lora(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("example") / "try"
    result = lora("example", folder)
    assert result.exit_code == 0, result.output
    return folder


def test_it_is_small_enough_to_be_made_up_anywhere(folder: Path) -> None:
    assert sum(path.stat().st_size for path in folder.rglob("*")) < 2_000_000


def test_the_training_takes_two_steps_and_gives_an_adapter(folder: Path) -> None:
    result = lora("run", folder / "training.yaml", "--work-dir", folder / "work")

    adapter = (folder / "run" / "adapters" / "example.safetensors").as_uri()
    assert result.exit_code == 0, result.output
    assert result.stdout == f"Completed: 2 steps in 1 epochs: {adapter}\n"


def test_a_model_or_a_file_of_somebody_is_not_replaced(tmp_path: Path) -> None:
    own = tmp_path / "training.yaml"
    own.write_text("metadata: {name: mine}")

    result = lora("example", tmp_path)

    assert (result.exit_code, own.read_text()) == (64, "metadata: {name: mine}")
    assert "holds training.yaml already; name a new folder" in result.stderr
    own.unlink()
    (tmp_path / "base").mkdir()
    assert "holds base already" in lora("example", tmp_path).stderr


def test_an_example_is_made_anew(folder: Path) -> None:
    assert lora("example", folder).exit_code == 0


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    result = lora("example", tmp_path / "file" / "try")

    assert result.exit_code == 64
    assert f"{tmp_path / 'file' / 'try'} cannot be written" in result.stderr


def test_a_uri_is_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    result = lora("example", "s3://bucket/example")

    assert (result.exit_code, list(tmp_path.iterdir())) == (64, [])
    assert "name a folder of this machine" in result.stderr
