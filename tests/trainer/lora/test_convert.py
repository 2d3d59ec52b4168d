"""Formats into one another, bit for bit."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors import safe_open

from lora_api.model_spec import Family, Network
from lora_trainer.lora.convert import convert
from lora_trainer.lora.formats import (
    InvalidAdapterFile,
    content_hashes,
    read_adapter,
    save_adapter,
    to_kohya,
    write_adapter,
)
from tests.support.adapter_files import make_adapter, make_dora, replaced
from tests.support.adapters import adapt, distance, load_parts, outputs_of
from tests.support.tiny_pipeline import write_tiny_pipeline

METADATA = {"ss_seed": "1", "ss_tag_frequency": '{"1_ü": {}}', "modelspec.title": "a"}
VERSIONS = {"sd15": "sd_v1", "sd2": "sd_v2", "sdxl": "sdxl_base_v1-0"}


def kohya_file(folder: Path, family: Family = "sd15", dtype: torch.dtype = torch.float16) -> Path:
    """A file as a run writes it: two ranks, an alpha that fp16 rounds, hashes, and a module with a magnitude."""
    metadata = METADATA | {"ss_base_model_version": VERSIONS[family]}
    adapter = make_adapter(rank=4, alpha=0.3, dtype=dtype, family=family, metadata=metadata)
    other = make_adapter(*(module.name for module in adapter.modules.values()), rank=2, alpha=1.1, dtype=dtype)
    mixed = replaced(adapter, next(iter(other.modules.values())))
    save_adapter(folder / "kohya.safetensors", mixed)
    return folder / "kohya.safetensors"


@pytest.mark.parametrize("family", ["sd15", "sdxl"])
@pytest.mark.parametrize("through", ["diffusers", "peft"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_the_way_to_another_format_and_back_changes_no_byte(
    tmp_path: Path, through: Any, family: Family, dtype: torch.dtype
) -> None:
    source = kohya_file(tmp_path, family, dtype)

    convert(source, tmp_path / "other", to=through)
    convert(tmp_path / "other", tmp_path / "back.safetensors", to="kohya")

    assert (tmp_path / "back.safetensors").read_bytes() == source.read_bytes()


def test_the_way_from_diffusers_through_kohya_and_back_changes_no_byte(tmp_path: Path) -> None:
    convert(kohya_file(tmp_path), tmp_path / "diffusers.safetensors", to="diffusers")

    convert(tmp_path / "diffusers.safetensors", tmp_path / "k.safetensors", to="kohya")
    convert(tmp_path / "k.safetensors", tmp_path / "back.safetensors", to="diffusers")

    assert (tmp_path / "back.safetensors").read_bytes() == (tmp_path / "diffusers.safetensors").read_bytes()


@pytest.mark.parametrize("through", ["diffusers", "peft"])
def test_a_dora_comes_back_as_it_was(tmp_path: Path, through: Any) -> None:
    adapter = make_adapter()
    doras = [make_dora(module.name) for module in adapter.modules.values()]
    save_adapter(tmp_path / "a.safetensors", replaced(adapter, *doras))

    convert(tmp_path / "a.safetensors", tmp_path / "other", to=through)
    convert(tmp_path / "other", tmp_path / "back.safetensors", to="kohya")

    assert (tmp_path / "back.safetensors").read_bytes() == (tmp_path / "a.safetensors").read_bytes()


def test_metadata_is_kept_and_the_hashes_are_those_of_the_new_file(tmp_path: Path) -> None:
    convert(kohya_file(tmp_path), tmp_path / "d.safetensors", to="diffusers")

    with safe_open(tmp_path / "d.safetensors", framework="pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert metadata.items() >= METADATA.items()
    assert metadata["sshs_model_hash"] == content_hashes(tensors, {})["sshs_model_hash"]


def test_diffusers_is_told_every_rank_and_alpha(tmp_path: Path) -> None:
    convert(kohya_file(tmp_path), tmp_path / "d.safetensors", to="diffusers")

    config = json.loads(read_adapter(tmp_path / "d.safetensors").metadata["lora_adapter_metadata"])

    assert (config["text_encoder.r"], config["text_encoder.rank_pattern"]) == (2, {})
    assert (config["unet.r"], config["unet.rank_pattern"]) == (4, {})
    assert config["unet.lora_alpha"] == pytest.approx(0.3, rel=1e-3)
    assert set(config["unet.target_modules"]) == {
        "mid_block.attentions.0.transformer_blocks.0.attn1.to_q",
        "mid_block.resnets.0.conv1",
    }


def test_another_precision_rounds_the_tensors_and_nothing_else(tmp_path: Path) -> None:
    source = kohya_file(tmp_path, dtype=torch.float32)

    convert(source, tmp_path / "half.safetensors", to="kohya", dtype=torch.float16)

    before, after = read_adapter(source), read_adapter(tmp_path / "half.safetensors")
    assert all(after.modules[key].down.equal(module.down.half()) for key, module in before.modules.items())
    assert {module.rank for module in after.modules.values()} == {2, 4}


def test_the_family_that_is_given_names_the_keys(tmp_path: Path) -> None:
    converted = convert(kohya_file(tmp_path), tmp_path / "xl.safetensors", to="kohya", family="sdxl")

    assert "lora_unet_middle_block_0_in_layers_2" in converted.modules
    assert "lora_te1_text_model_encoder_layers_0_mlp_fc1" in read_adapter(tmp_path / "xl.safetensors").modules


@pytest.mark.parametrize("config", [{"peft_type": "LOHA"}, {}])
def test_a_folder_of_another_kind_of_peft_adapter_is_refused(tmp_path: Path, config: dict[str, str]) -> None:
    convert(kohya_file(tmp_path), tmp_path / "peft", to="peft")
    (tmp_path / "peft/unet/adapter_config.json").write_text(json.dumps(config))

    with pytest.raises(InvalidAdapterFile, match=r"unet/adapter_config\.json has peft_type"):
        convert(tmp_path / "peft", tmp_path / "back.safetensors", to="kohya")


def test_a_folder_without_adapters_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidAdapterFile, match="name an adapter file or a folder with a PEFT adapter for each part"):
        convert(tmp_path, tmp_path / "back.safetensors", to="kohya")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ([], r"unet/adapter_config\.json is no JSON object"),
        ({"peft_type": "LORA", "lora_alpha": "x"}, "lora_alpha or alpha_pattern cannot be used"),
        ({"peft_type": "LORA", "lora_alpha": 1, "alpha_pattern": "x"}, "lora_alpha or alpha_pattern cannot be used"),
    ],
)
def test_a_damaged_config_of_peft_is_refused(tmp_path: Path, config: object, message: str) -> None:
    convert(kohya_file(tmp_path), tmp_path / "peft", to="peft")
    (tmp_path / "peft/unet/adapter_config.json").write_text(json.dumps(config))

    with pytest.raises(InvalidAdapterFile, match=message):
        convert(tmp_path / "peft", tmp_path / "back.safetensors", to="kohya")


def test_a_file_of_peft_without_its_folder_is_refused_since_nobody_knows_its_strength(tmp_path: Path) -> None:
    convert(kohya_file(tmp_path), tmp_path / "peft", to="peft")

    with pytest.raises(InvalidAdapterFile, match=r"its strength stands in adapter_config\.json beside it"):
        read_adapter(tmp_path / "peft/unet/adapter_model.safetensors")


@pytest.mark.parametrize(("kind", "error"), [("lora", 0.0), ("dora", 1e-5)])
def test_peft_opens_the_folders(tmp_path: Path, kind: Any, error: float) -> None:
    base = write_tiny_pipeline(tmp_path / "base", family="sdxl")
    adapted = adapt(base, Network(type=kind, rank=4, alpha=2.0), family="sdxl")
    write_adapter(tmp_path / "a.safetensors", to_kohya(adapted.adapters.layers, torch.float32, "sdxl"), {})
    convert(tmp_path / "a.safetensors", tmp_path / "peft", to="peft")

    parts = load_parts(base, "sdxl")
    for name, part in parts.items():
        PeftModel.from_pretrained(part, tmp_path / "peft" / name)

    assert distance(outputs_of(parts), adapted.outputs()) <= error
