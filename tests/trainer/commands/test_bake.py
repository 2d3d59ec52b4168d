"""`lora bake`."""

from pathlib import Path

import pytest
import torch

from lora_trainer.commands.bake import bake
from lora_trainer.lora.formats import read_adapter, save_adapter
from lora_trainer.lora.tensor_file import write_tensors
from tests.support.adapter_files import LINEAR, SIZES, make_adapter, make_dora, replaced
from tests.support.command import run_command

NUMBERS = "0.25,0,0,0,0,0,0,0.5,1,1,1,1,0.5,0,0,0,0"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    save_adapter(tmp_path / "hina.safetensors", make_adapter())
    return tmp_path / "hina.safetensors"


def norms(path: Path) -> dict[str, float]:
    """How much each module changes."""
    return {key: float(module.delta.norm()) for key, module in read_adapter(path).modules.items()}


def test_a_preset_is_worked_in_and_told(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "outs.safetensors"

    result = run_command(bake, source, "--block-weights", "OUTS", "--out", target)

    assert result.exit_code == 0
    told, weights = result.stdout.splitlines()
    assert told == f"{target}: 1 modules, 2 of weight 0 left out"
    assert weights.startswith("OUTS: BASE 1, IN00 0, ") and weights.endswith("OUT08 1, OUT09 1, OUT10 1, OUT11 1")
    assert list(norms(target)) == ["lora_te_text_model_encoder_layers_0_mlp_fc1"]


@pytest.mark.parametrize("text", [NUMBERS, f"HINA4:{NUMBERS}", "HINA4"])
def test_own_weights_multiply_the_weight(source: Path, tmp_path: Path, text: str) -> None:
    target, presets = tmp_path / "mine.safetensors", tmp_path / "lbwpresets.txt"
    presets.write_text(f"HINA4:{NUMBERS}\n")

    run_command(bake, source, "-b", text, "--weight", 0.8, "--presets", presets, "-o", target)

    before, after = norms(source), norms(target)
    factors = {key: after[key] / before[key] for key in before}
    assert factors == {key: pytest.approx(0.2 if "_te_" in key else 0.4, rel=1e-3) for key in before}


def test_a_dora_is_computed_from_the_base(tmp_path: Path) -> None:
    source, base, target = (tmp_path / f"{name}.safetensors" for name in ("dora", "base", "out"))
    save_adapter(source, replaced(make_adapter(LINEAR), make_dora(LINEAR)))
    name = "middle_block.1.transformer_blocks.0.attn1.to_q.weight"
    write_tensors(base, {f"model.diffusion_model.{name}": torch.ones(SIZES[LINEAR])}, {})

    without = run_command(bake, source, "--weight", 0.5, "--out", target)
    result = run_command(bake, source, "--weight", 0.5, "--out", target, "--base", base)

    assert (without.exit_code, result.exit_code) == (64, 0)
    assert "give --base" in without.stderr
    assert result.stdout == f"{target}: 1 modules\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "say what to work in: --block-weights, --weight or both"),
        (["--weight", "nan"], "--weight is nan; write a number such as 0.8"),
        (["-b", "HINA4"], "--block-weights: HINA4 is no preset; known are NONE"),
        (["-b", "INS", "--presets", "none.txt"], "--presets: none.txt cannot be read"),
    ],
)
def test_what_cannot_be_done_is_told(source: Path, tmp_path: Path, options: list[str], message: str) -> None:
    result = run_command(bake, source, "--out", tmp_path / "b.safetensors", *options)

    assert result.exit_code == 64
    assert message in result.stderr
    assert not (tmp_path / "b.safetensors").exists()
