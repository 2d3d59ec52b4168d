"""`lora preflight` from the outside: a process of its own that never imports torch."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from lora_api import TerminationMessage, names
from lora_trainer.commands.app import app
from tests.support.tiny_run import make_training, write_pictures

_SAY_WHETHER_TORCH_IS_HERE = (
    "import sys, atexit\n"
    "from lora_trainer.commands.app import app\n"
    "atexit.register(lambda: print('torch' in sys.modules or 'diffusers' in sys.modules))\n"
    "app(sys.argv[1:])\n"
)


@pytest.fixture
def file(tiny_pipeline: Path, tmp_path: Path) -> Path:
    """A LoraTraining as YAML with pictures of its own."""
    training = make_training(tiny_pipeline, write_pictures(tmp_path / "data"), tmp_path / "out")
    path = tmp_path / "lora.yaml"
    path.write_text(yaml.safe_dump(training.to_document()))
    return path


@pytest.fixture
def termination_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the last word goes."""
    monkeypatch.setenv(names.ENV_TERMINATION_LOG, str(tmp_path / "last-word"))
    return tmp_path / "last-word"


def preflight(file: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["preflight", str(file), "--work-dir", str(file.parent / "work"), *arguments])


def test_it_ends_with_0_and_leaves_plan_and_digest_for_the_operator(file: Path, termination_log: Path) -> None:
    result = preflight(file)

    message = TerminationMessage.model_validate_json(termination_log.read_text())
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("Verified: 3 pictures")
    assert (message.exit_code, message.reason) == (0, "Verified")
    assert message.plan is not None and message.plan.images == 3
    assert message.dataset_digest is not None and len(message.dataset_digest) == 64


def test_bad_data_end_it_with_65_and_the_file_by_name(file: Path, termination_log: Path) -> None:
    (file.parent / "data" / "2_zwx shape" / "1.png").write_bytes(b"no picture")

    result = preflight(file)

    message = TerminationMessage.model_validate_json(termination_log.read_text())
    assert result.exit_code == 65
    assert (message.exit_code, message.reason) == (65, "InvalidDataset")
    assert "2_zwx shape/1.png" in message.message
    assert [path.name for path in (file.parent / "out").rglob("*.*") if path.suffix] == ["preflight.log"]


def test_told_to_stop_it_ends_with_75_and_says_that_nothing_was_lost(
    file: Path, termination_log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lora_trainer.preflight.check_training", lambda _: os.kill(os.getpid(), signal.SIGTERM))

    result = preflight(file)

    message = TerminationMessage.model_validate_json(termination_log.read_text())
    assert result.exit_code == 75
    assert (message.exit_code, message.reason) == (75, "Interrupted")
    assert "nothing was lost" in message.message


def test_overrides_change_the_plan(file: Path) -> None:
    assert "1 steps in 1 epochs" in preflight(file, "--set", "training.maxSteps=1").stdout


def test_it_never_imports_torch(file: Path) -> None:
    arguments = ("preflight", str(file), "--work-dir", str(file.parent / "work"))

    ended = subprocess.run(
        [sys.executable, "-c", _SAY_WHETHER_TORCH_IS_HERE, *arguments], capture_output=True, text=True, check=False
    )

    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[0].startswith("Verified")
    assert ended.stdout.splitlines()[-1] == "False"
