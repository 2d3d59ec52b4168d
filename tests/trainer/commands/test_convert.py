"""`lora convert`."""

from pathlib import Path

import pytest

from lora_trainer.commands.convert import convert
from lora_trainer.lora.formats import read_adapter, save_adapter
from tests.support.adapter_files import LINEAR, make_adapter, make_loha, replaced
from tests.support.command import run_command


@pytest.fixture
def source(tmp_path: Path) -> Path:
    save_adapter(tmp_path / "a.safetensors", make_adapter())
    return tmp_path / "a.safetensors"


def test_the_file_is_written_and_named(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "b.safetensors"

    result = run_command(convert, source, target, "--to", "diffusers")

    assert (result.exit_code, result.stdout) == (0, f"{target}: locon for sd15, 3 modules, diffusers format\n")
    assert read_adapter(target).format == "diffusers"


def test_family_and_precision_are_options(source: Path, tmp_path: Path) -> None:
    result = run_command(
        convert, source, tmp_path / "b.safetensors", "--to", "kohya", "--family", "sdxl", "--precision", "bf16"
    )

    module = next(iter(read_adapter(tmp_path / "b.safetensors").modules.values()))
    assert (result.exit_code, str(module.dtype)) == (0, "torch.bfloat16")
    assert read_adapter(tmp_path / "b.safetensors").family == "sdxl"


def test_what_a_format_cannot_hold_is_refused(tmp_path: Path) -> None:
    save_adapter(tmp_path / "a.safetensors", replaced(make_adapter(), make_loha(LINEAR)))

    result = run_command(convert, tmp_path / "a.safetensors", tmp_path / "b.safetensors", "--to", "diffusers")

    assert result.exit_code == 64
    assert "that only kohya's format can hold" in result.stderr
    assert not (tmp_path / "b.safetensors").exists()


def test_a_file_that_is_no_adapter_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_text("nothing")

    result = run_command(convert, tmp_path / "a.safetensors", tmp_path / "b.safetensors", "--to", "peft")

    assert (result.exit_code, "is no .safetensors file, or cut off" in result.stderr) == (64, True)
