"""`lora resize`."""

from pathlib import Path

import pytest

from lora_trainer.commands.resize import resize
from lora_trainer.lora.formats import read_adapter, save_adapter
from tests.support.adapter_files import make_adapter
from tests.support.command import run_command


@pytest.fixture
def source(tmp_path: Path) -> Path:
    save_adapter(tmp_path / "a.safetensors", make_adapter(rank=4))
    return tmp_path / "a.safetensors"


def test_the_file_is_written_and_what_it_keeps_is_told(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "b.safetensors"

    result = run_command(resize, source, target, "--rank", 2)

    assert result.exit_code == 0
    assert result.stdout.startswith(f"{target}: 3 modules of rank 2 to 2\nkept ")
    assert {module.rank for module in read_adapter(target).modules.values()} == {2}


def test_every_module_is_told_on_request(source: Path, tmp_path: Path) -> None:
    result = run_command(resize, source, tmp_path / "b.safetensors", "--rank", 64, "--verbose")

    assert "100.000%  rank    4  lora_unet_mid_block_resnets_0_conv1" in result.stdout


@pytest.mark.parametrize(("option", "value"), [("--energy", "0.5"), ("--ratio", "1.0001")])
def test_shares_are_options(source: Path, tmp_path: Path, option: str, value: str) -> None:
    run_command(resize, source, tmp_path / "b.safetensors", option, value)

    assert min(module.rank for module in read_adapter(tmp_path / "b.safetensors").modules.values()) < 4


def test_saying_nothing_is_refused(source: Path, tmp_path: Path) -> None:
    result = run_command(resize, source, tmp_path / "b.safetensors")

    assert (result.exit_code, "say how far: --rank, --energy or --ratio" in result.stderr) == (64, True)


def test_nothing_is_overwritten(source: Path) -> None:
    result = run_command(resize, source, source, "--rank", 2)

    assert (result.exit_code, "exists; remove it" in result.stderr) == (64, True)
