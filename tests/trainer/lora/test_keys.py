"""Names of modules in files: against the real UNets' own module names."""

import subprocess
import sys
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import nn

from lora_api.model_spec import Family
from lora_trainer.lora.keys import UnknownKey, diffusers_path, kohya_key, ldm_path, module_named

SDXL: dict[str, Any] = {
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
CONFIGS: dict[Family, dict[str, Any]] = {"sd15": {"cross_attention_dim": 768}, "sdxl": SDXL}


def paths_of(family: Family) -> list[str]:
    """Every Linear and Conv2d of the real UNet, which are all that any adapter can adapt."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(**CONFIGS[family])
    return [name for name, module in unet.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]


@pytest.fixture(scope="module")
def paths() -> dict[Family, list[str]]:
    return {family: paths_of(family) for family in CONFIGS}


@pytest.mark.parametrize(("family", "attention", "with_convolutions"), [("sd15", 192, 278), ("sdxl", 722, 788)])
def test_every_module_of_the_real_unet_has_a_name_of_its_own(
    paths: dict[Family, list[str]], family: Family, attention: int, with_convolutions: int
) -> None:
    keys = {path: kohya_key("unet", path, family) for path in paths[family]}
    outside = ("conv_in", "conv_out", "time_embedding.", "add_embedding.")
    inside = [path for path in keys if not path.startswith(outside)]

    assert len(set(keys.values())) == len(keys)
    assert (sum(".attentions." in path for path in inside), len(inside)) == (attention, with_convolutions)


@pytest.mark.parametrize("family", CONFIGS)
def test_a_name_leads_back_to_its_module(paths: dict[Family, list[str]], family: Family) -> None:
    assert {path: module_named(kohya_key("unet", path, family)).path for path in paths[family]} == {
        path: path for path in paths[family]
    }


@pytest.mark.parametrize("family", CONFIGS)
def test_an_ldm_name_leads_back_to_its_module(paths: dict[Family, list[str]], family: Family) -> None:
    assert [diffusers_path(ldm_path(path, family)) for path in paths[family]] == paths[family]


def test_sdxl_files_with_diffusers_names_are_read(paths: dict[Family, list[str]]) -> None:
    assert [module_named("lora_unet_" + path.replace(".", "_")).path for path in paths["sdxl"]] == paths["sdxl"]


@pytest.mark.parametrize(
    ("family", "path", "key"),
    [
        (
            "sd15",
            "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0",
            "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_out_0",
        ),
        ("sd15", "mid_block.attentions.0.proj_out", "lora_unet_mid_block_attentions_0_proj_out"),
        ("sd2", "down_blocks.0.resnets.0.time_emb_proj", "lora_unet_down_blocks_0_resnets_0_time_emb_proj"),
        (
            "sdxl",
            "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q",
            "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q",
        ),
        ("sdxl", "down_blocks.0.resnets.0.conv1", "lora_unet_input_blocks_1_0_in_layers_2"),
        ("sdxl", "down_blocks.0.resnets.0.conv2", "lora_unet_input_blocks_1_0_out_layers_3"),
        ("sdxl", "down_blocks.0.downsamplers.0.conv", "lora_unet_input_blocks_3_0_op"),
        ("sdxl", "down_blocks.1.resnets.0.conv_shortcut", "lora_unet_input_blocks_4_0_skip_connection"),
        ("sdxl", "mid_block.attentions.0.proj_in", "lora_unet_middle_block_1_proj_in"),
        ("sdxl", "mid_block.resnets.1.time_emb_proj", "lora_unet_middle_block_2_emb_layers_1"),
        ("sdxl", "up_blocks.1.attentions.2.proj_out", "lora_unet_output_blocks_5_1_proj_out"),
        ("sdxl", "up_blocks.0.upsamplers.0.conv", "lora_unet_output_blocks_2_2_conv"),
    ],
)
def test_unet_modules_have_the_names_that_every_reader_knows(family: Family, path: str, key: str) -> None:
    assert kohya_key("unet", path, family) == key


@pytest.mark.parametrize("path", ["encoder.layers.0.self_attn.k_proj", "text_model.encoder.layers.0.self_attn.k_proj"])
@pytest.mark.parametrize(
    ("part", "family", "prefix"),
    [
        ("text_encoder", "sd15", "lora_te_"),
        ("text_encoder", "sd2", "lora_te_"),
        ("text_encoder", "sdxl", "lora_te1_"),
        ("text_encoder_2", "sdxl", "lora_te2_"),
    ],
)
def test_text_encoder_keys_hold_text_model_whatever_the_model_calls_it(
    part: Any, family: Family, prefix: str, path: str
) -> None:
    key = kohya_key(part, path, family)

    assert key == f"{prefix}text_model_encoder_layers_0_self_attn_k_proj"
    assert module_named(key) == (part, "encoder.layers.0.self_attn.k_proj")


def test_the_first_text_encoder_is_read_under_both_names() -> None:
    names = {module_named(f"{prefix}text_model_encoder_layers_11_mlp_fc1") for prefix in ("lora_te_", "lora_te1_")}

    assert names == {("text_encoder", "encoder.layers.11.mlp.fc1")}


def test_a_key_of_another_kind_of_model_is_refused() -> None:
    with pytest.raises(UnknownKey, match="lora_transformer_x names no module of Stable Diffusion 1, 2 or XL"):
        module_named("lora_transformer_x")


@pytest.mark.parametrize(("family", "place"), [("sd15", 1), ("sdxl", 2)])
def test_an_upsampler_comes_after_the_attention_where_its_block_has_one(family: Family, place: int) -> None:
    assert ldm_path("up_blocks.0.upsamplers.0.conv", family) == f"output_blocks.2.{place}.conv"


def test_the_names_need_no_torch() -> None:
    code = "import sys; import lora_trainer.lora.keys; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
