"""`lora run` and `lora inspect` from the outside."""

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner, Result

from lora_api import ProgressReport, TerminationMessage, names
from lora_api.status import Progress
from lora_trainer.commands.app import app
from lora_trainer.commands.run import showing
from lora_trainer.stopping import catch_signals
from tests.support.tiny_run import make_training


@pytest.fixture
def file(tiny_pipeline: Path, tiny_pictures: Path, tmp_path: Path) -> Path:
    """A LoraTraining as YAML; one epoch, no pictures."""
    changes = {"training": {"epochs": 1}, "samples": {"prompts": []}}
    training = make_training(tiny_pipeline, tiny_pictures, tmp_path / "out", **changes)
    path = tmp_path / "lora.yaml"
    path.write_text(yaml.safe_dump(training.to_document()))
    return path


@pytest.fixture
def termination_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the last word goes."""
    monkeypatch.setenv(names.ENV_TERMINATION_LOG, str(tmp_path / "last-word"))
    return tmp_path / "last-word"


def lora(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_a_run_ends_with_0_and_says_where_the_adapter_is(file: Path, termination_log: Path) -> None:
    result = lora("run", file, "--work-dir", file.parent / "work")

    message = TerminationMessage.model_validate_json(termination_log.read_text())
    adapter = (file.parent / "out" / "adapters" / "tiny.safetensors").as_uri()
    assert result.exit_code == 0, result.output
    assert result.stdout == f"Completed: 6 steps in 1 epochs: {adapter}\n"
    assert (message.exit_code, message.reason, message.step) == (0, "Completed", 6)
    assert message.artifacts is not None and message.artifacts.adapter_uri == adapter


def test_a_second_run_does_nothing_and_ends_with_0(file: Path, termination_log: Path) -> None:
    lora("run", file, "--work-dir", file.parent / "work")

    result = lora("run", file, "--work-dir", file.parent / "work")

    assert result.exit_code == 0
    assert result.stdout.startswith("AlreadyTrained: this very run was completed")
    assert TerminationMessage.model_validate_json(termination_log.read_text()).reason == "AlreadyTrained"


def test_overrides_change_the_run(file: Path) -> None:
    result = lora("run", file, "--set", "training.maxSteps=2", "--work-dir", file.parent / "work")

    assert result.stdout.startswith("Completed: 2 steps in 1 epochs")


@pytest.mark.parametrize(
    ("override", "code", "words"),
    [
        ("training.epochs=0", 64, "spec.training.epochs is 0, but must be at least 1"),
        ("dataset.uri=file:///nowhere", 65, "spec.dataset.uri: file:///nowhere does not exist"),
        ("baseModel.uri=file:///nowhere", 66, "spec.baseModel.uri: file:///nowhere does not exist"),
    ],
)
def test_a_refusal_ends_with_its_code_and_leaves_its_words(
    file: Path, termination_log: Path, override: str, code: int, words: str
) -> None:
    result = lora("run", file, "--set", override, "--work-dir", file.parent / "work")

    message = TerminationMessage.model_validate_json(termination_log.read_text())
    assert result.exit_code == message.exit_code == code
    assert words in result.stderr
    assert words in message.message
    assert message.hint


def test_an_error_of_ours_is_left_as_a_crash(
    file: Path, termination_log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("lora_trainer.run.run_training", crash)

    result = lora("run", file)

    message = TerminationMessage.model_validate_json(termination_log.read_text())
    assert result.exit_code == message.exit_code == 1
    assert message.reason == "TrainerCrashed"
    assert message.message.startswith("ZeroDivisionError: division by zero (")
    assert "in crash" in message.log_tail


def test_a_taken_port_is_named(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(names.ENV_LISTEN_ADDRESS, "192.0.2.1:9400")

    result = lora("run", file)

    assert result.exit_code == 64
    assert "192.0.2.1:9400 cannot be listened on" in result.stderr


@pytest.fixture
def told_early() -> Iterator[None]:
    """SIGTERM has come while the command was imported."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    catch_signals()
    signal.raise_signal(signal.SIGTERM)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("told_early")
def test_a_stop_before_anything_was_imported_ends_with_75_and_nothing_lost(file: Path, termination_log: Path) -> None:
    result = lora("run", file, "--work-dir", file.parent / "work")

    message = TerminationMessage.model_validate_json(termination_log.read_text())
    assert result.exit_code == message.exit_code == 75
    assert message.reason == "Interrupted" and "nothing was lost" in message.message


