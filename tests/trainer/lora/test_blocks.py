"""Module paths and the names of the blocks that they lie in."""

import pytest
import torch
from diffusers import UNet2DConditionModel

from lora_api.model_spec import Family
from lora_trainer.lora.blocks import block_names, block_of


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("conv_in", "IN00"),
        ("down_blocks.0.attentions.0.proj_in", "IN01"),
        ("down_blocks.0.resnets.1.conv1", "IN02"),
        ("down_blocks.0.downsamplers.0.conv", "IN03"),
        ("down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q", "IN04"),
        ("down_blocks.2.downsamplers.0.conv", "IN09"),
        ("down_blocks.3.resnets.1.conv2", "IN11"),
        ("mid_block.attentions.0.proj_out", "M00"),
        ("mid_block.resnets.1.conv1", "M00"),
        ("up_blocks.0.resnets.0.time_emb_proj", "OUT00"),
        ("up_blocks.0.upsamplers.0.conv", "OUT02"),
        ("up_blocks.1.attentions.0.proj_in", "OUT03"),
        ("up_blocks.3.attentions.2.proj_out", "OUT11"),
        ("time_embedding.linear_1", None),
        ("conv_out", None),
    ],
)
def test_sd_has_twelve_blocks_a_side_and_one_in_the_middle(path: str, name: str | None) -> None:
    assert block_of(path, "sd15") == block_of(path, "sd2") == name


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("down_blocks.0.resnets.0.conv1", "IN01"),
        ("down_blocks.0.downsamplers.0.conv", "IN03"),
        ("down_blocks.1.attentions.0.proj_in", "IN04"),
        ("down_blocks.2.attentions.1.transformer_blocks.9.ff.net.2", "IN08"),
        ("mid_block.resnets.0.conv1", "M00"),
        ("mid_block.attentions.0.transformer_blocks.3.attn2.to_k", "M01"),
        ("mid_block.resnets.1.conv1", "M02"),
        ("up_blocks.0.attentions.2.proj_in", "OUT02"),
        ("up_blocks.0.upsamplers.0.conv", "OUT02"),
        ("up_blocks.1.attentions.1.proj_in", "OUT04"),
        ("up_blocks.2.resnets.2.conv_shortcut", "OUT08"),
        ("add_embedding.linear_1", None),
    ],
)
def test_sdxl_has_nine_blocks_a_side_and_three_in_the_middle(path: str, name: str | None) -> None:
    assert block_of(path, "sdxl") == name


@pytest.mark.parametrize(("family", "count"), [("sd15", 25), ("sd2", 25), ("sdxl", 21)])
def test_a_family_names_each_block_once(family: Family, count: int) -> None:
    assert len(set(block_names(family))) == len(block_names(family)) == count


def test_only_the_edges_of_the_real_model_lie_in_no_block() -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=768)
    names = {path: block_of(path, "sd15") for path, module in unet.named_modules() if hasattr(module, "weight")}

    outside = {path for path, name in names.items() if name is None}

    assert outside == {"time_embedding.linear_1", "time_embedding.linear_2", "conv_norm_out", "conv_out"}
    assert set(names.values()) - {None} == set(block_names("sd15"))
