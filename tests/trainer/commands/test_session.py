"""What is around a training: watched, logged, told to stop, with a last word whatever happens."""

import logging
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lora_api import TerminationMessage, names
from lora_trainer.commands.session import Surroundings, describe_crash, is_out_of_memory, open_surroundings
from lora_trainer.errors import Interrupted, InvalidDataset

logger = logging.getLogger("lora_trainer.test")


@pytest.fixture(autouse=True)
def termination_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the last word goes."""
    monkeypatch.setenv(names.ENV_TERMINATION_LOG, str(tmp_path / "last-word"))
    return tmp_path / "last-word"


@pytest.fixture(autouse=True)
def heard() -> Iterator[None]:
    logging.getLogger("lora_trainer").setLevel(logging.INFO)
    yield
    logging.getLogger("lora_trainer").setLevel(logging.NOTSET)


def end(work_dir: Path, error: Exception) -> TerminationMessage:
    """The last word of a process that ends with `error`."""
    with pytest.raises(type(error)), open_surroundings(work_dir=work_dir, serve_progress=False) as here:
        logger.info("the last line")
        raise error
    assert here.settings.termination_log is not None
    return TerminationMessage.model_validate_json(here.settings.termination_log.read_bytes())


def log_of(work_dir: Path) -> str:
    return (work_dir / "logs" / "attempt.log").read_text()


def test_who_asks_whether_to_stop_is_alive(tmp_path: Path) -> None:
    with open_surroundings(work_dir=tmp_path, serve_progress=False) as here:
        here.tracker.stall("no sign of life")
        answer = here.should_stop()

        assert not answer
        assert here.tracker.snapshot().reason == "Starting"


def test_sigterm_is_heard_and_the_grace_period_comes_from_the_pod(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(names.ENV_GRACE_SECONDS, "120")

    with open_surroundings(work_dir=tmp_path, serve_progress=False) as here:
        signal.raise_signal(signal.SIGTERM)

        assert here.should_stop()
        assert 110 < (here.stop.seconds_left() or 0) <= 117


def test_a_stop_that_nobody_took_ends_as_interrupted(tmp_path: Path, termination_log: Path) -> None:
    with pytest.raises(Interrupted), open_surroundings(work_dir=tmp_path, serve_progress=False) as here:
        signal.raise_signal(signal.SIGTERM)
        here.stop.check()

    word = TerminationMessage.model_validate_json(termination_log.read_bytes())
    assert (word.exit_code, word.reason) == (75, "Interrupted")


def test_a_crash_is_told_with_its_place_and_the_end_of_the_log(tmp_path: Path) -> None:
    word = end(tmp_path, ZeroDivisionError("division by zero"))

    assert (word.exit_code, word.reason) == (1, "TrainerCrashed")
    assert word.message.startswith("ZeroDivisionError: division by zero (")
    assert "the last line\n" in word.log_tail
    assert word.log_tail.endswith("ZeroDivisionError: division by zero\n")


def test_the_traceback_of_a_crash_is_in_the_log(tmp_path: Path) -> None:
    end(tmp_path, ZeroDivisionError("division by zero"))

    assert "Traceback (most recent call last)" in log_of(tmp_path)
    assert "in end" in log_of(tmp_path)


def test_an_error_of_the_user_is_told_without_a_traceback(tmp_path: Path) -> None:
    word = end(tmp_path, InvalidDataset("50_hina/a.png does not decode"))

    assert (word.exit_code, word.reason, word.message) == (65, "InvalidDataset", "50_hina/a.png does not decode")
    assert word.log_tail.endswith("the last line\n")
    assert "Traceback" in log_of(tmp_path)


def test_an_interruption_is_no_failure_and_needs_no_log(tmp_path: Path) -> None:
    word = end(tmp_path, Interrupted("told to stop at step 3"))

    assert (word.exit_code, word.log_tail) == (75, "")


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes")],
    ids=["Python", "torch"],
)
def test_a_machine_without_memory_is_told_with_its_cure(tmp_path: Path, error: Exception) -> None:
    word = end(tmp_path, error)

    assert is_out_of_memory(error)
    assert word.exit_code == 1
    assert "spec.pod.resources.limits.memory" in word.hint


def test_the_place_of_a_crash_is_the_innermost_of_ours() -> None:
    try:
        Surroundings.log_tail(object())  # type: ignore[arg-type]
    except AttributeError as error:
        words = describe_crash(error)

    assert words.startswith("AttributeError: 'object' object has no attribute 'log' (session.py:")
    assert words.endswith(" in log_tail)")


def test_secrets_do_not_reach_the_last_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI")

    word = end(tmp_path, ValueError("signed with wJalrXUtnFEMI"))

    assert "signed with ***" in word.message
    assert "wJalrXUtnFEMI" not in word.model_dump_json() + log_of(tmp_path)


def test_mounted_secrets_do_not_reach_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("credentials", "credentials-output"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "AWS_SECRET_ACCESS_KEY").write_text(f"key-of-{folder}\n")
    (tmp_path / "token").write_text("token-of-hub")
    monkeypatch.setenv(names.ENV_CREDENTIALS_DIR, str(tmp_path / "credentials"))
    monkeypatch.setenv(names.ENV_HUB_TOKEN_FILE, str(tmp_path / "token"))

    with open_surroundings(work_dir=tmp_path, serve_progress=False):
        logger.info("secrets: key-of-credentials, key-of-credentials-output, token-of-hub")

    assert "secrets: ***, ***, ***\n" in log_of(tmp_path)


def test_a_folder_that_cannot_hold_a_log_does_not_end_the_run(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file")

    with open_surroundings(work_dir=tmp_path, serve_progress=False) as here:
        assert here.log_file is None
        assert here.log_tail() == ""


def test_a_crash_without_a_log_still_tells_its_traceback(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file")

    assert "Traceback" in end(tmp_path, ZeroDivisionError("division by zero")).log_tail


def test_a_good_end_is_the_last_word(tmp_path: Path, termination_log: Path) -> None:
    with open_surroundings(work_dir=tmp_path, serve_progress=False) as here:
        here.say_end("Completed", "12 steps")

    word = TerminationMessage.model_validate_json(termination_log.read_bytes())
    assert (word.exit_code, word.reason, word.message) == (0, "Completed", "12 steps")


def test_a_crash_of_native_code_tells_its_stack_on_stderr(tmp_path: Path) -> None:
    """The kubelet keeps the end of stderr when there is no last word."""
    program = (
        "import signal, sys; from pathlib import Path; from lora_trainer.commands.session import open_surroundings\n"
        "with open_surroundings(work_dir=Path(sys.argv[1]), serve_progress=False):\n"
        "    signal.raise_signal(signal.SIGSEGV)\n"
    )

    process = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=False)

    assert process.returncode == -signal.SIGSEGV
    assert "Segmentation fault" in process.stderr and 'File "<string>", line 3' in process.stderr


def test_all_of_it_needs_neither_torch_nor_boto3() -> None:
    program = "import sys, lora_trainer.commands.session; print({'torch', 'boto3', 'botocore'} & set(sys.modules))"

    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert process.stdout == "set()\n"
