"""The numbers of an adapter file."""

from pathlib import Path

import pytest
import torch

from lora_trainer.lora.adapter import AdapterFile
from lora_trainer.lora.formats import save_adapter
from lora_trainer.lora.inspect import AdapterSummary, summarise
from tests.support.adapter_files import (
    CONVOLUTION,
    LINEAR,
    TEXT,
    make_adapter,
    make_dora,
    make_loha,
    make_lokr,
    make_module,
    replaced,
)


def summary_of(adapter: AdapterFile, folder: Path) -> AdapterSummary:
    """The summary of the adapter's file."""
    save_adapter(folder / "a.safetensors", adapter)
    return summarise(folder / "a.safetensors")


def test_norms_are_those_of_the_weight_changes(tmp_path: Path) -> None:
    adapter = replaced(make_adapter(rank=4, alpha=3.0), make_loha(TEXT), make_lokr(LINEAR))

    summary = summary_of(adapter, tmp_path)

    norms = {key: float(module.delta.norm()) for key, module in adapter.modules.items()}
    assert {key: module["norm"] for key, module in summary.modules.items()} == pytest.approx(norms, rel=1e-5)
    unet = [norms[key] for key in norms if key.startswith("lora_unet")]
    assert summary.parts["unet"].mean_norm == pytest.approx(sum(unet) / 2, rel=1e-5)
    assert summary.parts["unet"].max_norm == pytest.approx(max(unet), rel=1e-5)
    assert norms[summary.parts["unet"].max_norm_module] == max(unet)


def test_modules_ranks_alphas_and_sizes_are_counted(tmp_path: Path) -> None:
    adapter = replaced(make_adapter(dtype=torch.float16), make_module(LINEAR, rank=2, alpha=1.0, dtype=torch.float16))

    summary = summary_of(adapter, tmp_path)

    assert {name: (part.modules, part.ranks, part.alphas) for name, part in summary.parts.items()} == {
        "text_encoder": (1, (4,), (2.0,)),
        "unet": (2, (2, 4), (1.0, 2.0)),
    }
    assert summary.parameters == 2 * (6 + 10) + 4 * (8 + 4 * 9) + 4 * (12 + 5)
    assert (summary.dtypes, summary.size_bytes) == (("float16",), (tmp_path / "a.safetensors").stat().st_size)


def test_blocks_are_listed_from_input_to_output(tmp_path: Path) -> None:
    summary = summary_of(make_adapter(), tmp_path)

    assert list(summary.blocks) == ["M00"]
    assert summary.blocks["M00"].modules == 2


def test_type_family_and_format_are_told(tmp_path: Path) -> None:
    adapter = replaced(make_adapter(LINEAR, family="sdxl"), make_dora(CONVOLUTION))

    summary = summary_of(adapter, tmp_path)

    assert (summary.type, summary.family, summary.format) == ("dora", "sdxl", "kohya")


def test_a_peft_folder_has_the_size_of_its_files(tmp_path: Path) -> None:
    save_adapter(tmp_path / "peft", make_adapter(), to="peft")

    summary = summarise(tmp_path / "peft")

    assert summary.format == "peft"
    assert summary.size_bytes == sum(file.stat().st_size for file in (tmp_path / "peft").glob("*/*"))


def test_the_most_frequent_tags_of_all_folders_come_first(tmp_path: Path) -> None:
    frequency = '{"1_a": {"hina": 3, "red": 1, "blue": 1}, "1_b": {"red": 2, ' + ", ".join(
        f'"t{index}": 1' for index in range(20)
    )
    metadata = {"ss_tag_frequency": frequency + "}}", "modelspec.trigger_phrase": "hina"}

    summary = summary_of(make_adapter(metadata=metadata), tmp_path)

    assert summary.trigger_phrase == "hina"
    assert (len(summary.tags), summary.tags[:3]) == (10, (("hina", 3), ("red", 3), ("blue", 1)))


@pytest.mark.parametrize("text", ["no json", "[]", '{"a": 3}', '{"a": {"b": "many"}}'])
def test_a_table_of_tags_that_is_none_is_left_out(tmp_path: Path, text: str) -> None:
    assert summary_of(make_adapter(metadata={"ss_tag_frequency": text}), tmp_path).tags == ()
