"""`lora import`: the file on stdout, what was left over on stderr."""

import json
import struct
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from lora_api import load_training
from lora_trainer.commands.import_ import import_

runner = CliRunner()
PLACES = ["--base-model", "hf://a/b", "--dataset", "s3://lora/data", "--output", "s3://lora/run"]
COMMAND = "accelerate launch train_network.py --network_dim 32 --output_name hina --wandb_run_name x"


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer()
    app.command(name="import")(import_)
    app.callback()(lambda: None)
    return app


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "train.sh"
    path.write_text(COMMAND)
    return path


def write_adapter(path: Path, metadata: dict[str, str]) -> Path:
    tensor = {"dtype": "BF16", "shape": [0], "data_offsets": [0, 0]}
    header = json.dumps({"__metadata__": metadata, "lora_unet_x.lora_up.weight": tensor}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    return path


def test_the_file_goes_to_stdout_and_the_rest_to_stderr(app: typer.Typer, script: Path) -> None:
    result = runner.invoke(app, ["import", str(script), *PLACES])

    assert result.exit_code == 0
    assert load_training(result.stdout).spec.network.rank == 32
    assert result.stdout.startswith("# train.sh (sd-scripts command line), brought over by `lora import`\n")
    assert result.stderr.startswith("1 setting was not carried over:\n  wandb_run_name = x: ")


def test_text_comes_from_stdin_as_well(app: typer.Typer) -> None:
    result = runner.invoke(app, ["import", "-", *PLACES], input=COMMAND)

    assert load_training(result.stdout).name == "hina"


def test_a_file_is_written_and_never_overwritten(app: typer.Typer, script: Path, tmp_path: Path) -> None:
    target = tmp_path / "hina.yaml"

    first = runner.invoke(app, ["import", str(script), *PLACES, "-o", str(target)])
    again = runner.invoke(app, ["import", str(script), *PLACES, "-o", str(target), "--name", "other"])

    assert (first.exit_code, first.stdout, load_training(target.read_text()).name) == (0, "", "hina")
    assert (again.exit_code, "exists; choose another name" in again.stderr) == (64, True)


def test_an_adapter_is_read_without_its_tensors(app: typer.Typer, tmp_path: Path) -> None:
    metadata = {"ss_network_dim": "8", "ss_network_alpha": "4.0", "ss_network_module": "networks.lora"}
    path = write_adapter(tmp_path / "Old one.safetensors", metadata)

    result = runner.invoke(app, ["import", str(path), *PLACES])

    training = load_training(result.stdout)
    assert (training.name, training.spec.network.rank, training.spec.network.alpha) == ("old-one", 8, 4.0)
    assert (training.spec.network.text_encoder, training.spec.output.precision) == (False, "bf16")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.safetensors", b"\x10\0\0\0\0\0\0\0{", "a is no .safetensors file, or cut off"),
        ("a.safetensors", b"", "a is no .safetensors file, or cut off"),
        ("a.json", b"{", "no valid JSON"),
        ("a.toml", b"", "the file is empty"),
        ("a.txt", b"hello", "neither a command line of train_network.py nor JSON nor valid TOML"),
        ("a.bin", b"\xff\xfe\x00", "is no UTF-8 text"),
        ("deep.json", b'{"a":' * 100_000, "no valid JSON"),
        ("deep.toml", b"a = " + b"[" * 100_000, "nor valid TOML"),
    ],
)
def test_what_is_no_settings_file_ends_with_64(
    app: typer.Typer, tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)

    result = runner.invoke(app, ["import", str(tmp_path / name), *PLACES])

    assert result.exit_code == 64
    assert message in result.stderr


def test_stdin_that_is_no_text_ends_with_64(app: typer.Typer) -> None:
    result = runner.invoke(app, ["import", "-", *PLACES], input=COMMAND.encode() + b" --output_name \xff")

    assert (result.exit_code, "stdin is no UTF-8 text" in result.stderr) == (64, True)


def test_a_missing_file_ends_with_64(app: typer.Typer, tmp_path: Path) -> None:
    result = runner.invoke(app, ["import", str(tmp_path / "none.json"), *PLACES])

    assert (result.exit_code, "none.json cannot be read" in result.stderr) == (64, True)


def test_missing_places_end_with_64_and_name_the_options(app: typer.Typer, script: Path) -> None:
    result = runner.invoke(app, ["import", str(script)])

    assert result.exit_code == 64
    assert [option in result.stderr for option in ("--base-model", "--dataset", "--output")] == [True] * 3
