"""`lora merge`."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lora_trainer.commands.merge import merge
from lora_trainer.lora.formats import read_adapter, save_adapter
from tests.support.adapter_files import LINEAR, SIZES, make_adapter, make_dora, replaced
from tests.support.command import run_command


@pytest.fixture
def adapters(tmp_path: Path) -> list[Path]:
    """Two adapters, one with a colon and a number in its name."""
    paths = [tmp_path / "a.safetensors", tmp_path / "b:2.safetensors"]
    for seed, path in enumerate(paths):
        save_adapter(path, make_adapter(seed=10 * seed, dtype=torch.float16))
    return paths


def test_adapters_are_added_at_their_strengths(adapters: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "sum.safetensors"

    result = run_command(merge, f"{adapters[0]}:0.7", f"{adapters[1]}:-0.3", "--out", out, "--precision", "fp32")

    assert (result.exit_code, result.stdout) == (0, f"{out}: 3 modules of rank 8\n")
    first, second, total = (read_adapter(path).modules for path in (*adapters, out))
    for key, module in total.items():
        assert torch.allclose(module.delta, 0.7 * first[key].delta - 0.3 * second[key].delta, atol=1e-4)


def test_a_strength_without_end_is_refused(adapters: list[Path], tmp_path: Path) -> None:
    result = run_command(merge, f"{adapters[0]}:nan", "--out", tmp_path / "sum.safetensors")

    assert (result.exit_code, "the strength is nan; write a number" in result.stderr) == (64, True)


def test_nothing_is_written_into_the_base_model(adapters: list[Path], tmp_path: Path) -> None:
    (tmp_path / "base" / "unet").mkdir(parents=True)
    save_file({"x": torch.ones(1)}, tmp_path / "base" / "unet" / "x.safetensors")

    result = run_command(merge, adapters[0], "--into", tmp_path / "base", "--out", tmp_path / "base" / "new")

    assert (result.exit_code, "lies inside the base model" in result.stderr) == (64, True)


def test_a_strength_left_out_is_1(adapters: list[Path], tmp_path: Path) -> None:
    run_command(merge, adapters[1], "--out", tmp_path / "sum.safetensors")

    merged, source = read_adapter(tmp_path / "sum.safetensors"), read_adapter(adapters[1])
    assert all(module.down.equal(source.modules[key].down) for key, module in merged.modules.items())
    assert merged.metadata["modelspec.merged_from"] == "b:2.safetensors (1)"


def test_a_rank_is_an_option(adapters: list[Path], tmp_path: Path) -> None:
    result = run_command(merge, *adapters, "--out", tmp_path / "sum.safetensors", "--rank", 2)

    assert result.stdout.endswith("3 modules of rank 2\n")


def test_a_dora_asks_for_its_base(tmp_path: Path) -> None:
    save_adapter(tmp_path / "d.safetensors", replaced(make_adapter(), make_dora(LINEAR)))

    result = run_command(merge, tmp_path / "d.safetensors", "--out", tmp_path / "sum.safetensors", "--rank", 2)

    assert result.exit_code == 64
    assert "whose change depends on the base model; give --base" in result.stderr


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A diffusers folder with all that the adapters change."""
    parts: dict[str, dict[str, torch.Tensor]] = {"unet": {}, "text_encoder": {}}
    for name, size in SIZES.items():
        parts[name.part][f"{name.path}.weight"] = torch.ones(size)
    for part, tensors in parts.items():
        (tmp_path / "base" / part).mkdir(parents=True)
        save_file(tensors, tmp_path / "base" / part / "model.safetensors")
    return tmp_path / "base"


def test_adapters_are_added_to_a_base_model(adapters: list[Path], base: Path, tmp_path: Path) -> None:
    out = tmp_path / "changed"

    result = run_command(merge, f"{adapters[0]}:0.5", "--into", base, "--out", out)

    weight = load_file(out / "unet/model.safetensors")[f"{LINEAR.path}.weight"]
    (module,) = (module for module in read_adapter(adapters[0]).modules.values() if module.name == LINEAR)
    assert (result.exit_code, result.stdout) == (0, f"{out}: base with 1 adapter added\n")
    assert torch.allclose(weight, 1 + 0.5 * module.delta, atol=1e-5)


def test_a_dora_becomes_a_plain_adapter_of_its_base(base: Path, tmp_path: Path) -> None:
    dora = make_dora(LINEAR)
    save_adapter(tmp_path / "d.safetensors", replaced(make_adapter(LINEAR), dora))

    result = run_command(
        merge, tmp_path / "d.safetensors", "--base", base, "--rank", 6, "--precision", "fp32", "--out",
        tmp_path / "plain.safetensors",
    )  # fmt: skip

    (module,) = read_adapter(tmp_path / "plain.safetensors").modules.values()
    assert (result.exit_code, module.type) == (0, "lora")
    assert torch.allclose(module.delta, dora.change(torch.ones(6, 10)), atol=1e-4)


@pytest.mark.parametrize(("option", "value"), [("--rank", "4"), ("--base", "x")])
def test_options_of_adapters_do_not_go_with_a_base(
    adapters: list[Path], tmp_path: Path, option: str, value: str
) -> None:
    result = run_command(merge, adapters[0], "--into", tmp_path, "--out", tmp_path / "out", option, value)

    assert (result.exit_code, f"{option} makes an adapter" in result.stderr) == (64, True)


def test_a_base_that_is_none_is_refused(adapters: list[Path], tmp_path: Path) -> None:
    result = run_command(merge, adapters[0], "--into", tmp_path, "--out", tmp_path / "out")

    assert result.exit_code == 66
    assert "neither a diffusers folder" in result.stderr


def test_a_place_that_cannot_be_written_is_told(adapters: list[Path], base: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    result = run_command(merge, adapters[0], "--into", base, "--out", tmp_path / "file" / "out")

    assert result.exit_code == 64
    assert "out cannot be written: Not a directory; choose another place" in result.stderr