@pytest.mark.parametrize("command", ["run", "preflight", "evaluate"])
def test_signals_are_caught_before_the_commands_are_imported(command: str) -> None:
    """Killed by an uncaught SIGTERM, the process would end with -15."""
    program = (
        "import signal, sys\n"
        "class Import:\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'lora_trainer.commands':\n"
        "            signal.raise_signal(signal.SIGTERM)\n"
        "            sys.exit(9)\n"
        "sys.meta_path.insert(0, Import())\n"
        "from lora_trainer.__main__ import main\n"
        "main()\n"
    )

    assert subprocess.run([sys.executable, "-c", program, command, "lora.yaml"], check=False).returncode == 9


@pytest.mark.parametrize(("end", "code"), [("sys.exit(76)", 76), ("raise ValueError('a bug')", 1)])
def test_one_of_many_processes_waits_for_no_thread_at_its_end(end: str, code: int) -> None:
    """torch's own waits for its part in a sum, which a lost process never gives."""
    program = (
        "import sys, threading, types\n"
        "def app():\n"
        "    threading.Thread(target=threading.Event().wait).start()\n"
        f"    {end}\n"
        "commands = types.SimpleNamespace(app=app, set_up_logging=lambda: None)\n"
        "sys.modules['lora_trainer.commands.app'] = commands\n"
        "sys.argv = ['lora', 'run', 'lora.yaml']\n"
        "from lora_trainer.__main__ import main\n"
        "main()\n"
    )

    ended = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "RANK": "1"}, check=False, timeout=60, capture_output=True
    )

    assert ended.returncode == code
    assert (b"a bug" in ended.stderr) == (code == 1)


def test_the_log_of_the_attempt_holds_what_was_said(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="lora_trainer")
    lora("run", file, "--work-dir", file.parent / "work")

    log = (file.parent / "work" / "logs" / "attempt.log").read_text()
    assert "LoadingModel" in log and "step 6/6" in log


def test_stall_seconds_of_the_spec_are_taken_over(file: Path, termination_log: Path) -> None:
    lora("run", file, "--set", "limits.stallSeconds=77", "--work-dir", file.parent / "work")

    assert TerminationMessage.model_validate_json(termination_log.read_text()).patience_seconds == 77


def test_a_terminal_shows_a_bar_with_loss_rate_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    console = Console(file=StringIO(), force_terminal=True, width=120, color_system=None)
    numbers = Progress(
        step=3, total_steps=12, epoch=0, total_epochs=2, loss=0.125, steps_per_second=2.5, remaining_seconds=3700
    )

    with showing(console) as on_progress:
        on_progress(numbers)
        logging.getLogger("lora_trainer").warning("a line above the bar")

    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert all(words in shown for words in ("epoch 1/2", "3/12", "loss 0.1250", "2.50 steps/s", "1h 1m left"))
    assert "a line above the bar" in shown


def test_the_help_names_every_command() -> None:
    result = lora("--help")

    assert result.exit_code == 0
    assert all(f" {command} " in result.stdout for command in ("run", "plan", "validate", "inspect"))


def test_an_unknown_command_is_refused() -> None:
    result = lora("rnu")

    assert result.exit_code == 2
    assert "No such command 'rnu'" in result.stderr


def test_inspect_shows_modules_rank_alpha_and_metadata(file: Path) -> None:
    lora("run", file, "--work-dir", file.parent / "work")
    adapter = file.parent / "out" / "adapters" / "tiny.safetensors"

    as_json, as_text = lora("inspect", adapter, "-o", "json"), lora("inspect", adapter)

    document = json.loads(as_json.stdout)
    assert document["parts"]["unet"]["modules"] == 192
    assert document["parts"]["unet"]["ranks"] == [4]
    assert document["parts"]["text_encoder"]["alphas"] == [2.0]
    assert document["metadata"]["ss_output_name"] == "tiny"
    assert "ss_network_dim" in as_text.stdout


def test_inspect_refuses_what_is_no_adapter(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_text("nothing")

    result = lora("inspect", tmp_path / "a.safetensors")

    assert result.exit_code == 64
    assert "a.safetensors is no .safetensors file, or cut off" in result.stderr


def test_the_report_of_a_run_is_read_back_by_the_contract(file: Path, termination_log: Path) -> None:
    lora("run", file, "--work-dir", file.parent / "work")

    report = ProgressReport.model_validate_json(termination_log.read_text())

    assert report.plan is not None and report.plan.total_steps == 6
    assert [checkpoint.epoch for checkpoint in report.checkpoints] == [1]


def test_a_work_folder_that_is_a_file_ends_with_69(file: Path) -> None:
    result = lora("run", file, "--work-dir", file)

    assert (result.exit_code, "lora.yaml cannot be written: File exists" in result.stderr) == (69, True)


def test_libraries_draw_no_bars_of_their_own() -> None:
    asks = "from huggingface_hub.utils import are_progress_bars_disabled as off; print(off())"
    program = f"from lora_trainer.commands.app import set_up_logging; set_up_logging(); {asks}"

    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert result.stdout == "True\n"
